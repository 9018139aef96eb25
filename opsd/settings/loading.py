"""From files, or from the environment alone, to Settings.

Promise: Settings, or a ConfigurationError with every mistake at once; never another error. Nothing is resolved or opened that a
configuration names.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from opsd.backup.places import FolderPlace, S3Place, SftpPlace, StorePlace
from opsd.errors import ConfigurationError
from opsd.settings.alerts import salvaged_contacts
from opsd.settings.model import CONFIGURATION, DEFAULT_STATE, Settings, filled
from opsd.settings.nodes import LARGEST, Reading, merged, parse
from opsd.settings.shapes import WRONG, suggestion
from opsd.sources.options import FilesSource, PostgresqlSource, SqliteSource

DEFAULT_FILE = Path("/etc/opsd/opsd.yaml")

_SUFFIXES = frozenset({".yaml", ".yml"})
#: What it takes to tell people that something is wrong.
_TELLING = frozenset({"host", "timezone", "state", "alerts"})
_HOW = "name a file with -c FILE or OPSD_CONFIG, or set OPSD_REPOSITORY; 'opsd setup' makes one"


def default_paths(file: Path = DEFAULT_FILE) -> tuple[Path, ...]:
    """The default file and those of `conf.d` beside it, in order of name; what begins with a dot is an editor's."""
    found = (file.parent / "conf.d").glob("*.y*ml")
    return (file, *sorted(each for each in found if each.suffix in _SUFFIXES and not each.name.startswith(".")))


def load(paths: Path | str | Sequence[Path | str] | None = None, default_host: str | None = None) -> Settings:
    """Settings from a file, from several as one, or from the default places; mistakes name files as they are given.

    `default_host` is the host's label where no file sets one; the machine's name without it.

    Raises:
        ConfigurationError: a file can't be read, or there are mistakes.
    """
    if isinstance(paths, Path | str):
        paths = (paths,)
    contents = {str(path): _read(Path(path)) for path in paths or default_paths()}
    settings = parsed(contents)
    if default_host is not None and "host" not in settings.origin:
        return replace(settings, host=default_host)
    return settings


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigurationError((f"{path}: {reason}",), hint=_HOW) from error


def parsed(contents: Mapping[str, bytes]) -> Settings:
    """Settings from the contents of files by name.

    Raises:
        ConfigurationError: there are mistakes.
    """
    reading = Reading()
    trees = [parse(name, content, reading) for name, content in contents.items()]
    reading.stop_at_syntax()
    root = reduce(lambda first, second: merged(first, second, reading), trees)
    settings: Settings = CONFIGURATION.read(root, "", reading)
    if settings is not WRONG:
        for key, problem in _disagreements(settings):
            # A default that is wrong is so because of the repository, or of a copy.
            place = (
                reading.origins.get(key) or reading.origins.get("repository") or next(iter(reading.origins.values()))
            )
            reading.mistake(place, key, problem)
    reading.finish()
    text = "\n".join(content.decode("utf-8-sig") for content in contents.values())
    return replace(settings, text=text, origin=_lines(reading))


def _lines(reading: Reading) -> dict[str, str]:
    return {
        key: ", ".join(f"{each.file}:{each.line}" for each in (place, *reading.appended.get(key, ())))
        for key, place in reading.origins.items()
    }


def salvaged(paths: Path | str | None, default_host: str) -> Settings:
    """Of a configuration with mistakes what it takes to tell people of them: host, zone, state and alerts, as far as each can be read."""
    given: dict[str, Any] = {"host": default_host}
    for path in default_paths() if paths is None else (paths,):
        reading = Reading()
        with suppress(ConfigurationError):
            pairs = parse(str(path), _read(Path(path)), reading).pairs
            for name in _TELLING & pairs.keys():
                value = CONFIGURATION.keys[name].shape.read(pairs[name][1], name, reading)
                if value is WRONG and name == "alerts":
                    value = salvaged_contacts(pairs[name][1], reading)
                given |= {name: value} if value is not WRONG else {}
    return Settings(**filled(given))


