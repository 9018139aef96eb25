"""A real OpenSSH server for one test session: own keys, own configuration, a loopback port, and a log to look into.

Each connection gets an `sshd -i` of its own, so the port is bound before anybody connects, and ending a server means ending
processes that this module started.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from opsd.storage.sftp_session import SftpOptions

_CONFIGURATION = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/login.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
Subsystem sftp internal-sftp
"""


def program() -> str:
    """sshd's path; skips the test where none is installed."""
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip("no OpenSSH server is installed")
    return found


@dataclass(slots=True)
class Server:
    """A server that accepts until its context ends. `wrapper` goes before sshd's command: strace, for instance."""

    folder: Path
    listener: socket.socket
    wrapper: Sequence[str] = ()
    started: list[tuple[socket.socket, "subprocess.Popen[bytes]"]] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def key(self) -> Path:
        return self.folder / "login"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def options(self, path: Path | str, *, port: int | None = None) -> SftpOptions:
        """How to reach that folder, by default not through anything."""
        return SftpOptions(
            host="127.0.0.1",
            port=port or self.port,
            user=_user(),
            path=str(path),
            key=self.key,
            known_hosts=self.known_hosts,
            timeout=20.0,
        )

    def trust(self, port: int) -> None:
        """Let the key be known at another port too, such as a proxy's."""
        key = (self.folder / "host.pub").read_text()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {key}")

    def accept(self) -> None:
        command = [
            *self.wrapper,
            program(),
            "-i",
            "-f",
            str(self.folder / "sshd_config"),
            "-E",
            str(self.folder / "log"),
        ]
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            ends = connection.fileno()
            self.started.append((connection, subprocess.Popen(command, stdin=ends, stdout=ends)))

    def drop(self) -> None:
        """End all connections, as a server that is restarted does."""
        started, self.started = self.started, []
        for connection, _ in started:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for _, process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextmanager
def running_server(configuration: str = "", wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """A server for the time of the context, with more lines of sshd_config(5)."""
    program()
    if os.geteuid() == 0:
        # sshd(8): the folder that its processes without privileges are confined to; a boot's tmpfiles.d makes it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="opsd-sshd-"))
    try:
        for name in ("host", "login"):
            make_key(folder / name)
        (folder / "sshd_config").write_text(_CONFIGURATION.format(folder=folder) + configuration)
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            server = Server(folder=folder, listener=listener, wrapper=wrapper)
            server.trust(server.port)
            accepting = threading.Thread(target=server.accept)
            accepting.start()
            try:
                yield server
            finally:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                accepting.join()
                server.drop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
