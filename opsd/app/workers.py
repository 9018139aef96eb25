"""Join each configured source with what reads it and what stores it.

Promise: a source's library is imported when such a source is configured, not before. Another kind is one method here.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import assert_never

from opsd.app.session import Session
from opsd.backup.guard import lost_mounts, shrunk
from opsd.backup.hooks import Course, Occasion, around
from opsd.backup.images import ImageRefused, ImageTaker
from opsd.backup.snapshot import Planned, Worker
from opsd.backup.streams import StreamBackup
from opsd.backup.tree import TreeBackup
from opsd.backup.work import Job, Result
from opsd.control import socket_of
from opsd.credentials import resolve
from opsd.errors import ProgramFailed
from opsd.model import Outcome
from opsd.process import ending, run, said
from opsd.repository.manifest import page_map_key
from opsd.sources.command import CommandOutput
from opsd.sources.files import FileTree
from opsd.sources.freeze import frozen, frozen_by_service
from opsd.sources.options import CommandSource, FilesSource, PostgresqlSource, SourceSettings, SqliteSource
from opsd.sources.protocol import Readable
from opsd.sources.sqlite import HINTS, SqliteDatabase, image
from opsd.sources.sqlite_image import Care, Refused

#: A snapshot tool that takes longer hangs (seconds).
_TOOL_SECONDS = 300.0


class Workers:
    """Makes the workers of one run. `own` are opsd's own folders, never backed up."""

    def __init__(self, session: Session, run_id: str, job: str, own: frozenset[bytes], *, accept_shrink: bool) -> None:
        self._session = session
        self._run = run_id
        self._job = job
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
        """A source with its worker, within its hooks."""
        worker = self._worker(source)
        occasion = Occasion(run=self._run, job=self._job, source=source.label)
        courses: list[Course] = []

        @contextmanager
        def within_hooks() -> Iterator[None]:
            with around(source.hooks, occasion, self._session.settings.state, self._session.reporter) as course:
                courses.append(course)
                yield

        def work(job: Job) -> Result:
            result = worker(job)
            if result.warnings:
                courses[-1].outcome = Outcome.WARNINGS
            return result

        return Planned(
            label=source.label, kind=self.kind(source), work=work, domain=source.domain, around=within_hooks()
        )

    def _worker(self, source: SourceSettings) -> Worker:
        options = source.options
        match options:
            case FilesSource():
                return lambda job: self._files(job, options)
            case SqliteSource():
                return lambda job: StreamBackup(job, SqliteDatabase(job.label, options), "sqlite").back_up()
            case PostgresqlSource():
                return lambda job: self._postgresql(job, options)
            case CommandSource():
                return lambda job: StreamBackup(job, CommandOutput(job.label, options), "command").back_up()
            case _:
                assert_never(options)

    def _files(self, job: Job, options: FilesSource) -> Result:
        with self._frozen(job.label, options) as real:
            tree = FileTree(job.label, options, self._session.reporter, skip=self._own, frozen=real)
            index = job.run.place.ring.index()
            keys = {page_map_key(index, job.label, root): root for root in tree.roots}
            if not self._accept_shrink and (lost := lost_mounts(job.label, job.previous, keys, tree.mounts())):
                raise lost
            result = TreeBackup(job, tree, options, self._image_taker(frozenset(real.values()))).back_up()
        if not self._accept_shrink:
            result.failure = shrunk(job.label, job.previous, keys, result.totals)
        return result

    def _frozen(self, label: str, options: FilesSource) -> AbstractContextManager[Mapping[bytes, bytes]]:
        """Whoever is not root leaves that to the service, where there is one."""
        reporter = self._session.reporter
        if options.snapshot and os.geteuid() != 0 and socket_of("freeze").exists():
            return frozen_by_service(label, reporter)
        return frozen(label, options, reporter, run_tool, scratch=self._session.scratch())

    @staticmethod
    def _image_taker(frozen_at: frozenset[bytes]) -> ImageTaker:
        """Takes images of databases met in a tree; `frozen_at` are folders of file-system snapshots."""

        @contextmanager
        def take(real: bytes, found: os.stat_result) -> Iterator[Readable | None]:
            in_snapshot = any(real.startswith(folder.rstrip(b"/") + b"/") for folder in frozen_at)
            with ExitStack() as stack:
                try:
                    taken = stack.enter_context(image(real, found=found, care=Care(frozen=in_snapshot)))
                except Refused as error:
                    if not error.plain:
                        raise ImageRefused(error.text, HINTS[error.reason]) from error
                    taken = None
                try:
                    yield taken
                    stack.close()
                except Refused as error:
                    raise ImageRefused(error.text, HINTS[error.reason]) from error

        return take

    def _postgresql(self, job: Job, options: PostgresqlSource) -> Result:
        from opsd.sources.postgresql.source import PostgresqlStreams  # noqa: PLC0415 - psycopg: 0.1 s for those who have servers

        def password() -> str | None:
            return resolve(options.password, self._session.reporter).decode() if options.password else None

        source = PostgresqlStreams(
            job.label, options, reporter=self._session.reporter, clock=self._session.clock, password=password
        )
        return StreamBackup(job, source, "postgresql").back_up()


def run_tool(arguments: Sequence[str]) -> bytes:
    """Run a snapshot tool to its end."""
    done = run(arguments, timeout=_TOOL_SECONDS)
    if done.status:
        raise ProgramFailed(f"{arguments[0]} {ending(done.status)}{said(done.error_text)}", status=done.status)
    return done.output
