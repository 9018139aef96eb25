"""Sessions kept open, each lent to one operation at a time.

Promise: at most `limit` are open. A session that was kept may have died meanwhile, so what fails on it with
StoreUnavailable is done once more on a new one; what fails on a new one is raised.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from opsd.errors import StoreUnavailable
from opsd.storage.sftp_session import Session

Result = TypeVar("Result")


class SessionPool:
    """Usable from several threads; an operation must be safe to repeat, and must not ask the pool for another session."""

    def __init__(self, connect: Callable[[], Session], limit: int) -> None:
        self._connect = connect
        self._places = threading.Semaphore(limit)
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def run(self, operation: Callable[[Session], Result]) -> Result:
        """Do it on a session, and wait for one if all are lent."""
        with self._places:
            kept = self._kept()
            if kept is not None:
                try:
                    return self._lend(kept, operation)
                except StoreUnavailable:
                    # The others most likely lost the same server.
                    self.close()
            return self._lend(self._connect(), operation)

    def _kept(self) -> Session | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _lend(self, session: Session, operation: Callable[[Session], Result]) -> Result:
        try:
            return operation(session)
        finally:
            if session.is_clean:
                with self._lock:
                    self._idle.append(session)
            else:
                session.close()

    def close(self) -> None:
        """Close those that nobody uses; the next operation opens a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
