"""What the units of systemd must let opsd have, as the configuration names it: folders, the network, secrets.

Pure. Promise: each unit gets what its jobs need and nothing else; a unit that needs no more than it has gets no file. The units
themselves stand in `systemd/`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from opsd.backup.places import FolderPlace, StorePlace
from opsd.credentials import references
from opsd.settings import Settings
from opsd.sources.options import CommandSource, PostgresqlSource

FOLDER: Final = Path("/etc/systemd/system")
#: The name of the drop-in of each unit, systemd.unit(5).
DROP_IN: Final = "opsd.conf"
UNITS: Final = ("daemon", "worker", "upkeep", "drill", "restore", "failure@")
_HEADER: Final = """\
# Made from the configuration by 'opsd config units --write'; make it again when that changes.
[Service]
"""
#: What the units let be written anyway, and what hides what lies below.
_OWN: Final = ("/var/lib/opsd", "/var/cache/opsd", "/var/backups/opsd")
_HOMES: Final = ("/home", "/root", "/run/user")
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= hides
_HIDING: Final = frozenset({"daemon", "upkeep", "drill", "failure@"})
_WITHOUT_NETWORK: Final = frozenset({"worker", "drill"})
#: Whose secrets each unit is given: sections of the configuration.
_SECRETS: Final[Mapping[str, tuple[str, ...]]] = {
    "daemon": ("alerts",),
    "failure@": ("alerts",),
    "worker": ("sources",),
    "upkeep": ("copies", "pulls"),
    "drill": ("copies", "pulls", "drill"),
    "restore": ("sources", "copies", "pulls", "passphrase"),
}


def drop_ins(settings: Settings) -> dict[str, str]:
    """For each unit that needs more than it has, its drop-in: `opsd-worker.service` and the file's text."""
    found = {}
    for unit in UNITS:
        lines = [*_folders(unit, settings), *_network(unit, settings), *_secrets(unit, settings)]
        if lines:
            found[f"opsd-{unit}.service"] = _HEADER + "\n".join(lines) + "\n"
    return found


def _folders(unit: str, settings: Settings) -> Iterator[str]:
    written, read = _written(unit, settings), _read(unit, settings)
    if unit != "restore":
        yield from (f"ReadWritePaths=-{_quoted(path)}" for path in _outermost(written) if not _below(path, _OWN))
    if unit in _HIDING:
        if any(_below(path, _HOMES) for path in (*written, *read)):
            yield "ProtectHome=read-only"
        if any(_below(path, _TEMPORARY) for path in (*written, *read)):
            yield "PrivateTmp=no"


def _written(unit: str, settings: Settings) -> list[str]:
    """What a unit writes to."""
    folders = [settings.state]
    if unit in {"worker", "upkeep", "drill"}:
        folders.append(settings.cache)
    if unit in {"worker", "upkeep"} and settings.repository:
        folders.append(Path(settings.repository))
    if unit == "upkeep":
        folders += _places(_targets(settings))
    if unit == "drill" and settings.drill.scratch:
        folders.append(settings.drill.scratch)
    return [str(folder) for folder in folders]


def _read(unit: str, settings: Settings) -> list[str]:
    """What it reads besides; the worker, from which nothing is hidden, reads all."""
    if unit == "upkeep":
        return [str(folder) for folder in _places(each.source for each in settings.pulls.values())]
    if unit == "drill":
        read = (settings.repository, *_places(_targets(settings)), *settings.slot_folders.values())
        return [str(folder) for folder in read if folder]
    return [settings.repository] if unit == "daemon" and settings.repository else []


def _targets(settings: Settings) -> list[StorePlace]:
    return [each.place for each in settings.copies] + [each.target for each in settings.pulls.values()]


def _places(places: Iterable[StorePlace]) -> list[Path]:
    return [place.folder for place in places if isinstance(place, FolderPlace)]


def _network(unit: str, settings: Settings) -> Iterator[str]:
    if unit in _WITHOUT_NETWORK and (reason := _reason(unit, settings)):
        yield f"# For {reason}."
        yield from ("PrivateNetwork=no", "IPAddressDeny=", "RestrictAddressFamilies=AF_INET AF_INET6")


def _reason(unit: str, settings: Settings) -> str:
    """Why the unit needs the network; empty where it does not."""
    if unit == "drill":
        far = [str(place) for place in _targets(settings) if not isinstance(place, FolderPlace)]
        if far:
            return f"the copy {far[0]}"
    for source in settings.sources if unit == "worker" or _asks_live(settings) else ():
        if isinstance(source.options, CommandSource) and unit == "worker":
            return f"the source {source.label}, whose program may need it"
        if isinstance(source.options, PostgresqlSource) and _is_far(source.options):
            return f"the source {source.label}"
    if any("command" in reference for reference in references(_sections(unit, settings))):
        return "a program that fetches a secret"
    return ""


def _asks_live(settings: Settings) -> bool:
    """Whether the drill compares with databases that are at work."""
    return any(check.live for check in settings.drill.checks)


def _is_far(server: PostgresqlSource) -> bool:
    return bool(server.via) or bool(server.host and not server.host.startswith("/"))


def _secrets(unit: str, settings: Settings) -> Iterator[str]:
    found = references(_sections(unit, settings))
    names = {str(reference["credential"]) for reference in found if "credential" in reference}
    yield from (f"LoadCredentialEncrypted={name}" for name in sorted(names))


def _sections(unit: str, settings: Settings) -> list[Any]:
    sections = [getattr(settings, name) for name in _SECRETS[unit]]
    if unit == "drill" and settings.drill.key is None:
        sections.append(settings.passphrase)
    if unit == "drill" and _asks_live(settings):
        sections.append(settings.sources)
    return sections


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Each once, without those that lie in another."""
    known = sorted(set(paths))
    return [path for path in known if not any(path != other and _below(path, [other]) for other in known)]


def _quoted(path: str) -> str:
    """A path as systemd.syntax(7) and systemd.unit(5) read it."""
    path = path.replace("%", "%%")
    if not any(character in path for character in " \t\"'\\"):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def files(settings: Settings, folder: Path = FOLDER) -> dict[Path, str]:
    """Each drop-in and its text; empty where there should be none any more."""
    texts = drop_ins(settings)
    return {folder / f"opsd-{unit}.service.d" / DROP_IN: texts.get(f"opsd-{unit}.service", "") for unit in UNITS}


def write(settings: Settings, folder: Path = FOLDER) -> list[Path]:
    """Write the drop-ins, remove those that are needed no more; returns the files that changed.

    Raises:
        OSError: one can't be written.
    """
    changed = []
    for path, text in files(settings, folder).items():
        if (path.read_text(encoding="utf-8") if path.exists() else "") == text:
            continue
        if text:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            partial = path.with_suffix(".new")
            partial.write_text(text, encoding="utf-8")
            partial.chmod(0o644)
            partial.rename(path)
        else:
            path.unlink()
        changed.append(path)
    return changed
