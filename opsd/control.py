"""Ask a service of opsd for a job, over a Unix stream socket: one connection, one job.

Promise: whoever asks hears within a deadline that the service lives, and in the end how the job ended, or gets an error that names
the socket and the unit to look at. Who leaves early stops nothing: the job goes on.

The client sends one line of JSON, at most 4 KiB: {"job": "backup", …}. The service answers in lines of JSON:

    {"started": pid}            the job runs
    {"alive": true}             every ten seconds
    {"exit": code, "tail": t}   it ended; the end of what it said, at most 16 KiB
    {"refused": text, "hint"}   it was not done, and why

Values may be answered besides, each as {"answer": …}, and a stream of bytes after {"bytes": count}, where the job says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

REQUEST_BYTES: Final = 4 * 1024
TAIL_BYTES: Final = 16 * 1024
#: A heartbeat comes that often, and who hears none for this long is alone; in seconds.
HEARTBEAT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 60.0
#: An answer's line: a tail in JSON takes up to six characters a byte.
LINE_BYTES: Final = 8 * TAIL_BYTES
#: Where the services listen: as `/run/opsd/worker.sock`.
RUN_FOLDER: Final = Path("/run/opsd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended: its exit code (negative: the signal), the end of what it said, how long it took in seconds."""

    exit_code: int
    tail: str
    seconds: float = 0.0
