"""Restore a snapshot in full into a scratch place, compare it with what its manifest recorded, and take all of it down again.

Promise: where scratch is smaller than the snapshot, it goes piece by piece and still looks at everything.
"""

import time
from collections.abc import Callable, Sequence

from opsd.clock import Clock
from opsd.errors import IntegrityError, ObjectDamaged, RestoreError
from opsd.events import Reporter
from opsd.model import SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.repository.repository import Repository
from opsd.verify import checks
from opsd.verify.drill_piece import POSTGRESQL, PieceRun
from opsd.verify.drill_report import DrillOptions, DrillReport, SourceReport
from opsd.verify.expectations import Deviation, Part, Piece, Verdict, age_seconds, chosen_snapshot, pieces
from opsd.verify.options import DrillCheck
from opsd.verify.restored_databases import databases_of
from opsd.verify.restored_files import sparse_size
from opsd.verify.scratch import Scratch

#: What a file costs beside its bytes, and a database's files beside what its server says.
_FILE_BYTES = 2048
_GROWTH = 1.2
#: An empty database is a copy of a template and so brings no WAL; other data brings as much, up to the server's bound.
_EMPTY_BYTES = 8 << 20
_WAL_BYTES = 256 << 20
_LOST = "it can't be read, so its snapshot does not come back"


class Drill:
    """One drill in its scratch folder."""

    def __init__(self, scratch: Scratch, options: DrillOptions, reporter: Reporter, clock: Clock) -> None:
        self._scratch = scratch
        self._options = options
        self._reporter = reporter
        self._clock = clock

    def run(self, open_repository: Callable[[], Repository]) -> DrillReport:
        """Carry it out.

        Raises:
            IntegrityError: the repository can't be opened, or its snapshot not be read, or there is none. RestoreError: there is no
            room. KeyRefused, KeyMissing, NotARepository, StorageError: it does not open.
        """
        began, now = time.monotonic(), self._clock.now()
        self._reporter.stage("open")
        reader, report = _opened(open_repository(), now)
        self._leave_out(reader, report)
        planned = self._planned(reader)
        report.piece_count = len(planned)
        report.recovery_time = time.monotonic() - began
        report.stages.append(("open", report.recovery_time))
        waiting = list(self._options.checks)
        for piece in planned:
            run = PieceRun(reader, report, self._scratch, self._options, self._reporter)
            waiting = run.carry_out(piece, waiting, self._clock)
        for check in waiting:
            # What a site asks of a database must be true of its newest state: one that is gone there is no mere lack of an answer.
            gone = _lacks_database(check, reader) and report.snapshot.id == report.newest.id
            severity = Verdict.RED if gone else Verdict.DEVIATING
            report.checked(checks.not_run(check, _reason(check, reader, report), severity))
        if self._options.seed and not report.faults:
            problem = "there was nothing to damage"
            report.deviates(Deviation(source="", subject="seeded failure", problem=problem, severity=Verdict.FAILED))
        return report

    def _leave_out(self, reader: SnapshotReader, report: DrillReport) -> None:
        """Sources that can't come back: of a domain that was destroyed none should; else the drill has failed to carry them out."""
        for label, closed in reader.closed().items():
            if closed.destroyed:
                self._reporter.tell(f"source {label} does not come back: {closed.problem}")
                continue
            problem, hint = closed.problem, closed.hint
            report.deviates(
                Deviation(source=label, subject="keys", problem=problem, hint=hint, severity=Verdict.FAILED)
            )

    def _planned(self, reader: SnapshotReader) -> tuple[Piece, ...]:
        """What stands in scratch together.

        Raises:
            RestoreError: one part alone has no room.
        """
        room = self._scratch.room()
        parts = [part for tree in reader.trees() for part in _parts(reader, tree)]
        if sum(part.size for part in parts) > room:
            parts = [each if each.database else _measured(reader, each) for each in parts]
        found = pieces(parts, room)
        _require_room(found, room)
        if len(found) > 1:
            self._reporter.tell(f"scratch is smaller than the snapshot: {len(found)} pieces, one after the other")
        return found


