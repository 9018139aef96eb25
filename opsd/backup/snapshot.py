"""One backup run: every source into one snapshot, total in itself.

Promise: a source that fails does not stop the others, and the signed manifest says how each ended. Nothing of the run exists for
a reader until its manifest is there, and then all of it does.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import field
from typing import Final

from opsd import clock
from opsd.backup.about import About
from opsd.backup.cache import Cache, SourceCache
from opsd.backup.work import Job, Result
from opsd.errors import IntegrityError, OpsdError, SourceError
from opsd.events import Reporter, Total, Warning
from opsd.model import Outcome, SnapshotSummary, SourceSummary, SourceTree
from opsd.repository.keys import DEFAULT_DOMAIN
from opsd.repository.manifest import LedgerHead, Manifest, ReaderPart
from opsd.repository.references import FrameSet
from opsd.repository.repository import Repository
from opsd.repository.run import Ending, Run
from opsd.repository.writer import LISTING
from opsd.values import dataclass

#: What a next run may take at least, in ns.
_LEAST_PATIENCE: Final = 3600 * clock.SECOND

#: Reads and stores one source.
Worker = Callable[[Job], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A source to be backed up: how, in which key domain, and what to do around it (hooks)."""

    label: str
    kind: str
    work: Worker
    domain: str = "default"
    around: AbstractContextManager[object] = field(default_factory=nullcontext)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a snapshot is filed under, and what it vouches for: the host's `ledger`.

    `next_run`: when the next one of this job begins, in ns UTC; None where none is planned.
    """

    host: str
    job: str
    zone: str
    version: str
    tags: tuple[str, ...] = ()
    next_run: int | None = None
    ledger: LedgerHead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a run ended: the snapshot as it is listed, the failures by source, and whether the store had lost something."""

    snapshot: SnapshotSummary
    failures: Mapping[str, OpsdError]
    rolled_back: bool = False

    @property
    def outcome(self) -> Outcome:
        """Failed if any source failed, else with warnings or complete."""
        outcomes = {source.outcome for source in self.snapshot.sources}
        if self.rolled_back:
            outcomes.add(Outcome.WARNINGS)
        return max(outcomes, key=list(Outcome).index, default=Outcome.FAILED)


