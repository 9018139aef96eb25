"""Ask a service of opsd for a job, over a Unix stream socket: one connection, one job.

Promise: whoever asks hears within a deadline that the service lives, and at last how the job ended, or gets an error that names the
unit to look at. Leaving early stops no job.

The client sends one line of JSON, at most 4 KiB: {"job": "backup", …}. The service answers in lines of JSON:

    {"started": pid}                             the job runs
    {"alive": seconds}                           every ten seconds
    {"answer": …}                                what the job answers, where it does
    {"exit": code, "tail": text, "seconds": s}   the job ended; the end of what it said, at most 16 KiB
    {"refused": text, "hint": text, "code": n}   it was not done; 75 is: try later
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from opsd.errors import OpsdError, TryLater
from opsd.values import dataclass

REQUEST_BYTES: Final = 4 * 1024
TAIL_BYTES: Final = 16 * 1024
#: A service says that often that it is alive, and one that says nothing for so long has hung; in seconds.
HEARTBEAT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 60.0
#: What a database holds is told in one line.
_LINE_BYTES: Final = 16 * 1024 * 1024
#: Which service does which job.
SERVICES: Final[Mapping[str, str]] = {
    "backup": "worker",
    "copy": "upkeep",
    "prune": "upkeep",
    "check": "upkeep",
    "drill": "drill",
    "restore": "restore",
    "hooks": "hooks",
    "freeze": "hooks",
    "image": "owner",
}

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended: its exit code (negative: the signal), the end of what it said, how long it took in seconds."""

    exit_code: int
    tail: str
    seconds: float = 0.0


def socket_of(job: str) -> Path:
    """Where to ask for a job. OPSD_RUN_FOLDER stands in for /run/opsd."""
    return Path(os.environ.get("OPSD_RUN_FOLDER") or "/run/opsd") / f"{SERVICES[job]}.sock"


def ask(path: Path, request: Line, on_line: Callable[[Line], None] | None = None) -> Ended:
    """Have a job done and wait for its end; `on_line` hears each line before.

    Raises:
        OpsdError: there is no such service, it refused, or it ended early. TryLater: this job is at work there already.
    """
    with asked(path, request) as service:
        while True:
            line = service.line()
            if "exit" in line:
                seconds = float(line.get("seconds") or 0)
                return Ended(exit_code=int(line["exit"]), tail=str(line.get("tail") or ""), seconds=seconds)
            if on_line:
                on_line(line)


@contextmanager
def asked(path: Path, request: Line) -> Iterator["Asked"]:
    """A service that was asked for a job.

    Raises:
        OpsdError: as for `ask`.
    """
    unit = f"opsd-{path.stem}"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(SILENCE_SECONDS)
        try:
            connection.connect(str(path))
            with suppress(BrokenPipeError):  # Refused unheard: why can be read.
                connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _unreachable(path, unit, error) from error
        yield Asked(connection, unit)
    finally:
        connection.close()


class Asked:
    """A service that works for us, and its answers."""

    def __init__(self, connection: socket.socket, unit: str) -> None:
        self._connection = connection
        self._unit = unit
        self._held = bytearray()

    def line(self) -> Line:
        """The next line.

        Raises:
            OpsdError: the service refused, said nothing for a minute, or ended.
        """
        while b"\n" not in self._held:
            piece = self._received(64 * 1024)
            if not piece or len(self._held) > _LINE_BYTES:
                raise self._broken("it ended before the job did")
            self._held += piece
        text, _, rest = bytes(self._held).partition(b"\n")
        self._held = bytearray(rest)
        try:
            line = json.loads(text)
        except ValueError as error:
            raise self._broken("its answer is no JSON") from error
        if not isinstance(line, dict):
            raise self._broken("its answer is no JSON object")
        if "refused" in line:
            kind = TryLater if line.get("code") == TryLater.exit_code else OpsdError
            raise kind(str(line["refused"]), hint=line.get("hint") and str(line["hint"]))
        return line

    def answer(self) -> Any:
        """The next answer; what comes between is passed over.

        Raises:
            OpsdError: as for `line`.
        """
        while "answer" not in (line := self.line()):
            pass
        return line["answer"]

    def readinto(self, buffer: memoryview, /) -> int:
        """Bytes that follow a line, as far as there are any; 0 once the service ended."""
        if self._held:
            count = min(len(buffer), len(self._held))
            buffer[:count] = self._held[:count]
            del self._held[:count]
            return count
        try:
            return self._connection.recv_into(buffer)
        except OSError as error:
            raise self._broken(_reason(error)) from error

    def release(self) -> None:
        """Say that nothing more is wanted; what the service still says can be read."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(_reason(error)) from error

    def _received(self, most: int) -> bytes:
        try:
            return self._connection.recv(most)
        except OSError as error:
            raise self._broken(_reason(error)) from error

    def _broken(self, problem: str) -> OpsdError:
        return OpsdError(f"{self._unit}: {problem}", hint=f"see what it said: journalctl -u {self._unit} -e")


def _unreachable(path: Path, unit: str, error: OSError) -> OpsdError:
    if isinstance(error, FileNotFoundError):
        hint = f"start its socket: systemctl enable --now {unit}.socket"
        return OpsdError(f"there is no service at {path}", hint=hint)
    if isinstance(error, ConnectionRefusedError):
        hint = f"start its socket again: systemctl restart {unit}.socket"
        return OpsdError(f"nobody listens at {path}", hint=hint)
    if isinstance(error, PermissionError):
        return OpsdError(
            f"this user may not ask {unit} at {path}", hint=f"root may; who else, this shows: ls -l {path}"
        )
    return OpsdError(f"{unit} can't be asked at {path}: {_reason(error)}", hint=f"systemctl status {unit}.socket")


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"it said nothing for {SILENCE_SECONDS:g} s"
    return (error.strerror or str(error)).lower()
