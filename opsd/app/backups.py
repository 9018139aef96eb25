"""Take a snapshot: choose the sources, join each with what reads it, and run.

Promise: an unknown source or an empty choice is told before anything is opened. `job` is `all` for every configured source, `part` for
some of them or for paths, `safety` for what a restore in place takes first.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path

from opsd.app.configuration import shown
from opsd.app.session import Session
from opsd.app.version import version
from opsd.app.workers import Workers
from opsd.backup.about import About, installed_packages
from opsd.backup.hooks import Occasion, around, run_pending
from opsd.backup.snapshot import Backup, Labels, Report
from opsd.errors import ConfigurationError, UsageError
from opsd.events import Recorder
from opsd.monitor.ledger_file import LedgerFile
from opsd.schedule import next_time
from opsd.settings.schedule import OFF
from opsd.sources.files import FileTree
from opsd.sources.options import FilesSource, SourceSettings
from opsd.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What to back up: all configured sources, some, or paths. `accept_shrink`: a root may have lost over half this once.

    `domains`: the key domains of those paths that are not for the default one.
    """

    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    domains: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    accept_shrink: bool = False
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a source would take in: files and bytes where a walk tells them, else None."""

    name: str
    kind: str
    files: int | None
    bytes: int | None
    warnings: int


def chosen(session: Session, request: BackupRequest) -> tuple[tuple[SourceSettings, ...], str]:
    """The sources to back up, and the job that this makes.

    Raises:
        UsageError, ConfigurationError: there is nothing to back up, or no such source.
    """
    if request.paths:
        if request.sources:
            raise UsageError("give either paths or --source, not both", hint="paths are a source of their own, 'files'")
        return _of_paths(request), request.job or "part"
    known = {source.label: source for source in session.settings.sources}
    if not known:
        raise ConfigurationError(
            ("there is nothing to back up: no sources are configured and no path was given",),
            hint="name sources: in the configuration, or give paths: opsd backup /etc /srv",
        )
    unknown = [label for label in request.sources if label not in known]
    if unknown:
        raise UsageError(f"no source {', '.join(unknown)}", hint=f"configured are {', '.join(known)}")
    if not request.sources:
        return tuple(known.values()), request.job or "all"
    return tuple(known[label] for label in dict.fromkeys(request.sources)), request.job or "part"


def _of_paths(request: BackupRequest) -> tuple[SourceSettings, ...]:
    """A source for the paths of each key domain; what belongs to another is left out where it lies in one of them."""
    groups: dict[str, list[str]] = {}
    for path in request.paths:
        real = os.path.abspath(path) + ("/" if path.endswith("/") else "")
        groups.setdefault(request.domains.get(path, "default"), []).append(real)
    found = []
    for domain, paths in groups.items():
        others = [each for name, group in groups.items() if name != domain for each in group]
        inside = [each for each in others if any(each.startswith(path.rstrip("/") + "/") for path in paths)]
        options = FilesSource(
            paths=tuple(paths), exclude=tuple(re.sub(r"([*?\[\\])", r"\\\1", each) for each in inside)
        )
        label = "files" if domain == "default" else f"files-{domain}"
        found.append(SourceSettings(label=label, options=options, domain=domain))
    return tuple(found)


def back_up(session: Session, request: BackupRequest) -> Report:
    """Take a snapshot; a source that fails does not stop the others.

    Raises:
        OpsdError: the run could not end with a snapshot; nothing older is touched.
    """
    sources, job = chosen(session, request)
    settings = session.settings
    identity = secrets.token_hex(8)
    workers = Workers(session, identity, job, session.own_folders(), accept_shrink=request.accept_shrink)
    labels = Labels(
        host=settings.host,
        job=job,
        zone=settings.timezone,
        version=version(),
        tags=request.tags,
        ledger=LedgerFile(settings.state).vouched(),
        next_run=_next_run(session) if job == "all" else None,
    )
    about = About(configuration=shown(settings).encode(), rescue=rescue_script(), packages=installed_packages())
    run_pending(settings.state, session.reporter)
    with around(settings.hooks, Occasion(run=identity, job=job), settings.state, session.reporter) as course:
        repository = session.open(writer=True)
        report = Backup(repository, labels, about).run([workers.planned(source) for source in sources])
        course.outcome = report.outcome
        course.error = "\n".join(str(error) for error in report.failures.values())
    return report


def preview(session: Session, request: BackupRequest) -> Iterator[Preview]:
    """Walk what would be backed up; stores nothing and opens no repository.

    Raises:
        SourceError: a root is missing.
    """
    for source in chosen(session, request)[0]:
        kind = Workers.kind(source)
        if not isinstance(source.options, FilesSource):
            yield Preview(name=source.label, kind=kind, files=None, bytes=None, warnings=0)
            continue
        files = size = 0
        heard = Recorder()
        tree = FileTree(source.label, source.options, heard, skip=session.own_folders())
        for folder in tree.folders():
            found = [status for _, status in folder.entries if status.st_mode & 0o170000 == 0o100000]
            files += len(found)
            size += sum(status.st_size for status in found)
        for warning in heard.warnings:
            session.reporter.warn(warning)
        yield Preview(name=source.label, kind=kind, files=files, bytes=size, warnings=tree.warnings)


def rescue_script() -> bytes:
    """tools/rescue.py, which every snapshot carries: from the wheel, or from the checkout. Empty if neither has it."""
    package = Path(__file__).parents[1]
    for path in (package / "rescue.py.txt", package.parent / "tools" / "rescue.py"):
        if path.is_file():
            return path.read_bytes()
    return b""


def _next_run(session: Session) -> int | None:
    """When the schedule has the next one; ns UTC, None where nothing is scheduled."""
    at = session.settings.schedule.backup
    return None if at == OFF else next_time(at, session.settings.zone, session.clock.now())
