"""The packets of SSH under AES-GCM, and the bytes of a channel, with as few copies and calls as a transfer can have.

Promise: what goes over the wire is what paramiko would send and take (RFC 4253, section 6; RFC 5647; OpenSSH's PROTOCOL,
section 1.6). paramiko copies each byte a dozen times on its way, which took more time than all else in a transfer. It lets others
stand in for its packetizer and for a channel's buffer; whatever is not AES-GCM stays with it.
"""

import os
import threading
from collections import deque
from typing import Any

import paramiko
from paramiko.buffered_pipe import PipeTimeout
from paramiko.common import MSG_CHANNEL_DATA
from paramiko.packet import NeedRekeyException, Packetizer

_LENGTH = 4
_TAG = 16
_BLOCK = 16
#: RFC 4253, section 6: at least so much, and a byte that says how much.
_LEAST_PADDING = 4
#: OpenSSH's PACKET_MAX_SIZE: no packet of its is longer.
_MOST_PACKET = 256 << 10
#: What we let the server put into one packet; paramiko asks for 32 KiB.
MOST_DATA = 128 << 10
#: Random bytes for padding that are held.
_NOISE = 16 << 10
#: Length, kind, channel, padding and tag of a packet are shorter.
_MOST_AROUND = 64
_BUFFER = 2 * (_MOST_PACKET + _MOST_AROUND)


class _Direction:
    """One way of a connection: the key, the nonce, which counts packets, and the bytes under this key."""

    def __init__(self, cipher: Any, nonce: bytes) -> None:
        self.cipher = cipher
        self._fixed = nonce[:4]
        self._count = int.from_bytes(nonce[4:])
        self.bytes = 0

    def nonce(self) -> bytes:
        """That of the next packet (RFC 5647, section 7.1)."""
        nonce = self._fixed + self._count.to_bytes(8)
        self._count = (self._count + 1) % (1 << 64)
        return nonce


class Burst:
    """Data for a channel, in as many packets as the server's limit makes of it."""

    def __init__(self, channel: int, pieces: list[memoryview]) -> None:
        self._head = bytes([MSG_CHANNEL_DATA]) + channel.to_bytes(4)
        self._pieces = pieces

    def parts(self) -> tuple[bytes, list[memoryview]]:
        """What every packet begins with, before the length of its piece; and the pieces."""
        return self._head, self._pieces

    def messages(self) -> list[paramiko.Message]:
        """The same as paramiko's messages."""
        return [paramiko.Message(self._head + len(piece).to_bytes(4) + piece) for piece in self._pieces]


def send_all(channel: Any, data: bytes) -> None:
    """Send all data, as the server's window opens. Raises SSHException if the channel is closed, OSError if nothing happens for long."""
    rest = memoryview(data)
    while rest:
        pieces: list[memoryview] = []
        with channel.lock:
            while rest and (not pieces or channel.out_window_size):
                size = channel._wait_for_send_window(len(rest))  # noqa: SLF001 - the only way to the window
                if not size:
                    raise paramiko.SSHException("it was closed")
                pieces.append(rest[:size])
                rest = rest[size:]
        channel.transport._send_user_message(Burst(channel.remote_chanid, pieces))  # noqa: SLF001 - as above


