"""What the systemd units keep from opsd that a night needs: hidden folders, folders that can't be written to, the network, secrets.

Promise: pure but for reading the units' files; where there are no units, nothing is kept from anybody.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from opsd.values import dataclass
from opsd.verify.findings import Finding, failure, warning

#: The unit that reads what is backed up, the one that fills copies, and all that are passed secrets.
WORKER: Final = "opsd-worker.service"
UPKEEP: Final = "opsd-upkeep.service"
WITH_SECRETS: Final = (WORKER, UPKEEP, "opsd-drill.service", "opsd-restore.service", "opsd-daemon.service")
#: Where units stand, the most telling place last (systemd.unit(5)).
_PLACES: Final = ("/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system")
_ON: Final = frozenset({"1", "yes", "true", "on"})
_PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= hides
_HOMES: Final = ("/home", "/root", "/run/user")
_FOLDERS: Final = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "RuntimeDirectory": "/run"}
_SECRETS: Final = (
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
    "ImportCredential",
)
#: What makes drop-ins for all that the configuration names.
STEP: Final = "opsd config units --write && systemctl daemon-reload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What a unit lets its programs have (systemd.exec(5)). `hidden`: folders, each with the line that hides it.

    `writable`: the only folders that can be written to, None for all. `secrets`: names of credentials, with wildcards.
    """

    unit: str
    hidden: Mapping[str, str] = field(default_factory=dict)
    writable: tuple[str, ...] | None = None
    has_network: bool = True
    secrets: tuple[str, ...] = ()

    def hides(self, subject: str, paths: Iterable[str]) -> Iterator[Finding]:
        """The paths that are hidden; of a folder above a hidden one only that part, and nothing of what passes."""
        for path in paths:
            for folder, line in self.hidden.items():
                if _lies_in(path, folder):
                    text = f"{path} is hidden from opsd: {line} in {self.unit}"
                    yield failure(subject, text, f"systemctl edit {self.unit}, and add below [Service]: {_shown(line)}")
                elif _lies_in(folder, path) and folder not in _PRIVATE:
                    yield warning(subject, f"{folder} below {path} is hidden from opsd: {line} in {self.unit}")

    def refuses_to_write(self, subject: str, path: str) -> Iterator[Finding]:
        """Whether a folder can't be written to."""
        if self.writable is not None and not any(_lies_in(path, folder) for folder in self.writable):
            yield failure(subject, f"{path} can't be written to by {self.unit}: no ReadWritePaths= names it", STEP)

    def refuses_network(self, subject: str, what: str) -> Iterator[Finding]:
        """Whether a server can't be reached."""
        if not self.has_network:
            yield failure(subject, f"{what} can't be reached by {self.unit}: it has no network", STEP)


def installed(root: Path = Path("/"), unit: str = WORKER) -> Sandbox | None:
    """The unit as it is installed, with its drop-ins; None where it is not."""
    text = _text(root, unit)
    return parsed(unit, text) if text else None


def _text(root: Path, unit: str) -> str:
    folders = [root / place.lstrip("/") for place in _PLACES]
    found = [folder / unit for folder in folders if (folder / unit).is_file()][-1:]
    extra = {path.name: path for folder in folders for path in (folder / f"{unit}.d").glob("*.conf")}
    files = (*found, *(extra[name] for name in sorted(extra))) if found else ()
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def parsed(unit: str, text: str) -> Sandbox:
    """What the lines of a unit come to."""
    values = _values(text)
    last = {name: given[-1].lower() for name, given in values.items()}
    hidden: dict[str, str] = {}
    if last.get("PrivateTmp", "no") in _ON | {"disconnected"}:
        hidden |= dict.fromkeys(_PRIVATE, f"PrivateTmp={last['PrivateTmp']}")
    if last.get("ProtectHome", "no") in _ON | {"tmpfs"}:
        hidden |= dict.fromkeys(_HOMES, f"ProtectHome={last['ProtectHome']}")
    for name in ("InaccessiblePaths", "TemporaryFileSystem"):
        hidden |= {_path(word): f"{name}={word}" for word in _words(values, name)}
    families = _words(values, "RestrictAddressFamilies")
    return Sandbox(
        unit=unit,
        hidden=hidden,
        writable=tuple(_writable(values)) if last.get("ProtectSystem") == "strict" else None,
        has_network=last.get("PrivateNetwork", "no") not in _ON and (not families or "AF_INET" in families),
        secrets=tuple(word.partition(":")[0] for name in _SECRETS for word in values.get(name, ())),
    )


def _values(text: str) -> dict[str, list[str]]:
    """What each option is set to, in order; an empty value forgets what was said before."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            values[name] = [*values.get(name, ()), value] if value else []
    return {name: given for name, given in values.items() if given}


def _words(values: Mapping[str, Sequence[str]], name: str) -> list[str]:
    return " ".join(values.get(name, ())).split()


def _writable(values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from map(_path, _words(values, "ReadWritePaths"))
    for name, above in _FOLDERS.items():
        yield from (f"{above}/{word.partition(':')[0]}" for word in _words(values, name))
    yield from _PRIVATE


def _path(word: str) -> str:
    return word.lstrip("-+").partition(":")[0].rstrip("/")


def _shown(line: str) -> str:
    """The line that shows again what another hides."""
    option = line.partition("=")[0]
    return option + {"ProtectHome": "=read-only", "PrivateTmp": "=no"}.get(option, "=")


def passes(boxes: Sequence[Sandbox], name: str) -> bool:
    """Whether some unit is passed a credential of that name."""
    return any(fnmatchcase(name, pattern) for box in boxes for pattern in box.secrets)


def _lies_in(path: str, folder: str) -> bool:
    folder = folder.rstrip("/")
    return path.rstrip("/") == folder or path.startswith(f"{folder}/")