def _reason(check: DrillCheck, reader: SnapshotReader, report: DrillReport) -> str:
    """Why a check was never asked."""
    if check.source is not None:
        if closed := reader.closed().get(check.source):
            return closed.problem
        if check.source not in report.sources:
            return f"the snapshot has no source {check.source}"
        if _lacks_database(check, reader):
            return f"the snapshot has no database {check.database}"
        if report.piece_count == 1 or check.database:
            return "what it asks did not come back"
    return "scratch is too small for all that it asks at once"


def _lacks_database(check: DrillCheck, reader: SnapshotReader) -> bool:
    trees = [tree for tree in reader.trees() if (tree.label, tree.kind) == (check.source, POSTGRESQL)]
    return bool(check.database and trees and check.database not in databases_of(trees[0]))


def _opened(repository: Repository, now: int) -> tuple[SnapshotReader, DrillReport]:
    """The snapshot of this drill.

    Raises:
        IntegrityError: none is complete; ObjectDamaged: none that can be read is.
    """
    listed = _manifests(repository)
    known = repository.snapshots(marked=True)
    snapshots = [each for each in known if not each.marked]
    lost = sorted((listed - {each.name for each in known}) & _manifests(repository))
    host = repository.around.host
    summary, newest = chosen_snapshot(snapshots, now, host), chosen_snapshot(snapshots, 0, host)
    if summary is None or newest is None:
        if lost:
            raise ObjectDamaged(lost[-1], _LOST)
        hint = "'opsd snapshots' (--from NAME) lists what is there; 'opsd backup', then 'opsd copy' bring one"
        raise IntegrityError("there is no complete snapshot to restore", hint=hint)
    reader = repository.reader(repository.find(summary.id))
    sources = {tree.label: SourceReport(label=tree.label, kind=tree.kind) for tree in reader.trees()}
    report = DrillReport(snapshot=summary, newest=newest, recovery_point=age_seconds(newest, now), sources=sources)
    report.deviates(*(Deviation(source="", subject=name, problem=_LOST) for name in lost))
    return reader, report


def _manifests(repository: Repository) -> set[str]:
    """Names of all manifests, also of those that can't be read."""
    return {info.name for info in repository.place.store.list("snapshots/")}


def _parts(reader: SnapshotReader, tree: SourceTree) -> list[Part]:
    """What can be restored by itself, and about how much room it takes."""
    if tree.kind == POSTGRESQL:
        return [
            Part(source=tree.label, database=name, size=_database_bytes(int(facts["size"])))
            for name, facts in databases_of(tree).items()
        ] or [Part(source=tree.label, database="", size=0)]
    summary = next(each for each in reader.summary.sources if each.label == tree.label)
    size = summary.bytes + (summary.files + summary.folders) * _FILE_BYTES
    return [Part(source=tree.label, size=size)]


def _database_bytes(size: int) -> int:
    filled = max(0, size - _EMPTY_BYTES)
    return _EMPTY_BYTES + int(filled * _GROWTH) + min(filled, _WAL_BYTES)


def _measured(reader: SnapshotReader, part: Part) -> Part:
    """The same with holes left out: that takes a look at each name."""
    return Part(source=part.source, size=sparse_size(reader, reader.tree(part.source)))


def _require_room(planned: Sequence[Piece], room: int) -> None:
    for piece in planned:
        if piece.size > room:
            part = max(piece.parts, key=lambda each: each.size)
            name = f"{part.source}/{part.database}" if part.database else part.source
            raise RestoreError(
                f"the scratch folder has no room for {name}: it takes {-(-piece.size >> 20):,} MiB, and {room >> 20:,} MiB may be used",
                hint="make room there, or name a folder on a larger disk: drill.scratch",
            )