class FastPacketizer(Packetizer):
    """paramiko's packetizer, for a client, with a way of its own once both sides speak AES-GCM."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._connection = connection
        self._out: _Direction | None = None
        self._in: _Direction | None = None
        self._sending = threading.Lock()
        self._noise = memoryview(b"")
        self._plain = bytearray(_MOST_PACKET)
        self._sealed = bytearray(_BUFFER)
        self._received = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0

    def set_outbound_cipher(self, block_engine: Any, *rest: Any, **named: Any) -> None:
        """The key of what is sent from now on."""
        super().set_outbound_cipher(block_engine, *rest, **named)
        self._out = _Direction(block_engine, named["iv_out"]) if named.get("aead") else None

    def set_inbound_cipher(self, block_engine: Any, *rest: Any, **named: Any) -> None:
        """The key of what comes from now on."""
        super().set_inbound_cipher(block_engine, *rest, **named)
        if not named.get("aead") and self._start < self._end:
            raise paramiko.SSHException("the server went back to another cipher")
        self._in = _Direction(block_engine, named["iv_in"]) if named.get("aead") else None

    def send_message(self, data: "paramiko.Message | Burst") -> None:
        """Send a packet, or several."""
        if self._out is None:
            for message in data.messages() if isinstance(data, Burst) else [data]:
                super().send_message(message)
            return
        head, bodies = data.parts() if isinstance(data, Burst) else (b"", [memoryview(data.asbytes())])
        with self._sending:
            filled = 0
            for body in bodies:
                if filled + len(body) + _MOST_AROUND > len(self._sealed):
                    filled = self._flush(self._out, filled)
                filled += self._seal(self._out, head, body, memoryview(self._sealed)[filled:])
            self._flush(self._out, filled)

    def _flush(self, way: _Direction, filled: int) -> int:
        self.write_all(memoryview(self._sealed)[:filled])
        self._count(way, filled)
        return 0

    def _seal(self, way: _Direction, head: bytes, body: memoryview, sealed: memoryview) -> int:
        """Make a packet; how long it is."""
        if head:
            head += len(body).to_bytes(4)
        filled = 1 + len(head) + len(body)
        padding = _LEAST_PADDING + -(filled + _LEAST_PADDING) % _BLOCK
        length = filled + padding
        plain = memoryview(self._plain)[:length]
        plain[0] = padding
        plain[1 : 1 + len(head)] = head
        plain[1 + len(head) : filled] = body
        plain[filled:] = self._padding(padding)
        associated = length.to_bytes(_LENGTH)
        sealed[:_LENGTH] = associated
        end = _LENGTH + length + _TAG
        way.cipher.encrypt_into(way.nonce(), plain, associated, sealed[_LENGTH:end])
        return end

    def _padding(self, count: int) -> memoryview:
        """Random bytes, asked of the system for many packets at once: each time lets other threads go first."""
        if len(self._noise) < count:
            self._noise = memoryview(os.urandom(_NOISE))
        taken, self._noise = self._noise[:count], self._noise[count:]
        return taken

    def read_message(self) -> tuple[int, paramiko.Message]:
        """The next packet: its kind, and what it holds."""
        if self._in is None:
            kind, message = super().read_message()
            return kind, message
        self._await(_LENGTH, at_start=True)
        length = int.from_bytes(self._received[self._start : self._start + _LENGTH])
        if length > _MOST_PACKET or length % _BLOCK or not length:
            raise paramiko.SSHException(f"the server sent a packet of {length} bytes")
        whole = _LENGTH + length + _TAG
        self._await(whole)
        packet = self._received[self._start : self._start + whole]
        plain = self._in.cipher.decrypt(self._in.nonce(), packet[_LENGTH:], bytes(packet[:_LENGTH]))
        self._start += whole
        self._count(self._in, whole)
        if not _LEAST_PADDING <= plain[0] < length - 1:
            raise paramiko.SSHException(f"the server sent a packet with {plain[0]} bytes of padding")
        message = paramiko.Message(plain[2 : length - plain[0]])
        message.seqno = 0  # AES-GCM counts for itself; only an answer to what nobody understands would name it.
        return plain[1], message

    def _await(self, count: int, *, at_start: bool = False) -> None:
        """Receive until so many bytes are there."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + count > len(self._received):
            rest = self._end - self._start
            self._received[:rest] = bytes(self._received[self._start : self._end])
            self._start, self._end = 0, rest
        while self._end - self._start < count:
            got = self._receive()
            self._end += got
            if not got and at_start and self._start == self._end and self.need_rekey():
                raise NeedRekeyException

    def _receive(self) -> int:
        """How many bytes came; none if there were none in the tenth of a second that paramiko lets its socket wait."""
        try:
            got: int = self._connection.recv_into(self._received[self._end :])
        except OSError as error:
            if self.closed or self.handshake_timed_out():
                raise EOFError from None
            if isinstance(error, TimeoutError):
                return 0
            raise
        if not got:
            raise EOFError
        return got

    def _count(self, way: _Direction, count: int) -> None:
        way.bytes += count
        if way.bytes > 2 * self.REKEY_BYTES:  # As paramiko: asked for once, and so much more is let through.
            raise paramiko.SSHException("the server does not change keys")
        if way.bytes > self.REKEY_BYTES and not self.need_rekey():
            self._trigger_rekey()  # type: ignore[attr-defined]


class Pipe:
    """Bytes that one thread brings and another takes away: stands in for paramiko's, which moves all that wait at each reading."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._length = 0
        self._closed = False
        self._changed = threading.Condition(threading.Lock())

    def __len__(self) -> int:
        return self._length

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        with self._changed:
            self._pieces.append(memoryview(data))
            self._length += len(data)
            self._changed.notify()

    def read(self, count: int, timeout: float | None = None) -> memoryview | bytes:
        """What is there, at most so much; waits for the first byte, and is empty once the pipe is closed.

        Raises PipeTimeout if none came in `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._pieces or self._closed, timeout):
                raise PipeTimeout
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            self._length -= len(piece)
            return piece

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
