"""The services of opsd as systemd starts them: a process of their own, with a listening socket as descriptor 3 and few rights."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opsd.control import Ended, Line, ask
from tests.support.command_line import Desk

#: The user of the services in tests.
SERVICE_USER = 65533

#: What systemd does between fork and exec, for sd_listen_fds(3).
_PASS = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"


def as_user(user: int, *capabilities: str) -> list[str]:
    """Begin a command line: this user, with these capabilities and no others."""
    wanted = "".join(f",+{each}" for each in capabilities)
    rights = [f"--inh-caps=-all{wanted}", f"--ambient-caps=-all{wanted}", f"--bounding-set=-all{wanted}"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights]


class Service:
    """A service that runs, and its socket."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process

    def ask(self, request: Line) -> Ended:
        return ask(self.path, request)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(str(self.path))
        return connection

    def said_to(self, sent: bytes) -> bytes:
        """All that it answers to these bytes."""
        with self.connect() as connection:
            connection.sendall(sent)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    whole = b""
    while piece := connection.recv(65536):
        whole += piece
    return whole


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket as its unit makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o660)
        os.chown(path, -1, SERVICE_USER) if os.geteuid() == 0 else None
        listener.listen(64)
        yield listener


@contextmanager
def serving(desk: Desk, name: str, prefix: Sequence[str] = ()) -> Iterator[Service]:
    """The service of that name in the desk's run folder, asked to end on leaving; it must then end with 0."""
    path = desk.folder / "run" / f"{name}.sock"
    with listening(path) as listener:
        command = [sys.executable, "-c", _PASS, sys.executable, "-P", "-m", "opsd", "serve", name]
        environment = {**desk.variables(), "LISTEN_FDS": "1", "OPSD_RUN_FOLDER": str(path.parent)}
        process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{listener.fileno()}; exec "$@"', "bash", *prefix, *command],
            env=environment,
            pass_fds=[listener.fileno()],
            cwd="/",
        )
        try:
            yield Service(path, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            path.unlink()
