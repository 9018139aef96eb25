"""One SFTP session on an SSH connection of its own, with many requests under way at once.

Promise: nobody logs in to a server whose key does not stand in known_hosts. Every request gets its answer, or the session
is lost: StoreUnavailable, and it is good for nothing any more.

paramiko's own SFTP client waits for each answer, hides the server's status codes and knows neither its extensions nor its
limits. So requests and answers are packed and unpacked here (draft-ietf-secsh-filexfer-02, section 3), above its channel.
"""

import itertools
import logging
import socket
import struct
from pathlib import Path
from typing import Any, NoReturn

import paramiko
from paramiko.sftp import CMD_EXTENDED, CMD_INIT, CMD_STATUS, CMD_VERSION, SFTP_OK, SFTPError

from opsd.errors import StorageError, StoreUnavailable
from opsd.storage.sftp_packets import MOST_DATA, FastPacketizer, Pipe, send_all
from opsd.values import dataclass

# What paramiko's threads log would else reach the terminal by logging's last resort; failures are raised.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

#: GCM needs no second pass for a MAC: half the processor time of CTR with HMAC-SHA-256.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")

#: What every server takes (draft-ietf-secsh-filexfer-02, section 3), and the most that is asked of one that takes more.
_LEAST_BLOCK = 32 << 10
_MOST_BLOCK = 255 << 10

#: OpenSSH's SFTP_MAX_MSG_LENGTH.
_MOST_ANSWER = 256 << 10

#: What may fail in paramiko when a connection breaks.
_BREAKS = (paramiko.SSHException, SFTPError, EOFError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftpOptions:
    """A folder on a server, and how to get there. `timeout` in seconds: how long a server may say nothing.

    `path` is absolute, or relative to where the login leads. `connections` transfer at once, each on its own.
    """

    host: str
    user: str
    path: str
    key: Path
    known_hosts: Path
    port: int = 22
    connections: int = 4
    timeout: float = 60.0

    @property
    def login_timeout(self) -> float:
        """In seconds: logging in asks nothing slow of a server, unlike syncing a pack to its disk."""
        return min(self.timeout, 30.0)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.path}"


def text(value: str | bytes) -> bytes:
    """A path, a handle or data, as a part of a request."""
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return len(raw).to_bytes(4) + raw


