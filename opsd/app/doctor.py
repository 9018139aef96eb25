"""Ask everything that a night needs, before the night: which checks there are for these settings.

Promise: stores nothing and changes nothing, but for what filling a copy for the first time would make as well: its empty folders.
"""

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from opsd.app.emptied import filled
from opsd.app.session import Session
from opsd.backup.copy_state import CopyState, refuse_foreign
from opsd.backup.listings import expected
from opsd.backup.places import FolderPlace, S3Place, StorePlace
from opsd.clock import DAY
from opsd.credentials import described, is_at_hand, references, resolve
from opsd.errors import KeyRefused, OpsdError
from opsd.events import Recorder
from opsd.monitor.ledger import BadLine, parse
from opsd.monitor.ledger_file import LedgerFile
from opsd.repository.local import HostState
from opsd.repository.opening import repository_id
from opsd.settings.stated import CopySettings
from opsd.sources.coverage import Uncovered, uncovered
from opsd.sources.discovery import SEARCH_SECONDS, Discovery, Found, Kind, discover
from opsd.sources.options import CommandSource, FilesSource, PostgresqlSource, SourceSettings, SqliteSource
from opsd.values import dataclass
from opsd.verify import doctor_host, doctor_places, doctor_postgresql, doctor_sources, doctor_units
from opsd.verify.drill_record import DrillRecords
from opsd.verify.findings import Check, Finding, State, carried_out, failure, fine, from_error, warning

#: A kit that nobody has used for so long may be lost, in ns.
_KIT_AGE: Final = 365 * DAY
_MARIADB_SOURCE: Final = "mariadb: {command: {run: [mariadb-dump, --all-databases, --single-transaction, --routines, --events, --quick], name: all.sql}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found, as whom it was asked, and how much of this host nothing protects."""

    user: str
    findings: tuple[Finding, ...]
    uncovered: tuple[Uncovered, ...]


def examined(session: Session, *, discovery: Discovery | None = None) -> Diagnosis:
    """Carry out every check, in order; `discovery` is what lives here, looked for unless it is given."""
    missed: list[Uncovered] = []
    checks = (
        *_configuration(session),
        *_credentials(session),
        *_repository(session),
        *_sources(session),
        *_copies(session),
        Check(group="machine", subject="clock", ask=doctor_host.clock_is_set),
        Check(group="recovery kit", subject="kit", ask=partial(_kit, session)),
        Check(group="not covered", subject="host", ask=partial(_coverage, session, discovery, missed)),
    )
    findings = []
    for check in checks:
        session.reporter.stage(f"{check.group}: {check.subject}")
        findings += carried_out(check)
    return Diagnosis(user=_user(), findings=tuple(findings), uncovered=tuple(missed))


def _user() -> str:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return name + (", who may read every file" if doctor_sources.reads_everything() else "")


def _configuration(session: Session) -> Iterator[Check]:
    settings = session.settings
    files = sorted({place.rpartition(":")[0] for place in settings.origin.values()})

    def ask() -> Iterator[Finding]:
        sources = f"{len(settings.sources)} source{'' if len(settings.sources) == 1 else 's'}"
        yield fine("settings", f"{', '.join(files) or 'the environment'}: {sources}")
        if settings.repository and not settings.copies:
            text = "the repository has no copy: no help against fire, theft or a broken-in root"
            yield warning("copies", text, "name a place elsewhere under copies: (docs/copies.md)")
        if not settings.alerts.contacts:
            yield warning(
                "alerts", "nobody is told when something is wrong", "name contacts under alerts: (docs/alerts.md)"
            )
        if settings.drill.key is None and settings.passphrase is None:
            yield warning(
                "drill", "no key for the weekly drill", "set passphrase:, or drill: {key: ...} (docs/drill.md)"
            )

    yield Check(group="configuration", subject="settings", ask=ask)
    yield Check(group="configuration", subject="hooks", ask=partial(doctor_sources.hooks, "hooks", settings.hooks))
    yield Check(
        group="configuration",
        subject="hooks",
        ask=partial(doctor_sources.hooks, "restore_hooks", settings.restore_hooks),
    )


