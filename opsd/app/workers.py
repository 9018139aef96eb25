"""Join each configured source with what reads it and what stores it.

Promise: a source's library is imported when such a source is configured, not before. Another kind is one method here.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import assert_never

from opsd.app.session import Session
from opsd.backup.guard import lost_mounts, shrunk
from opsd.backup.snapshot import Planned, Worker
from opsd.backup.tree import TreeBackup
from opsd.backup.work import Job, Result
from opsd.process import ProgramFailed, run
from opsd.repository.manifest import page_map_key
from opsd.sources.files import FileTree
from opsd.sources.freeze import frozen
from opsd.sources.options import CommandSource, FilesSource, PostgresqlSource, SourceSettings, SqliteSource

#: A snapshot tool that takes longer hangs (seconds).
_TOOL_SECONDS = 300.0


class Workers:
    """Makes the workers of one run. `own` are opsd's own folders, never backed up."""

    def __init__(self, session: Session, own: frozenset[bytes], *, accept_shrink: bool) -> None:
        self._session = session
        self._own = own
        self._accept_shrink = accept_shrink

    @staticmethod
    def kind(source: SourceSettings) -> str:
        """What a source is called in lists."""
        match source.options:
            case FilesSource():
                return "files"
            case SqliteSource():
                return "sqlite"
            case PostgresqlSource():
                return "postgresql"
            case CommandSource():
                return "command"
            case _:
                assert_never(source.options)

    def planned(self, source: SourceSettings) -> Planned:
        """A source with its worker and its hooks."""
        return Planned(
            label=source.label,
            kind=self.kind(source),
            work=self._worker(source),
            domain=source.domain,
        )

    def _worker(self, source: SourceSettings) -> Worker:
        match source.options:
            case FilesSource() as options:
                return lambda job: self._files(job, options)
            case _:
                raise NotImplementedError

    def _files(self, job: Job, options: FilesSource) -> Result:
        reporter = self._session.reporter
        with frozen(job.label, options, reporter, _run_tool, scratch=self._session.scratch()) as real:
            tree = FileTree(job.label, options, reporter, skip=self._own, frozen=real)
            index = job.run.place.ring.index()
            keys = {page_map_key(index, job.label, root): root for root in tree.roots}
            if not self._accept_shrink and (lost := lost_mounts(job.label, job.previous, keys, tree.mounts())):
                raise lost
            result = TreeBackup(job, tree, options, lambda _path, _found, _previous: None).back_up()
        if not self._accept_shrink:
            result.failure = shrunk(job.label, job.previous, keys, result.totals)
        return result

    def clear_up(self) -> None:
        """Run what hooks of a killed run were left owing."""

    def around_run(self) -> AbstractContextManager[object]:
        """The hooks around the whole run."""
        return nullcontext()


def _run_tool(arguments: Sequence[str]) -> bytes:
    """Run a snapshot tool to its end."""
    done = run(arguments, timeout=_TOOL_SECONDS)
    if done.status:
        raise ProgramFailed(arguments[0], f"ended with exit code {done.status}: {done.said}", status=done.status)
    return done.output
