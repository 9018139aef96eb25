"""Tell a job's dead-man switch that the job began, and how it ended: from the process that does the job, so that cron's jobs tell it too.

Promise: the job waits for nothing and never fails by it; what did not arrive is said at the very end. No path and no name of a source is told.
"""

import atexit
import queue
import threading
import time
from contextlib import suppress
from typing import Final

from opsd.credentials import Listener
from opsd.errors import OpsdError
from opsd.monitor.alert_options import Address, url_of
from opsd.monitor.ledger import outcome_of
from opsd.settings import Settings

#: A start that is on its way, and three tries at the end, each with a limit of its own (seconds).
_LONGEST: Final = 45.0
#: Done, with warnings or without; and what will be tried again, which tells its end then.
_SUCCESS: Final = frozenset({0, 3})
_POSTPONED: Final = 75


def pings_of(settings: Settings, listener: Listener, job: str, run: str) -> "JobPings | None":
    """The pings of one run, where the configuration names a URL for this job; `listener` hears what did not arrive."""
    address = settings.alerts.pings.get(job)
    return JobPings(f"{job} on {settings.host}", run, address, listener) if address is not None else None


class JobPings:
    """Tells in a thread of its own."""

    def __init__(self, about: str, run: str, address: Address, listener: Listener) -> None:
        self._listener = listener
        self._address = address
        self._run = run
        self._about = about
        self._began = time.monotonic()
        #: Whether it succeeded, and what to say; None: nothing is to be told.
        self._end: queue.SimpleQueue[tuple[bool, str] | None] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._error = ""
        self._thread = threading.Thread(target=self._work, name="opsd-pings", daemon=True)

    def begin(self) -> None:
        """The job begins."""
        self._thread.start()
        atexit.register(self.wait)

    def ended(self, exit_code: int) -> None:
        """The job has ended; one that was put off tells its end when it is done."""
        seconds = time.monotonic() - self._began
        text = (
            f"{self._about}: {outcome_of(exit_code)}\nexit code {exit_code}, after {seconds:.0f} s\nrun {self._run}\n"
        )
        self._end.put(None if exit_code == _POSTPONED else (exit_code in _SUCCESS, text))
        self._is_over.set()

    def wait(self) -> None:
        """Until it is told, three quarters of a minute at most where nobody answers; a signal ends that."""
        atexit.unregister(self.wait)
        with suppress(KeyboardInterrupt):
            self._thread.join(_LONGEST)
            if self._error:
                self._listener.tell(f"the ping of {self._about.partition(' ')[0]} did not arrive: {self._error}")

    def _work(self) -> None:
        from opsd.monitor.pings import Phase, ping, ping_url  # noqa: PLC0415 - what speaks HTTP takes 0.1 s, here beside the job

        try:
            url = url_of(self._address)
        except OpsdError as error:
            self._error = str(error)
            return
        begun = f"{self._about}: begun\nrun {self._run}\n"
        self._error = ping(ping_url(url, Phase.START, self._run), begun, self._is_over)
        end = self._end.get()
        if end:
            is_success, text = end
            self._error = ping(ping_url(url, Phase.SUCCESS if is_success else Phase.FAIL, self._run), text)
