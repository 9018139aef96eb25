"""Have jobs run by the services behind their sockets, where there are any.

Promise: a job that a service runs does not end with the daemon.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from opsd.control import SERVICES, Ended, Line, ask, socket_of
from opsd.daemon.runner import AsChild, LeftRunning


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
        return ask(socket_of(job), {"job": job, **about}, heard)