def _credentials(session: Session) -> Iterator[Check]:
    """Each once, however often it is used."""
    known = {described(each): each for each in references(session.settings)}
    for name, reference in known.items():
        yield Check(group="credentials", subject=name, ask=partial(_credential, name, reference))


def _credential(name: str, reference: Mapping[str, Any]) -> Iterator[Finding]:
    boxes = _boxes(*doctor_units.WITH_SECRETS)
    if boxes and "credential" in reference and not doctor_units.passes(boxes, str(reference["credential"])):
        yield failure("secret", f"{name} is passed to no unit", doctor_units.STEP)
    listener = Recorder()
    try:
        secret = resolve(reference, listener)
    except OpsdError as error:
        yield replace(from_error("secret", error), next_step=error.hint or "put the secret there")
        return
    if not secret:
        yield failure("secret", f"{name} is empty", "put the secret there")
    for line in listener.lines:
        text, _, step = line.partition(": run ")
        yield warning("secret", text, step.strip("'") or None)
    if secret and not listener.lines:
        yield fine("secret", f"{name} is there")


def _repository(session: Session) -> Iterator[Check]:
    settings = session.settings
    yield Check(group="repository", subject="state", ask=partial(_state, session))
    for box in _boxes(doctor_units.WORKER, doctor_units.UPKEEP):
        for path in filter(None, (str(settings.state), str(settings.cache), settings.repository)):
            yield Check(group="repository", subject=box.unit, ask=partial(box.refuses_to_write, box.unit, path))
    if settings.repository:
        yield Check(group="repository", subject="repository", ask=partial(_own, session))


def _state(session: Session) -> Iterator[Finding]:
    folder = session.settings.state
    if not folder.is_dir():
        is_new = not os.path.isdir(os.path.join(session.settings.repository, "settings"))
        step = "opsd init" if is_new else "opsd key enrol makes new keys: docs/runbook.md, 'The state folder is lost'"
        yield failure("state", f"the state folder {folder} is not there", step)
        return
    found = list(doctor_places.folder_writable("state", folder, "the state folder"))
    yield from found or [fine("state", f"{folder} can be written to")]


def _own(session: Session) -> Iterator[Finding]:
    """It opens with this host's keys, can be written to, has room, and its newest snapshot is not of the future."""
    settings, folder = session.settings, Path(session.settings.repository)
    with filled(settings, None):
        store = session.store
    ring = HostState(settings.state).read_keys(repository_id(store))
    if ring is None or ring.writer is None:
        yield failure(
            "repository", "this host holds no writer's key for it", "opsd key enrol (it asks for the passphrase)"
        )
        return
    snapshots = session.open().snapshots()
    tried = (
        finding
        for part in ("tmp", "spool", "packs/00", "snapshots")
        for finding in doctor_places.folder_writable("repository", folder / part, "folder", mended=folder)
    )
    held = f"{len(snapshots)} snapshot{'' if len(snapshots) == 1 else 's'}"
    yield next(tried, None) or fine("repository", f"{folder} opens and can be written to: {held}")
    yield from _opened(session)
    nightly = [each for each in snapshots if each.host == settings.host and each.job == "all"]
    yield from doctor_places.room("space", folder, nightly)
    yield from doctor_host.clock_went_on(session.clock.now(), max((each.ended for each in snapshots), default=0))


def _opened(session: Session) -> Iterator[Finding]:
    """Whether the passphrase opens it. A backup asks for none, so nobody would know before a restore."""
    given = session.settings.passphrase
    if given is None or not is_at_hand(given):
        return
    try:
        secret = resolve(given, Recorder())
    except OpsdError:
        return  # Told below the credentials.
    if not secret:
        return
    try:
        session.open(reader=True)
    except KeyRefused:
        text = f"{described(given)} opens no slot of it: no drill, and no restore from this host"
        yield failure("passphrase", text, "put the right one there; lost? opsd key add --kit --passphrase-from FILE")


