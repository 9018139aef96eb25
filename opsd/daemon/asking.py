"""Have jobs run by the services behind their sockets, where there are any.

Promise: a job that a service runs does not end with the daemon. Its pings are sent from here: what reads every file has no network.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from opsd.app.pinging import pings_of
from opsd.app.session import find_settings
from opsd.control import SERVICES, Ended, Line, ask, socket_of
from opsd.daemon.runner import AsChild, LeftRunning
from opsd.errors import OpsdError, TryLater
from opsd.values import dataclass


@dataclass(frozen=True, slots=True)
class AsConfigured:
    """Asks the job's service where its socket is there; else the job is a child of the daemon."""

    configuration: str | None

    def __call__(
        self, job: str, environment: Mapping[str, str], on_alive: Callable[[int], None], stop: threading.Event
    ) -> Ended:
        """Have it run.

        Raises:
            LeftRunning: `stop` was set, and the job goes on. OSError, OpsdError: it can't be started.
        """
        if job not in SERVICES or not socket_of(job).exists():
            return AsChild(self.configuration)(job, environment, on_alive, stop)

        def heard(line: Line) -> None:
            if stop.is_set():
                raise LeftRunning
            on_alive(int(line.get("started") or line.get("alive") or 0))

        about = {
            "run": environment["OPSD_RUN_ID"],
            "slot": int(environment["OPSD_RUN_SLOT"]),
            "attempt": int(environment["OPSD_RUN_ATTEMPT"]),
        }
        return ask_and_ping(self.configuration, {"job": job, **about}, heard)


def ask_and_ping(configuration: str | None, request: Line, heard: Callable[[Line], None]) -> Ended:
    """Have the service of a job do it, and tell the job's dead-man switch, if it has one.

    Raises:
        OpsdError: the service is not there, or did not do it. What `heard` raises.
    """
    job = str(request["job"])
    with _pinging(configuration, job, str(request.get("run") or secrets.token_hex(8))) as told:
        ended = ask(socket_of(job), request, heard)
        told(ended.exit_code)
    return ended


@contextmanager
def _pinging(configuration: str | None, job: str, run: str) -> Iterator[Callable[[int], None]]:
    """Tell that it begins, and how it ended; nothing where it goes on without us."""
    try:
        pings = pings_of(find_settings(configuration), _Log(), job, run)
    except OpsdError:
        pings = None  # The job itself tells what is wrong with its configuration.
    if pings is None:
        yield lambda _: None
        return
    pings.begin()
    exit_code = TryLater.exit_code
    try:

        def told(code: int) -> None:
            nonlocal exit_code
            exit_code = code

        yield told
    except OpsdError as error:
        exit_code = error.exit_code
        raise
    finally:
        pings.ended(exit_code)
        pings.wait()


class _Log:
    """Hears what did not arrive."""

    def tell(self, text: str) -> None:
        """Log it."""
        structlog.get_logger().warning(text)
