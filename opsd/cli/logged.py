"""Who listens where systemd keeps what is said: each line goes into the journal with its run, job and source."""

import os
from pathlib import Path
from typing import Final

import structlog

from opsd.cli.progress import Listener
from opsd.daemon import journal
from opsd.events import Total, Warning

#: The last stage of a backup; those before are its sources.
_LAST: Final = "storing"


class Logged(Listener):
    """Lines of the log, for the journal at `path`, None for the usual one."""

    def __init__(self, job: str, path: Path | None = None) -> None:
        super().__init__()
        journal.configure(path)
        self._job = job
        self._log = structlog.get_logger().bind(opsd_run=os.environ.get("OPSD_RUN_ID"), opsd_job=job)

    def stage(self, name: str, total: Total | None = None) -> None:
        """Say what begins."""
        super().stage(name, total)
        self._log = self._log.bind(opsd_source=name if self._job == "backup" and name != _LAST else None)
        self._log.info(name)

    def warn(self, warning: Warning) -> None:
        """Keep it, and say it at once."""
        super().warn(warning)
        self._log.warning(f"{warning.subject}: {warning.problem}", hint=warning.hint)

    def tell(self, text: str) -> None:
        """Say it."""
        self._log.info(text)
