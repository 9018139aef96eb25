"""Give files back: find what is meant, plan, take a safety snapshot before anything is replaced, carry out.

Promise: in place, nothing is written before the plan was confirmed and what stands there is in a snapshot of job `safety`, unless
that was waived; only the planned deletions are ever made.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import field

from opsd.app.session import Session
from opsd.backup.hooks import Occasion, around, run_pending
from opsd.errors import RestoreError, SnapshotUnknown, UsageError
from opsd.events import Foretelling, Total
from opsd.model import Outcome, SnapshotSummary, SourceTree
from opsd.repository.domains import Closed
from opsd.repository.reader import SnapshotReader
from opsd.restore.apply import apply, plan_restore
from opsd.restore.browsing import Place, left_out, locate, walk
from opsd.restore.placement import is_below
from opsd.restore.plan import Plan
from opsd.restore.request import Overwrite, RestoreRequest
from opsd.restore.result import Result
from opsd.values import dataclass

#: Kinds of sources whose files stood at the paths that listings give them.
_IN_PLACE = ("files", "sqlite")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What a person asked for. `before` is a time in ns UTC; `target` None means in place, below `root`."""

    place: Place
    before: int | None = None
    sources: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    target: str | None = None
    root: str = "/"
    delete: bool = False
    numeric_owner: bool = False
    safety: bool = True
    overwrite: str = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A restore that was looked up: the snapshot, what exactly is asked of it, and opsd's words for where it goes.

    `closed`: the sources that are left out, because the keys at hand do not open their key domains.
    """

    snapshot: SnapshotSummary
    reader: SnapshotReader
    request: RestoreRequest
    closed: Mapping[str, Closed] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The target as text."""
        return os.fsdecode(self.request.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did, and the id of the safety snapshot that undoes it."""

    result: Result
    safety: str | None = None


def prepare(session: Session, options: RestoreOptions) -> Prepared:
    """Find the snapshot and the source that are meant.

    Raises:
        SnapshotUnknown: there is no such snapshot or path. UsageError: several sources hold the path. KeyMissing: nothing that is
        asked for can be read. RestoreError: what is not in the snapshot can't be told.
    """
    reader = session.snapshot(options.place.snapshot, options.before)
    sources = options.sources
    path = options.place.path
    if path is not None and path != b"/":
        sources = (locate(reader, path, sources)[0].label,)
    elif path == b"/" and len(sources) != 1:
        labels = ", ".join(tree.label for tree in reader.trees())
        raise UsageError("name the source whose content is meant", hint=f"--source with one of {labels}")
    closed = _closed(session, reader, sources)
    sources = tuple(label for label in sources if label not in closed)
    if options.delete:
        _refuse_to_delete(reader)
    in_place = options.target is None
    if in_place:
        sources = _sources_in_place(reader, sources)
    else:
        _refuse_own_folders(session, options)
    request = RestoreRequest(
        snapshot=reader.summary.id,
        target=os.fsencode(os.path.abspath(options.root if options.target is None else options.target)),
        in_place=in_place,
        sources=sources,
        subtree=path,
        patterns=options.patterns,
        delete=options.delete,
        numeric_owner=options.numeric_owner,
        keep=tuple(session.own_folders()),
        overwrite=Overwrite(options.overwrite),
    )
    return Prepared(snapshot=reader.summary, reader=reader, request=request, closed=closed)


def _closed(session: Session, reader: SnapshotReader, sources: tuple[str, ...]) -> dict[str, Closed]:
    """The sources of a restore that can't be read, told as warnings.

    Raises:
        KeyMissing: these are all.
    """
    found = {label: reader.closed()[label] for label in left_out(reader, sources, session.reporter)}
    if found and not set(sources or (tree.label for tree in reader.trees())) - found.keys():
        label, first = next(iter(found.items()))
        raise first.error(f"source {label}")
    return found


def _refuse_to_delete(reader: SnapshotReader) -> None:
    """What a source that can't be read holds may well stand in the folders of another.

    Raises:
        RestoreError: there is such a source.
    """
    for label, closed in reader.closed().items():
        raise RestoreError(
            f"what the snapshot lacks can't be told while source {label} can't be read: {closed.problem}",
            hint="restore without --delete",
        )


def _refuse_own_folders(session: Session, options: RestoreOptions) -> None:
    """A repository holds objects and nothing else; prune and copies rely on it.

    Raises:
        RestoreError: the target lies in a folder of opsd's own.
    """
    target = os.path.realpath(os.fsencode(options.root))
    for own in session.own_folders():
        if is_below(target, os.path.realpath(own)):
            raise RestoreError(
                f"{options.root} lies in {os.fsdecode(own)}, which is opsd's own", hint="name another folder with --to"
            )


def _sources_in_place(reader: SnapshotReader, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The sources that can go back to where they were; one that was made by a program has no such place.

    Raises:
        UsageError: one that was asked for has none.
    """
    fit = [tree.label for tree in reader.trees() if tree.kind in _IN_PLACE]
    unfit = [label for label in asked if reader.tree(label).kind not in _IN_PLACE]
    if unfit:
        raise UsageError(
            f"source {unfit[0]} was made by a program and has no place on disk",
            hint="restore it with --to DIR, or --database",
        )
    if not fit:
        raise UsageError("no source of this snapshot has a place on disk", hint="restore it with --to DIR")
    return asked or tuple(fit)


def plan(prepared: Prepared) -> Plan:
    """What the restore would do now; changes nothing.

    Raises:
        RestoreError: the target can't be read.
    """
    if not prepared.request.in_place:
        _refuse_full(prepared)
    return plan_restore(prepared.reader, prepared.request)


def _refuse_full(prepared: Prepared) -> None:
    """A plan into a folder that would be refused says so."""
    try:
        names = set(os.listdir(prepared.request.target)) - {b"lost+found", b".opsd-restore"}
    except FileNotFoundError:
        return
    except OSError as error:
        raise RestoreError(f"{prepared.where} can't be restored to: {(error.strerror or '').lower()}") from error
    if names and b".opsd-restore" not in os.listdir(prepared.request.target):
        raise RestoreError(
            f"{prepared.where} is not empty", hint="name a folder that is absent or empty, or restore in place"
        )


def give_back(
    session: Session, options: RestoreOptions, prepared: Prepared, confirm: Callable[[Plan], None]
) -> Restored:
    """Restore; in place only after `confirm`, which raises where the person says no, and a safety snapshot.

    Raises:
        RestoreError: the target is not as it must be, full or read-only. IntegrityError: the listing can't be read.
    """
    settings = session.settings
    planned = plan(prepared) if prepared.request.in_place else None
    if planned:
        confirm(planned)
    run_pending(settings.state, session.reporter)
    occasion = Occasion(run=secrets.token_hex(8), job="restore")
    with around(settings.restore_hooks, occasion, settings.state, session.reporter) as course:
        safety = _safety_snapshot(session, prepared) if prepared.request.in_place and options.safety else None
        reporter = Foretelling(session.reporter, _total(prepared, planned))
        result = apply(prepared.reader, prepared.request, reporter, planned.deletions if planned else ())
        _refuse_nothing(prepared, result)
        if result.exit_code or prepared.closed:
            course.outcome = Outcome.FAILED if result.damaged or prepared.closed else Outcome.WARNINGS
    return Restored(result=result, safety=safety)


def _total(prepared: Prepared, planned: Plan | None) -> Total | None:
    """How much there is to write, where no listing has to be read for it."""
    request = prepared.request
    if planned:
        counts = (planned.created, planned.overwritten)
        return Total(files=sum(each.get("files", 0) for each in counts), size=planned.size)
    if request.under() != b"/" or request.patterns:
        return None
    sources = [each for each in prepared.snapshot.sources if each.label not in prepared.closed]
    return Total.of(each for each in sources if not request.sources or each.label in request.sources)


def _refuse_nothing(prepared: Prepared, result: Result) -> None:
    """A pattern with a slip of the pen must not look like a restore."""
    patterns = prepared.request.patterns
    if patterns and not (
        any(result.written.values()) or result.adjusted or result.unchanged or result.skipped or result.damaged
    ):
        raise SnapshotUnknown(
            f"snapshot {prepared.snapshot.id[:8]} has nothing that fits {', '.join(map(os.fsdecode, patterns))}",
            hint="'opsd find PATTERN' tells what it has",
        )


def _safety_snapshot(session: Session, prepared: Prepared) -> str | None:
    """Keep what stands where the restore will write, in the key domain of what comes there; None if nothing does.

    Raises:
        RestoreError: it is not whole; nothing was restored.
    """
    reader = prepared.reader
    domains = {path: reader.domain(tree.label) for tree in reader.trees() for path in _places(prepared, tree)}
    standing = tuple(path for path in domains if os.path.lexists(path))
    if not standing:
        return None
    from opsd.app.backups import BackupRequest, back_up  # noqa: PLC0415 - most restores need none of it, and it is not free

    report = back_up(session.home(), BackupRequest(paths=standing, domains=domains, job="safety", accept_shrink=True))
    if report.failures:
        problem = next(iter(report.failures.values()))
        raise RestoreError(
            f"the safety snapshot failed, so nothing was restored: {problem}",
            hint="repair the cause, or give --no-safety-snapshot and accept that this restore can't be undone",
        )
    return report.snapshot.id


def _places(prepared: Prepared, tree: SourceTree) -> list[str]:
    """Where a source's part of the restore will write."""
    request = prepared.request
    if tree.label not in request.sources:
        return []
    root = request.target.rstrip(b"/")
    if request.under() != b"/":
        return [os.fsdecode(root + request.under())]
    roots = tree.roots or tuple(
        item.path for item in walk(prepared.reader, tree) if item.entry.content or item.entry.pages
    )
    return [os.fsdecode(root + path) for path in roots]