def _sources(session: Session) -> Iterator[Check]:
    for source in session.settings.sources:
        for box in _boxes(doctor_units.WORKER):
            yield Check(group="sources", subject=source.label, ask=partial(_kept_from, source, box))
        yield Check(group="sources", subject=source.label, ask=partial(_source, session, source))


def _boxes(*units: str) -> list[doctor_units.Sandbox]:
    return [box for box in (doctor_units.installed(unit=unit) for unit in units) if box]


def _kept_from(source: SourceSettings, box: doctor_units.Sandbox) -> Iterator[Finding]:
    """What the unit keeps from a source."""
    label, options = source.label, source.options
    if isinstance(options, FilesSource):
        yield from box.hides(label, options.paths)
    elif isinstance(options, SqliteSource):
        yield from box.hides(label, (options.path,))
    elif isinstance(options, PostgresqlSource) and options.host and not options.host.startswith("/"):
        yield from box.refuses_network(label, options.host)


def _source(session: Session, source: SourceSettings) -> Iterator[Finding]:
    label, options = source.label, source.options
    if isinstance(options, FilesSource):
        own = map(os.fsdecode, session.own_folders())
        yield from doctor_sources.files(label, options, own, all_read=doctor_sources.reads_everything())
    elif isinstance(options, SqliteSource):
        yield from doctor_sources.sqlite(label, options)
    elif isinstance(options, PostgresqlSource):
        password = resolve(options.password, session.reporter).decode() if options.password else None
        yield from doctor_postgresql.server(label, options, password)
    elif isinstance(options, CommandSource):
        yield from doctor_sources.command(label, options)
    yield from doctor_sources.hooks(label, source.hooks)


def _copies(session: Session) -> Iterator[Check]:
    for each in session.settings.copies:
        if isinstance(each.place, FolderPlace):
            for box in _boxes(doctor_units.UPKEEP):
                yield Check(group="copies", subject=each.name, ask=partial(box.hides, each.name, (str(each.place),)))
                yield Check(
                    group="copies", subject=each.name, ask=partial(box.refuses_to_write, each.name, str(each.place))
                )
        yield Check(group="copies", subject=each.name, ask=partial(_copy, session, each))
    for name, pull in session.settings.pulls.items():
        yield Check(group="copies", subject=name, ask=partial(_pull, session, name, (pull.source, pull.target)))


def _copy(session: Session, copy: CopySettings) -> Iterator[Finding]:
    """A copy that this host fills: it is the right one, can be written to, and not be emptied."""
    before = CopyState(session.settings.state, copy.name).read()
    opener, place = replace(session.opener, attempts=1), copy.place
    if before.repository:
        with expected(f"copy {copy.name}", filled=True), opener.opened(place) as store:
            refuse_foreign(repository_id(store), before.repository, copy.name)
    yield from _target(session, copy.name, place, filled=bool(before.repository))
    if not before.repository:
        yield warning(copy.name, "it was never filled", "opsd copy")
    if isinstance(place, S3Place):
        theirs = doctor_places.server_time(place.endpoint or f"https://s3.{place.region}.amazonaws.com")
        yield from doctor_host.clock_beside(copy.name, session.clock.now(), theirs) if theirs else ()


def _target(session: Session, name: str, place: StorePlace, *, filled: bool) -> Iterator[Finding]:
    opener = replace(session.opener, attempts=1)
    if isinstance(place, FolderPlace):
        there = next(path for path in (place.folder, *place.folder.parents) if path.is_dir())
        found = list(doctor_places.folder_writable(name, there, "folder"))
        yield from found or [fine(name, f"{place} can be written to")]
        own = session.settings.repository
        if own and os.path.isdir(own) and there.stat().st_dev == os.stat(own).st_dev:
            yield warning(
                name, "it lies on the disk of the repository, and dies with it", "name a place on another machine"
            )
        if filled and not found:
            with opener.opened(place) as store:
                yield from doctor_places.deletable(name, store, locked=False)
        return
    # Making its folders writes a file there and renames it; asking a bucket what it can puts an object.
    with opener.opened(place, create=True) as store:
        yield from doctor_places.store_lacks(name, store)
        yield fine(name, f"{place} lets us in and can be written to")
        locked = isinstance(place, S3Place) and place.object_lock_days is not None
        yield from doctor_places.deletable(name, store, locked=locked)