def _disagreements(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is right by itself but not beside the rest: (key, problem)."""
    domains = ["default", *settings.key_domains]
    if "default" in settings.key_domains:
        yield "key_domains.default", "there is always a domain of this name; choose another"
    for source in settings.sources:
        if source.domain not in domains:
            yield f"sources.{source.label}.domain", f"no such key domain{suggestion(source.domain, domains)}"
    yield from _misplaced(settings)
    yield from _misplaced_slots(settings)
    yield from _disagreeing_copies(settings)
    yield from _disagreeing_checks(settings)


def _misplaced(settings: Settings) -> Iterator[tuple[str, str]]:
    """Folders of opsd's own within a store of objects; a source within scratch, which would be left out as opsd's own.

    Scratch within a source is no mistake: with `/` as a source it could be nowhere else, and it is left out.
    """
    stores = {settings.repository: "the repository"} if settings.repository else {}
    copies = [(f"copy {each.name}", each.place) for each in settings.copies]
    copies += [(f"copy {name}", each.target) for name, each in settings.pulls.items()]
    stores |= {str(place.folder): what for what, place in copies if isinstance(place, FolderPlace)}
    own = {"state": settings.state, "cache": settings.cache, "drill.scratch": settings.drill.scratch}
    slots = {f"key_domains.{name}.slots": folder for name, folder in settings.slot_folders.items()}
    for key, folder in {**own, **slots}.items():
        for store, what in stores.items():
            if folder and folder.is_relative_to(store):
                yield key, f"{folder} lies in {what}, which holds nothing but its objects"
    scratch = settings.drill.scratch
    for source in settings.sources:
        paths = source.options.paths if isinstance(source.options, FilesSource) else ()
        for path in paths:
            if scratch and Path(path).is_relative_to(scratch):
                yield (
                    "drill.scratch",
                    f"{path} of source {source.label} lies in it, and what a drill leaves there is cleared",
                )


def _misplaced_slots(settings: Settings) -> Iterator[tuple[str, str]]:
    """Slots of key domains in what is disposable, or is cleared."""
    own = {"state": settings.state, "cache": settings.cache, "drill.scratch": settings.drill.scratch}
    for name, folder in settings.slot_folders.items():
        for what, other in own.items():
            if other and folder.is_relative_to(other):
                problem = f"{folder} lies in {what}; keys that may have to be destroyed stand apart from all else"
                yield f"key_domains.{name}.slots", problem


def _disagreeing_copies(settings: Settings) -> Iterator[tuple[str, str]]:
    """Copies of one name, in one place, or in the repository itself."""
    places = [(f"copies.{each.name}", each.name, each.place) for each in settings.copies]
    places += [(f"pulls.{name}", name, each.target) for name, each in settings.pulls.items()]
    names: dict[str, str] = {}
    far: dict[str, str] = {}
    taken = {settings.repository: "the repository"} if settings.repository else {}
    for key, name, place in places:
        yield from _unverifiable(settings, key, name, place)
        if name in names:
            yield key, f"{names[name]} has this name already; choose another"
        names.setdefault(name, key)
        if not isinstance(place, FolderPlace):
            where = f"{place} at {place.port if isinstance(place, SftpPlace) else place.endpoint}"
            if where in far:
                yield key, f"{place} is the place of {far[where]} already: two copies there would be one"
            far.setdefault(where, key)
            continue
        for folder, what in taken.items():
            if place.folder.is_relative_to(folder) or Path(folder).is_relative_to(place.folder):
                yield key, f"{place.folder} and {what} ({folder}) can't lie in each other"
        taken[str(place.folder)] = key


def _disagreeing_checks(settings: Settings) -> Iterator[tuple[str, str]]:
    """Checks of a drill that ask a source which is not there, or not of their kind; what others back up is not known here."""
    if not settings.sources:
        return
    sources = {source.label: source.options for source in settings.sources}
    for number, check in enumerate(settings.drill.checks):
        key = f"drill.checks[{number}]"
        if check.source is None:
            continue
        options = sources.get(check.source)
        if options is None:
            yield f"{key}.source", f"no such source{suggestion(check.source, sources)}"
        elif check.sql and isinstance(options, SqliteSource) and check.database:
            yield f"{key}.database", f"{check.source} is one SQLite database, without another name"
        elif check.sql and isinstance(options, PostgresqlSource) and not check.database:
            yield f"{key}.sql", f"{check.source} has several databases: this check needs 'database'"
        elif check.sql and not isinstance(options, SqliteSource | PostgresqlSource):
            yield f"{key}.sql", f"{check.source} is no database"


def _unverifiable(settings: Settings, key: str, name: str, place: StorePlace) -> Iterator[tuple[str, str]]:
    """A store is asked for checksums only where it has any of its own."""
    stated = (
        settings.pulls[name]
        if key.startswith("pulls.")
        else next(each for each in settings.copies if each.name == name)
    )
    if stated.verify == "checksum" and not isinstance(place, S3Place):
        yield f"{key}.verify", "only an s3 store has checksums of its own; a folder or SFTP server: read, or off"


def from_environment(environment: Mapping[str, str], default_host: str | None = None) -> Settings:
    """Settings without any file: OPSD_REPOSITORY, OPSD_PASSPHRASE_FILE and OPSD_STATE; there are no sources then.

    Raises:
        ConfigurationError: there is no repository either.
    """
    repository = environment.get("OPSD_REPOSITORY")
    if not repository:
        problem = f"there is no configuration: neither {DEFAULT_FILE} nor OPSD_REPOSITORY"
        raise ConfigurationError((problem,), hint=_HOW)
    given: dict[str, Any] = {"repository": os.path.abspath(repository)}
    origin = {"repository": "OPSD_REPOSITORY"}
    given["state"] = Path(os.path.abspath(environment.get("OPSD_STATE") or DEFAULT_STATE))
    if environment.get("OPSD_STATE"):
        origin["state"] = "OPSD_STATE"
    if default_host is not None:
        given["host"] = default_host
    return with_passphrase(Settings(**filled(given), origin=origin), environment)


def with_passphrase(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The same, with the passphrase of OPSD_PASSPHRASE_FILE where they name none."""
    file = environment.get("OPSD_PASSPHRASE_FILE")
    if settings.passphrase is not None or not file:
        return settings
    origin = {**settings.origin, "passphrase": "OPSD_PASSPHRASE_FILE"}
    return replace(settings, passphrase={"file": os.path.abspath(file)}, origin=origin)


def shown(settings: Settings) -> Mapping[str, Any]:
    """The effective settings as they would stand in a file; secrets as references."""
    whole: Mapping[str, Any] = CONFIGURATION.shown(settings)
    return whole


def flattened(settings: Settings) -> Mapping[str, tuple[Any, str]]:
    """For each key of `shown`, such as `retention.keep_daily`: its value, and where that comes from.

    That is `file:line` (several for a list that files add to), a variable's name, or `default`.
    """
    return {key: (value, settings.origin.get(key, "default")) for key, value in _leaves(settings)}


def _leaves(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The values that are set as one: what a file sets without keys below it, such as a reference to a secret, is one."""
    sections = {key[:position] for key in settings.origin for position, sign in enumerate(key) if sign == "."}

    def below(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, each in value.items():
            key = f"{prefix}{name}"
            if isinstance(each, Mapping) and each and (key in sections or key not in settings.origin):
                yield from below(each, f"{key}.")
            else:
                yield key, each

    yield from below(shown(settings), "")
