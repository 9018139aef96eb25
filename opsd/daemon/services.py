"""The services behind the sockets: each does its own jobs, one request after the other says which.

Promise: what runs follows from a fixed table and the configuration, which the job reads itself; a request chooses among that, and never
gives arguments. Each job runs once at a time; whoever asks for it meanwhile is told to try later.
"""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog

from opsd.app.running import PINGED
from opsd.control import SERVICES, Line
from opsd.daemon.control import Handle, Server, Serving, Talk
from opsd.daemon.jobs import Job, Limits, run_job
from opsd.errors import OpsdError, TryLater, UsageError

#: sd_listen_fds(3).
_FIRST_DESCRIPTOR: Final = 3
#: Whoever stores an image may stand still for a while before it reads on.
_SERVING: Final = {"owner": Serving(send_seconds=600.0)}
#: The unit sets the limits; its TimeoutStopSec= is longer than the grace time.
_LIMITS: Final = Limits(nice=None, io_priority=None, memory=None, grace=90.0)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST: Final = 2**63 - 1
#: Done, and done with warnings.
_FINE: Final = frozenset({0, 3})
#: What the daemon tells a run about itself, as opsd.monitor.state reads it.
_ABOUT: Final = {"run": "OPSD_RUN_ID", "slot": "OPSD_RUN_SLOT", "attempt": "OPSD_RUN_ATTEMPT"}


def serve(name: str, configuration: str | None, stop: threading.Event) -> None:
    """Be a service, on the socket that systemd passed, until nobody asks or `stop` is set.

    Raises:
        UsageError: there is no such service, or no socket was passed.
    """
    if name not in SERVICES.values():
        raise UsageError(f"there is no service {name!r}", hint=f"there are {', '.join(sorted(set(SERVICES.values())))}")
    Server(passed_socket(name), _handle(name, configuration, stop), _SERVING.get(name)).serve(stop)


def passed_socket(name: str) -> socket.socket:
    """The one listening socket that whoever started this process passed (sd_listen_fds(3)).

    Raises:
        UsageError: there is none.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        hint = f"systemctl start opsd-{name}.socket; by hand: systemd-socket-activate -l /run/opsd/{name}.sock opsd serve {name}"
        raise UsageError("this is started by a socket unit of systemd, which passes one socket", hint=hint)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    os.set_inheritable(_FIRST_DESCRIPTOR, False)
    return socket.socket(fileno=_FIRST_DESCRIPTOR)


def _handle(name: str, configuration: str | None, stop: threading.Event) -> Handle:
    """What answers this service's requests; the modules of those that need more than a child are imported by them alone."""
    if name == "hooks":
        from opsd.daemon.hooks import HooksService  # noqa: PLC0415

        return HooksService(configuration, stop)
    if name == "owner":
        from opsd.daemon.owner import OwnerService  # noqa: PLC0415

        return OwnerService(configuration)
    return Jobs(name, configuration, stop)


class Jobs:
    """Does jobs by running the command line as a child, one at a time."""

    def __init__(self, service: str, configuration: str | None, stop: threading.Event) -> None:
        self._service = service
        self._configuration = configuration
        self._stop = stop
        self._lock = threading.Lock()
        self._at_work: set[str] = set()

    def __call__(self, talk: Talk) -> None:
        """Do what was asked."""
        verb = command_of(self._service, talk.request)
        about = about_of(talk.request)
        environment = os.environ | about | {PINGED: "1"}
        job = Job(verb=verb, configuration=self._configuration, environment=environment, limits=_LIMITS)
        log = structlog.get_logger().bind(opsd_run=talk.request.get("run"), opsd_job=talk.request["job"])
        with self._alone(talk.request["job"]):
            log.info("job started")
            ended = run_job(job, _Beat(talk), self._stop)
            for line in ended.tail.splitlines():
                log.info(line)
            tell = log.info if ended.exit_code in _FINE else log.error
            tell("job ended", exit_code=ended.exit_code, seconds=round(ended.seconds), hint=_last_line(ended.tail))
        talk.say(exit=ended.exit_code, tail=ended.tail, seconds=round(ended.seconds, 3))

    @contextmanager
    def _alone(self, job: str) -> Iterator[None]:
        with self._lock:
            if job in self._at_work:
                raise TryLater(f"opsd-{self._service} is at work on {job}", hint="ask again when it has ended")
            self._at_work.add(job)
        try:
            yield
        finally:
            with self._lock:
                self._at_work.remove(job)


def _last_line(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class _Beat:
    """Tells the client that the job runs, and then that it still does."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._began = False

    def __call__(self, process: int) -> None:
        if self._began:
            self._talk.say(alive=process)
        else:
            self._began = True
            self._talk.say(started=process)


def command_of(service: str, request: Line) -> tuple[str, ...]:
    """The command line of a request, from a fixed table; what it gives is checked, and can't be taken for an option.

    Raises:
        OpsdError: this service has no such job, or a value has another form.
    """
    job = request.get("job")
    if not isinstance(job, str) or SERVICES.get(job) != service:
        jobs = [each for each, by in SERVICES.items() if by == service]
        raise OpsdError(f"opsd-{service} has no job {job!r}", hint=f"it does {', '.join(jobs)}")
    return _restore(request) if job == "restore" else ("run", job)


def _restore(request: Line) -> tuple[str, ...]:
    """Into a fresh folder only: what writes over a live system is asked for by a person at the command line."""
    snapshot, folder = request.get("snapshot"), request.get("to")
    if not isinstance(snapshot, str) or not _NAME.fullmatch(snapshot):
        raise OpsdError(f"snapshot: {snapshot!r} is no id", hint="'opsd snapshots' lists them; 'latest' is the newest")
    if not isinstance(folder, str) or not folder.startswith("/") or "\0" in folder:
        raise OpsdError(f"to: {folder!r} is no absolute path of a folder")
    return ("restore", f"--to={folder}", snapshot)


def about_of(request: Line) -> dict[str, str]:
    """What the run is to know about itself, as variables of its environment.

    Raises:
        OpsdError: a value has another form.
    """
    about: dict[str, str] = {}
    for key, variable in _ABOUT.items():
        value: Any = request.get(key)
        if value is None:
            continue
        is_fine = isinstance(value, str) if key == "run" else type(value) is int and value <= _LARGEST
        if not is_fine or not _NAME.fullmatch(str(value)):
            raise OpsdError(f"{key}: {value!r} has another form")
        about[variable] = str(value)
    return about