def _pull(session: Session, name: str, places: tuple[StorePlace, StorePlace]) -> Iterator[Finding]:
    """A copy that this host fetches: its source can be read, its target written to."""
    source, target = places
    with replace(session.opener, attempts=1).opened(source) as store:
        identity = repository_id(store)
        refuse_foreign(identity, CopyState(session.settings.state, name).read().repository, name)
    yield fine(name, f"{source} can be read")
    found = [each for each in _target(session, name, target, filled=False) if each.state is not State.WARNING]
    yield from found


def _kit(session: Session) -> Iterator[Finding]:
    """Whether somebody has proved to hold it: by typing of it at setup, or by a drill with it."""
    now = session.clock.now()
    used = max(
        (each.ended for each in DrillRecords(session.settings.state).read() if each.key.startswith("kit")), default=0
    )
    step = "opsd drill --kit (type it from the paper)"
    days = (now - used) // DAY
    if used and now - used < _KIT_AGE:
        yield fine("kit", f"a drill used it {days} days ago")
    elif used:
        yield warning("kit", f"nobody has used it for {days} days", step)
    elif _was_confirmed(session):
        yield fine("kit", "somebody typed of it at setup; no drill has used it yet")
    else:
        yield warning("kit", "nobody has shown to hold it: without it, a burnt host is lost with its passphrase", step)


def _was_confirmed(session: Session) -> bool:
    for line in LedgerFile(session.settings.state).lines():
        try:
            details = parse(line).entry.details
        except BadLine:
            continue
        if details.get("kit_confirmed"):
            return True
    return False


def _coverage(session: Session, discovery: Discovery | None, missed: list[Uncovered]) -> Iterator[Finding]:
    discovery = discovery or _discovered(session)
    missed += uncovered(session.settings.sources, discovery.found)
    if not discovery.complete:
        yield fine("search", f"stopped after {SEARCH_SECONDS:.0f} s: not every folder was searched for SQLite files")
    for each in missed:
        if each.found.kind.is_database:
            yield warning(each.found.kind, f"nothing takes {each.found}", _source_for(each.found))
    for kind in (Kind.VOLUME, Kind.FOLDER, Kind.MOUNT):
        places = [_place(each) for each in missed if each.found.kind is kind]
        if places:
            step = "add them to a files source, or under its exclude: if they may be lost"
            yield warning(kind, f"nothing takes {', '.join(places)}", step)
    if not missed:
        yield fine("host", f"all {len(discovery.found)} databases and folders that were found are taken")


def _place(missed: Uncovered) -> str:
    return missed.found.place + (f" (but {', '.join(missed.partly)})" if missed.partly else "")


def _source_for(found: Found) -> str:
    """What to write below sources: for it."""
    if found.kind is Kind.MARIADB:
        return f"no source of its own yet: {_MARIADB_SOURCE}"
    if found.kind is Kind.SQLITE:
        return f"{Path(found.place).stem}: {{sqlite: {{path: {found.place}}}}}"
    if not found.runs:
        return f"start it, or add {found.data or 'its data'} to exclude: of a files source if it may be lost"
    host = found.place or "localhost"
    return f"postgresql: {{postgresql: {{host: {host}, port: {found.port}, user: opsd}}}} (docs/postgresql.md)"


def count_uncovered(missed: Iterable[Uncovered]) -> dict[str, int]:
    """How much of this host nothing protects, as numbers."""
    kinds = [each.found.kind for each in missed]
    return {
        "databases": sum(kind.is_database for kind in kinds),
        "folders": sum(not kind.is_database for kind in kinds),
    }


def count_uncovered_here(session: Session, discovery: Discovery | None = None) -> dict[str, int]:
    """The same of this host."""
    return count_uncovered(uncovered(session.settings.sources, (discovery or _discovered(session)).found))


def _discovered(session: Session) -> Discovery:
    return discover(tuple(map(os.fsdecode, session.own_folders())))