class Refused(Exception):
    """The server did not do it; `code` is one of draft-ietf-secsh-filexfer-02, section 7."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"status {code}")
        self.code = code


class Session:
    """Requests and their answers; for one thread at a time. Close it when done."""

    def __init__(self, client: paramiko.SSHClient, channel: paramiko.Channel, name: str) -> None:
        self._connection = client
        self._channel = channel
        self._name = name
        self._numbers = itertools.count(1)
        self._waiting: set[int] = set()
        self._arrived: dict[int, tuple[int, paramiko.Message]] = {}
        self._lost = False
        self._extensions = self._greet()
        self.read_block, self.write_block = self._limits()

    def _greet(self) -> frozenset[str]:
        """Agree on version 3, the only one that OpenSSH speaks; the extensions that the server offers."""
        send_all(self._channel, struct.pack(">IBI", 5, CMD_INIT, 3))
        kind, _, message = self._receive()
        if kind != CMD_VERSION:
            raise SFTPError("no SFTP server")
        offered = set()
        while message.get_remainder():
            offered.add(message.get_text())
            message.get_string()
        return frozenset(offered)

    def _limits(self) -> tuple[int, int]:
        """How many bytes to ask for and to send at a time."""
        if not self.offers("limits@openssh.com"):
            return _LEAST_BLOCK, _LEAST_BLOCK
        _, message = self.call(CMD_EXTENDED, text("limits@openssh.com"))
        message.get_int64()  # Of a whole packet.
        # Zero: the server has no limit to tell.
        read, write = (message.get_int64() or _LEAST_BLOCK for _ in range(2))
        return min(read, _MOST_BLOCK), min(write, _MOST_BLOCK)

    def offers(self, extension: str) -> bool:
        """Whether the server knows this extension."""
        return extension in self._extensions

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke."""
        return self._lost

    @property
    def is_clean(self) -> bool:
        """Whether somebody else may use it: alive, and no answer is under way."""
        return not self._lost and not self._waiting

    def ask(self, kind: int, *parts: bytes) -> int:
        """Send a request, made of these parts one after the other; its number leads to the answer."""
        number = next(self._numbers)
        body = sum(map(len, parts))
        try:
            send_all(self._channel, b"".join((struct.pack(">IBI", 5 + body, kind, number), *parts)))
        except _BREAKS as error:
            self._lose(error)
        self._waiting.add(number)
        return number

    def answer(self, number: int) -> tuple[int, paramiko.Message]:
        """Wait for an answer: its kind, and what it holds.

        Raises:
            Refused: the answer is a status other than OK.
        """
        try:
            while number not in self._arrived:
                kind, which, message = self._receive()
                if which not in self._waiting:
                    raise SFTPError("an answer that nobody asked for")
                self._arrived[which] = kind, message
        except _BREAKS as error:
            self._lose(error)
        self._waiting.discard(number)
        kind, message = self._arrived.pop(number)
        if kind == CMD_STATUS and (code := message.get_int()) != SFTP_OK:
            raise Refused(code, message.get_string().decode(errors="replace"))
        return kind, message

    def _receive(self) -> tuple[int, int, paramiko.Message]:
        """The next packet of the server: its kind, its number, and what it holds."""
        length, kind, number = struct.unpack(">IBI", self._take(9))
        if not 5 <= length <= _MOST_ANSWER:
            raise SFTPError(f"an answer of {length} bytes")
        return kind, number, paramiko.Message(self._take(length - 5))

    def _take(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._channel.recv(count)
            if not piece:
                raise paramiko.SSHException("it was closed")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def call(self, kind: int, *parts: bytes) -> tuple[int, paramiko.Message]:
        """Send a request and wait for its answer."""
        return self.answer(self.ask(kind, *parts))

    def drain(self) -> None:
        """Wait for all answers under way, whatever they say."""
        for number in sorted(self._waiting):
            try:
                self.answer(number)
            except Refused:
                continue

    def _lose(self, error: Exception) -> NoReturn:
        self._lost = True
        # A server that says nothing is a TimeoutError without a text.
        problem = str(error).lower() or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)
        raise StoreUnavailable(
            f"the connection to {self._name} broke: {problem}", hint="see whether the server is up, and its log"
        ) from error

    def close(self) -> None:
        """Close the connection, whatever is under way."""
        self._connection.close()


def connect(options: SftpOptions) -> Session:
    """Log in.

    Raises:
        StoreUnavailable: no server there, or it broke off: may pass.
        StorageError: its key is unknown or has changed, or it refuses the login.
    """
    client = paramiko.SSHClient()
    try:
        _log_in(client, options)
        return _open_session(client, options)
    except StorageError:
        client.close()
        raise
    except Exception as error:
        # paramiko raises whatever its parsers stumble over when bytes were altered on their way.
        client.close()
        raise _login_failure(error, options) from error


def _log_in(client: paramiko.SSHClient, options: SftpOptions) -> None:
    key = _login_key(options)
    _load_known_hosts(client, options)
    client.connect(
        options.host,
        options.port,
        options.user,
        pkey=key,
        sock=_dial(options),
        allow_agent=False,
        look_for_keys=False,
        transport_factory=_transport,
        timeout=options.login_timeout,
        banner_timeout=options.login_timeout,
        auth_timeout=options.login_timeout,
    )


