"""What every snapshot holds besides its sources, so that a new machine can be set up from it alone.

Promise: the configuration with references, no secrets; opsd's version; the rescue script; the list of installed packages.
"""

from pathlib import Path

from opsd.values import dataclass

_DPKG_STATUS = Path("/var/lib/dpkg/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The configuration's text, the rescue script, the package list."""

    configuration: bytes = b""
    rescue: bytes = b""
    packages: bytes = b""


def installed_packages(status: Path = _DPKG_STATUS) -> bytes:
    """`name version` a line for what dpkg has installed; empty where there is no dpkg (deb-control(5))."""
    try:
        content = status.read_bytes()
    except OSError:
        return b""
    lines = []
    for paragraph in content.split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in paragraph.splitlines() if b": " in line and line[:1] != b" ")
        if fields.get(b"Status", b"").endswith(b" installed"):
            lines.append(fields.get(b"Package", b"") + b" " + fields.get(b"Version", b""))
    return b"\n".join(sorted(lines)) + b"\n" if lines else b""
