"""One piece of a drill: restored, compared, asked, and removed.

Promise: what can't be carried out is a deviation and does not stop the rest; what is compared was read again from what the restore wrote.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from opsd.clock import Clock
from opsd.errors import IntegrityError, OpsdError, ProgramMissing, RestoreError
from opsd.events import Foretelling, Reporter, Total
from opsd.model import SourceSummary, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.apply import apply
from opsd.restore.browsing import walk
from opsd.restore.databases import DatabaseRestorer
from opsd.restore.request import RestoreRequest
from opsd.restore.result import Result
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.roots import shown
from opsd.verify import checks, seeding, sqlite_files
from opsd.verify.checks import Places
from opsd.verify.drill_report import DrillOptions, DrillReport
from opsd.verify.expectations import Deviation, Piece, Verdict, listing_deviations
from opsd.verify.options import DrillCheck
from opsd.verify.restored_databases import DatabaseDrill, server_for
from opsd.verify.restored_files import FileComparison
from opsd.verify.scratch import Scratch

POSTGRESQL = "postgresql"
_NO_ROOM = ("No space left", "no room left", "quota")


class PieceRun:
    """Carries out one piece; `carry_out` is called once."""

    def __init__(
        self, reader: SnapshotReader, report: DrillReport, scratch: Scratch, options: DrillOptions, reporter: Reporter
    ) -> None:
        self._reader = reader
        self._report = report
        self._scratch = scratch
        self._options = options
        self._reporter = reporter
        self._files: list[SourceTree] = []
        self._restored: Result | None = None
        self._servers: dict[str, DatabaseDrill] = {}
        self._databases: dict[str, list[str]] = {}
        self._faults: list[seeding.Fault] = []

    def carry_out(self, piece: Piece, waiting: Sequence[DrillCheck], clock: Clock) -> list[DrillCheck]:
        """All of it; returns the checks that still wait for what they ask."""
        with ExitStack() as servers:
            self._restore_files(piece.files())
            for label, names in piece.databases().items():
                self._restore_databases(label, [name for name in names if name], servers, clock)
            places = self._places(whole=piece.whole)
            if self._options.seed:
                self._spoil(places)
            self._options.between(places)
            before = len(self._report.deviations)
            self._compare()
            found = self._report.deviations[before:]
            self._judge_faults(found)
            left = self._ask(places, waiting)
            with self._report.stage("take down"):
                servers.close()
                self._scratch.clear()
        return left

    def _restore_files(self, labels: tuple[str, ...]) -> None:
        if not labels:
            return
        request = RestoreRequest(
            snapshot=self._reader.summary.id, target=os.fsencode(self._scratch.files), sources=labels
        )
        sources = [each for each in self._reader.summary.sources if each.label in labels]
        with self._report.stage(f"restore {', '.join(labels)}", recovery=True), self._failing(", ".join(labels)):
            result = apply(self._reader, request, Foretelling(self._reporter, Total.of(sources)))
            self._restored = result
            self._files = [tree for tree in self._reader.trees() if tree.label in labels]
            self._report.deviates(
                *(Deviation(source="", subject=each.path, problem=each.problem) for each in result.damaged)
            )

    def _restore_databases(self, label: str, names: list[str], servers: ExitStack, clock: Clock) -> None:
        tree = self._reader.tree(label)
        folder = self._scratch.server(label)
        with self._report.stage(f"start {label}", recovery=True), self._failing(label):
            throwaway = servers.enter_context(server_for(tree, folder))
            restorer = DatabaseRestorer(throwaway.server, self._reporter, clock)
            drill = DatabaseDrill(self._reader, tree, throwaway, restorer, self._reporter)
            drill.roles()
            self._servers[label] = drill
        if label not in self._servers:
            return
        source = self._report.sources[label]
        for name in names:
            with self._report.stage(f"restore {label}/{name}", recovery=True), self._failing(label, name, Verdict.RED):
                source.size += drill.restore(name)
                source.databases += 1
                source.rows += drill.rows(name)
                self._databases.setdefault(label, []).append(name)

    @contextmanager
    def _failing(self, source: str, subject: str = "restore", severity: Verdict = Verdict.FAILED) -> Iterator[None]:
        """What ends a part and not the drill. `severity`: of what does not come back; damage is red, a lack of room, of a program or of the copy never."""
        try:
            yield
        except IntegrityError as error:
            self._report.deviates(_deviation(source, subject, error, Verdict.RED))
        except (OpsdError, ServerProblem) as error:
            no_room = any(words in str(error) for words in _NO_ROOM)
            if no_room or isinstance(error, ProgramMissing) or not isinstance(error, RestoreError):
                severity = Verdict.FAILED
            self._report.deviates(_deviation(source, subject, error, severity))

    def _places(self, *, whole: bool) -> Places:
        sqlite = {
            tree.label: os.fsencode(self._scratch.files / tree.label) + item.path
            for tree in self._files
            if tree.kind == "sqlite"
            for item in walk(self._reader, tree)
            if item.entry.pages is not None or item.entry.content is not None
        }
        return Places(
            snapshot=self._reader.summary.id,
            files=self._scratch.files,
            servers={label: drill.server for label, drill in self._servers.items()},
            databases=self._databases,
            sqlite=sqlite,
            labels=frozenset({*(tree.label for tree in self._files), *self._servers}),
            whole=whole,
        )

    def _spoil(self, places: Places) -> None:
        for tree in self._files:
            self._faults += seeding.spoil_files(self._reader, tree, places.files)
        for label, names in self._databases.items():
            drill = self._servers[label]
            for name in names:
                with self._failing(label, name):
                    self._faults += seeding.spoil_database(label, name, drill.facts[name], drill.server)

    def _judge_faults(self, found: Sequence[Deviation]) -> None:
        """A fault that nobody has seen is the worst that a drill can show."""
        for fault in self._faults:
            is_found = fault.is_found(found)
            self._report.faults.append((fault, is_found))
            if not is_found:
                problem = f"{fault.kind} was damaged on purpose, and that was NOT FOUND"
                self._report.deviates(Deviation(source=fault.source, subject=fault.subject, problem=problem))

    def _compare(self) -> None:
        if self._files:
            forgiving = bool(self._restored and self._restored.warning_count)
            comparison = FileComparison(self._reader, self._scratch.files, self._reporter, forgiving=forgiving)
        for tree in self._files:
            with self._report.stage(f"compare {tree.label}"), self._failing(tree.label, "compare"):
                self._reporter.stage(f"compare {tree.label}", Total.of([self._summary(tree)]))
                found = comparison.compare(tree)
                self._report.compared(found)
                self._report.deviates(*listing_deviations(self._summary(tree), found.listed))
                source = self._report.sources[tree.label]
                source.files, source.size = found.files, found.size
                self._look_into(tree, found.databases)
        for label, drill in self._servers.items():
            with self._report.stage(f"compare {label}"), self._failing(label, "compare"):
                self._report.deviates(*drill.compare_roles())
                for name in self._databases.get(label, ()):
                    self._report.deviates(*drill.compare(name))

    def _summary(self, tree: SourceTree) -> SourceSummary:
        return next(each for each in self._reader.summary.sources if each.label == tree.label)

    def _look_into(self, tree: SourceTree, databases: list[bytes]) -> None:
        """SQLite databases: the source's own, and those among files."""
        facts = tree.facts if tree.kind == "sqlite" else {}
        source = self._report.sources[tree.label]
        for path in databases:
            source.databases += 1
            source.rows += sum(facts.get("tables", {}).values())
            found = sqlite_files.problems(os.fsencode(self._scratch.files) + b"/" + path, facts)
            subject = shown(path[len(os.fsencode(tree.label)) :])
            self._report.deviates(*(Deviation(source=tree.label, subject=subject, problem=each) for each in found))

    def _ask(self, places: Places, waiting: Sequence[DrillCheck]) -> list[DrillCheck]:
        ready = [check for check in waiting if checks.is_ready(check, places)]
        if ready:
            with self._report.stage("checks"):
                self._reporter.stage("checks")
                for check in ready:
                    self._report.checked(checks.carry_out(check, places, self._options.live))
        return [check for check in waiting if check not in ready]


def _deviation(source: str, subject: str, error: OpsdError | ServerProblem, severity: Verdict) -> Deviation:
    return Deviation(source=source, subject=subject, problem=str(error), severity=severity, hint=error.hint)
