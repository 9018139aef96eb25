"""SSH packets of our own way against paramiko's, and real servers that change keys or know no AES-GCM."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import paramiko
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.buffered_pipe import PipeTimeout
from paramiko.packet import NeedRekeyException, Packetizer

from opsd.storage.sftp import SftpStore
from opsd.storage.sftp_packets import Burst, FastPacketizer, Pipe
from tests.support.sshd import running_server

KEY = bytes(range(16))
#: The counter in it is about to reach another byte.
NONCE = b"\x01\x02\x03\x04" + bytes(7) + b"\xf0"
#: Around each multiple of the cipher's block, and what a transfer sends.
SIZES = [*range(1, 70), 32_768, 130_000, 200_000]


def armed(packetizer: Packetizer) -> Packetizer:
    """With the key in use, both ways."""
    named = {"block_size": 16, "mac_engine": None, "mac_size": 16, "mac_key": None, "aead": True}
    packetizer.set_outbound_cipher(AESGCM(KEY), iv_out=NONCE, **named)  # type: ignore[arg-type]
    packetizer.set_inbound_cipher(AESGCM(KEY), iv_in=NONCE, **named)  # type: ignore[arg-type]
    return packetizer


class Ends:
    """Two who speak to each other."""

    def __init__(self, ours: type[Packetizer] = FastPacketizer, theirs: type[Packetizer] = Packetizer) -> None:
        self.sockets = socket.socketpair()
        for each in self.sockets:
            each.settimeout(0.1)
        self.ours, self.theirs = armed(ours(self.sockets[0])), armed(theirs(self.sockets[1]))


@pytest.fixture
def connect() -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def connected(**types: type[Packetizer]) -> Ends:
        made.append(Ends(**types))
        return made[-1]

    yield connected
    for ends in made:
        for each in ends.sockets:
            each.close()


def exchanged(sender: Packetizer, reader: Packetizer, payloads: list[bytes]) -> list[bytes]:
    """What the reader gets, whole, when the sender sends these."""

    def send() -> None:
        for payload in payloads:
            sender.send_message(paramiko.Message(payload))

    thread = threading.Thread(target=send)
    thread.start()
    got = [reader.read_message() for _ in payloads]
    thread.join()
    return [bytes([kind]) + message.asbytes() for kind, message in got]


def test_paramiko_reads_what_is_sent_and_the_other_way_round(connect: Callable[..., Ends]) -> None:
    ends = connect()
    payloads = [os.urandom(size) for size in SIZES]
    assert exchanged(ends.ours, ends.theirs, payloads) == payloads
    assert exchanged(ends.theirs, ends.ours, payloads) == payloads


class Tape:
    """A connection whose other end has sent all long ago."""

    def __init__(self) -> None:
        self.content = b""

    def send(self, data: memoryview) -> int:
        self.content += data
        return len(data)

    def recv_into(self, buffer: memoryview) -> int:
        got = min(len(buffer), len(self.content))
        buffer[:got], self.content = self.content[:got], self.content[got:]
        return got


def test_packets_that_came_faster_than_they_are_read_stay_whole() -> None:
    tape = Tape()
    payloads = [os.urandom(size) for size in range(60_000, 60_030)]
    writer, reader = armed(FastPacketizer(tape)), armed(FastPacketizer(tape))
    for payload in payloads:
        writer.send_message(paramiko.Message(payload))
    for payload in payloads:
        kind, message = reader.read_message()
        assert bytes([kind]) + message.asbytes() == payload


def test_a_burst_is_the_packets_that_paramiko_makes_of_its_messages(connect: Callable[..., Ends]) -> None:
    ends = connect()
    pieces = [os.urandom(size) for size in (1, 30_000, 32_704, 7, 200_000, 200_000, 200_000)]
    burst = Burst(5, [memoryview(piece) for piece in pieces])
    thread = threading.Thread(target=lambda: ends.ours.send_message(burst))  # type: ignore[arg-type]
    thread.start()
    for piece in pieces:
        kind, message = ends.theirs.read_message()
        assert (kind, message.get_int(), message.get_string()) == (94, 5, piece)
    thread.join()


def test_a_bit_that_changed_anywhere_in_a_packet_delivers_nothing(connect: Callable[..., Ends]) -> None:
    for place in range(52):  # Length, 32 bytes, tag.
        ends = connect()
        ends.theirs.send_message(paramiko.Message(b"twenty bytes of words"))
        packet = bytearray(ends.sockets[0].recv(1000))
        assert len(packet) == 52
        packet[place] ^= 0x10
        ends.sockets[1].sendall(packet)
        ends.sockets[1].close()
        with pytest.raises((InvalidTag, paramiko.SSHException, EOFError)):
            ends.ours.read_message()


@pytest.mark.parametrize(("length", "padding"), [(0, 4), (24, 4), (1 << 19, 4), (32, 3), (32, 31)])
def test_a_packet_that_no_server_makes_is_refused(connect: Callable[..., Ends], length: int, padding: int) -> None:
    ends = connect()
    head = length.to_bytes(4)
    ends.sockets[1].sendall(head + AESGCM(KEY).encrypt(NONCE, bytes([padding]) + bytes(31), head))
    with pytest.raises(paramiko.SSHException, match="the server sent a packet"):
        ends.ours.read_message()


def test_what_was_read_ahead_under_a_key_is_not_taken_for_plain_text(connect: Callable[..., Ends]) -> None:
    ends = connect()
    for _ in range(2):
        ends.theirs.send_message(paramiko.Message(b"two packets that come at once"))
    ends.ours.read_message()
    with pytest.raises(paramiko.SSHException, match="another cipher"):
        ends.ours.set_inbound_cipher(None, 8, None, 0, b"")  # type: ignore[arg-type]


class Impatient(FastPacketizer):
    """Wants new keys soon."""

    REKEY_BYTES = 1000


def test_new_keys_are_asked_for_in_time_and_a_server_that_gives_none_is_left(connect: Callable[..., Ends]) -> None:
    ends = connect(ours=Impatient, theirs=FastPacketizer)
    exchanged(ends.ours, ends.theirs, [bytes(900)])
    assert not ends.ours.need_rekey()
    exchanged(ends.ours, ends.theirs, [bytes(100)])
    assert ends.ours.need_rekey()
    with pytest.raises(NeedRekeyException):
        ends.ours.read_message()
    with pytest.raises(paramiko.SSHException, match="does not change keys"):
        ends.ours.send_message(paramiko.Message(bytes(1500)))
    armed(ends.ours)
    assert not ends.ours.need_rekey()


@pytest.mark.parametrize("line", ["RekeyLimit 1M", "Ciphers aes256-ctr"])
def test_objects_pass_whole_while_keys_change_and_without_gcm(tmp_path: Path, line: str) -> None:
    content = os.urandom(6 << 20)
    with running_server(line + "\n") as server, closing(SftpStore.create(server.options(tmp_path / "store"))) as store:
        name = "packs/ab/" + "c" * 64
        store.put(name, content)
        assert store.read(name) == content
    assert (tmp_path / "store" / name).read_bytes() == content


def test_a_pipe_gives_what_it_got_in_order_and_an_end() -> None:
    pipe = Pipe()
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.01)
    pipe.feed(b"hello ")
    pipe.feed(b"world")
    assert len(pipe) == 11
    assert [bytes(pipe.read(4)), bytes(pipe.read(9)), len(pipe)] == [b"hell", b"o ", 5]
    reading = threading.Timer(0.01, pipe.close)
    reading.start()
    assert [bytes(pipe.read(9)), pipe.read(9)] == [b"world", b""]
    reading.join()