class Backup:
    """Carries out one run."""

    def __init__(self, repository: Repository, labels: Labels, about: About) -> None:
        self._repository = repository
        self._labels = labels
        self._about = about
        self._reporter: Reporter = repository.around.reporter
        self._results: list[tuple[Planned, Result]] = []
        self._rows: list[SourceCache] = []
        self._incomplete = False

    def run(self, planned: Sequence[Planned]) -> Report:
        """Back up these sources into one snapshot.

        Raises:
            StorageError, IntegrityError, KeyMissing: the run could not end with a snapshot; nothing older is touched.
        """
        rolled_back = self._rolled_back()
        started = self._repository.around.clock.now()
        with ExitStack() as stack:
            run = stack.enter_context(Run(self._repository))
            cache = Cache(self._repository.cache / "files.sqlite", run.place.ring.index())
            stack.callback(cache.close)
            for each in planned:
                self._source(run, cache, each)
            self._reporter.stage("storing")
            summary = run.commit(self._ending(run, started))
            for rows in self._rows:
                rows.finish(summary.id)
            cache.commit()
        failures = {result.label: result.failure for _, result in self._results if result.failure}
        return Report(snapshot=summary, failures=failures, rolled_back=rolled_back or self._incomplete)

    def _rolled_back(self) -> bool:
        """Whether the store shows an older state of itself: told loudly, but no reason to leave today without a backup."""
        try:
            self._repository.compare_memory()
        except IntegrityError as error:
            self._reporter.warn(Warning(subject="repository", problem=str(error), hint=error.hint))
            return True
        return False

    def _source(self, run: Run, cache: Cache, planned: Planned) -> None:
        previous = run.previous(self._labels.host, planned.label)
        self._reporter.stage(planned.label, _expected(previous, planned.label))
        run.blobs.owner = planned.label
        result = Result(label=planned.label, kind=planned.kind)
        domain = run.place.settings.domain(planned.domain)
        # By number: what a destroyed domain of the same name held is not stored, for all that this one knows.
        rows = cache.source(planned.label, domain.number if domain else 0)
        try:
            job = self._job(run, rows, planned, previous)
            with planned.around:
                result = planned.work(job)
                if result.failure:
                    raise result.failure
            self._rows.append(rows)
        except SourceError as error:
            rows.undo()
            result.failure = error
            self._reporter.warn(Warning(subject=f"source {planned.label}", problem=str(error), hint=error.hint))
        self._results.append((planned, result))

    def _job(self, run: Run, rows: SourceCache, planned: Planned, previous: Manifest | None) -> Job:
        domain = run.place.settings.domain(planned.domain)
        if domain is None:
            hint = f"add it: opsd key domain {planned.domain}"
            raise SourceError(planned.label, f"the repository has no key domain {planned.domain}", hint=hint)
        if not domain.keys:
            hint = f"'opsd key domain {planned.domain}' makes new keys for it; what was stored before stays unreadable"
            raise SourceError(planned.label, f"its key domain {planned.domain} was destroyed", hint=hint)
        return Job(
            run=run,
            label=planned.label,
            domain=run.blobs.domains[domain.number],
            reporter=self._reporter,
            cache=rows,
            trusted=self._trusted(run, rows.snapshot),
            previous=previous,
        )

    def _trusted(self, run: Run, snapshot: str) -> bool:
        """Whether all that the cache knows is still stored: its manifest is listed, unmarked, and its packs stand."""
        manifest = next((each for each in run.manifests if each.summary.id == snapshot), None)
        if manifest is None:
            return False
        stands = run.stands(manifest)
        if not stands and not self._incomplete:
            self._incomplete = True
            hint = "what the sources still hold is stored anew in this run; 'opsd check' tells what the older snapshots lack"
            problem = "packs that it needs are missing, damaged or marked"
            self._reporter.warn(Warning(subject=f"snapshot {snapshot[:8]}", problem=problem, hint=hint))
        return stands

    def _ending(self, run: Run, started: int) -> Ending:
        frames = FrameSet()
        parts: dict[int, list[SourceTree]] = {DEFAULT_DOMAIN: []}
        sources: list[SourceSummary] = []
        page_maps = {}
        for planned, result in self._results:
            domain = run.place.settings.domain(planned.domain)
            number = domain.number if domain else DEFAULT_DOMAIN
            frames.add_all(result.frames)
            page_maps.update(result.page_maps)
            if result.listing:
                tree = SourceTree(
                    label=result.label, kind=result.kind, roots=result.roots, listing=result.listing, facts=result.facts
                )
                parts.setdefault(number, []).append(tree)
            sources.append(self._summary(result, number))
        about = self._store_about(run, frames)
        readers = {
            number: ReaderPart(trees=tuple(trees), about=about if number == DEFAULT_DOMAIN else {})
            for number, trees in parts.items()
        }
        summary = self._snapshot(tuple(sources), started)
        return Ending(
            summary=summary,
            parts=readers,
            page_maps=page_maps,
            frames=frames,
            next_due=self._next_due(started),
            ledger=self._labels.ledger,
        )

    def _next_due(self, started: int) -> int | None:
        """When the next one must be there: it may take twice as long as this one, and an hour in any case."""
        if self._labels.next_run is None:
            return None
        return self._labels.next_run + max(_LEAST_PATIENCE, 2 * (self._repository.around.clock.now() - started))

    def _summary(self, result: Result, domain: int) -> SourceSummary:
        ended = Outcome.FAILED if result.failure else Outcome.WARNINGS if result.warnings else Outcome.COMPLETE
        return SourceSummary(
            label=result.label,
            kind=result.kind,
            outcome=ended,
            files=result.files,
            folders=result.folders,
            bytes=result.bytes,
            warnings=result.warnings,
            domain=domain,
            roots=result.totals,
        )

    def _store_about(self, run: Run, frames: FrameSet) -> dict[str, object]:
        run.blobs.owner = ""
        domain = run.blobs.domains[DEFAULT_DOMAIN]
        about: dict[str, object] = {"version": self._labels.version}
        for name in ("configuration", "rescue", "packages"):
            content = getattr(self._about, name)
            stored = run.blobs.add_whole(domain, content, LISTING) if content else b""
            frames.add_references(stored if isinstance(stored, bytes) else stored[1])
            about[name] = stored
        return about

    def _snapshot(self, sources: tuple[SourceSummary, ...], started: int) -> SnapshotSummary:
        """The summary, but for what only the run knows."""
        labels = self._labels
        return SnapshotSummary(
            id="",
            name="",
            writer=b"",
            run=b"",
            sequence=0,
            started=started,
            ended=self._repository.around.clock.now(),
            received=0,
            zone=labels.zone,
            host=labels.host,
            job=labels.job,
            tags=labels.tags,
            complete=bool(sources) and all(source.outcome is not Outcome.FAILED for source in sources),
            sources=sources,
            files=sum(source.files for source in sources),
            bytes=sum(source.bytes for source in sources),
            added_bytes=0,
            version=labels.version,
        )


def _expected(previous: Manifest | None, label: str) -> Total | None:
    """How much a source will come to, as its last snapshot tells."""
    return Total.of(each for each in previous.summary.sources if each.label == label) if previous else None