def _login_key(options: SftpOptions) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(options.key)
    except (paramiko.PasswordRequiredException, TypeError) as error:  # What cryptography raises for it.
        hint = "make a key of its own for opsd: ssh-keygen -t ed25519 -N ''"
        raise StorageError(f"the key {options.key} needs a passphrase", hint=hint) from error
    except (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        hint = "name a private key that ssh-keygen made"
        problem = _problem(error, "it is no private key")
        raise StorageError(f"can't read the key {options.key}: {problem}", hint=hint) from error


def _load_known_hosts(client: paramiko.SSHClient, options: SftpOptions) -> None:
    client.set_missing_host_key_policy(_RefuseUnknown(options))
    try:
        client.load_host_keys(str(options.known_hosts))
    except (OSError, ValueError, paramiko.SSHException) as error:
        hint = f"make it: {_keyscan(options)}"
        problem = _problem(error, "it holds no host keys")
        raise StorageError(f"can't read {options.known_hosts}: {problem}", hint=hint) from error


def _problem(error: Exception, otherwise: str) -> str:
    """Why a file can't be read; what libraries say of its content is for developers."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else otherwise


def _dial(options: SftpOptions) -> socket.socket:
    connection = socket.create_connection((options.host, options.port), options.login_timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # tcp(7): else a server that vanished is noticed by whoever sends only after a quarter of an hour.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(options.timeout * 1000))
    return connection


def _transport(connection: Any, **more: Any) -> paramiko.Transport:
    transport = paramiko.Transport(connection, packetizer_class=FastPacketizer, **more)
    security = transport.get_security_options()
    security.ciphers = _CIPHERS
    security.digests = _MACS
    return transport


def _open_session(client: paramiko.SSHClient, options: SftpOptions) -> Session:
    transport = client.get_transport()
    if transport is None:
        raise EOFError("the connection was closed")
    channel = transport.open_session(max_packet_size=MOST_DATA, timeout=options.timeout)
    channel.settimeout(options.timeout)
    channel.in_buffer = Pipe()  # type: ignore[assignment] # Of paramiko's it has what a channel calls.
    try:
        channel.invoke_subsystem("sftp")
        return Session(client, channel, str(options))
    except (paramiko.SSHException, SFTPError) as error:
        if not transport.is_active():
            raise
        hint = "see 'Subsystem sftp' and 'ForceCommand' in the server's sshd_config(5)"
        raise StorageError(f"{options.host} offers {options.user} no SFTP", hint=hint) from error


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):
    """No key is trusted because a server shows it."""

    def __init__(self, options: SftpOptions) -> None:
        self._options = options

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise StorageError(
            f"the host key of {hostname} is unknown: {self._options.known_hosts} has none, and the server shows "
            f"{key.get_name()} {key.fingerprint}",
            hint=f"ask the server's administrator whether it is that one, then: {_keyscan(self._options)}",
        )


def _keyscan(options: SftpOptions) -> str:
    return f"ssh-keyscan -p {options.port} {options.host} >> {options.known_hosts}"


def _login_failure(error: Exception, options: SftpOptions) -> StorageError:
    """Which StorageError it is that no session came of it."""
    text = str(error).lower() or type(error).__name__
    if isinstance(error, paramiko.BadHostKeyException):
        place = options.host if options.port == 22 else f"'[{options.host}]:{options.port}'"
        return StorageError(
            f"the host key of {options.host} has changed: it shows {error.key.get_name()} {error.key.fingerprint}, and "
            f"{options.known_hosts} has {error.expected_key.get_name()} {error.expected_key.fingerprint}",
            hint="somebody may stand between: ask the server's administrator. If it has a new key: ssh-keygen -f "
            f"{options.known_hosts} -R {place}, then {_keyscan(options)}",
        )
    # paramiko calls it a failed authentication too when the connection breaks, or nothing comes, meanwhile.
    if isinstance(error, paramiko.AuthenticationException) and not ("eof" in text or "timeout" in text):
        hint = f"put the public part of {options.key} into {options.user}'s authorized_keys there; the server's log says more"
        return StorageError(f"{options.host} refuses {options.user} with the key {options.key}", hint=hint)
    return StoreUnavailable(
        f"can't reach {options.host} port {options.port}: {text}",
        hint="see whether the server is up and its name right",
    )
