"""A small TCP proxy that breaks connections where it is told: what a network does at the worst moment.

The next connection gets the next fault of `faults`; without one it is passed on untouched. What passed is counted, so that a
test can first let one connection live and then cut others at every place of it.
"""

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

_BLOCK = 1 << 16


class Way(StrEnum):
    """Whose bytes: the client's (up) or the server's (down)."""

    UP = "up"
    DOWN = "down"


class Harm(StrEnum):
    """CUT: both sides lose the connection; of the bytes that way none more arrive. FLIP: one bit arrives otherwise.

    HOLD: no byte that way arrives any more, and the connection stays open until the context ends.
    """

    CUT = "cut"
    FLIP = "flip"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens once `at` bytes have passed that way."""

    way: Way
    at: int
    harm: Harm = Harm.CUT


@dataclass(slots=True)
class Passed:
    """One connection: how many bytes went each way so far."""

    fault: Fault | None
    client: socket.socket
    server: socket.socket
    counts: dict[Way, int] = field(default_factory=lambda: {Way.UP: 0, Way.DOWN: 0})

    def pump(self, way: Way) -> None:
        """Pass bytes on one way until either side ends or the fault strikes."""
        source, target = (self.client, self.server) if way is Way.UP else (self.server, self.client)
        fault = self.fault if self.fault and self.fault.way is way else None
        with suppress(OSError):
            if fault and fault.harm is Harm.CUT and fault.at == 0:
                self.cut()
            while block := source.recv(_BLOCK):
                block, goes_on = self._harmed(block, way, fault)
                target.sendall(block)
                self.counts[way] += len(block)
                if not goes_on:
                    return
        self.cut()

    def _harmed(self, block: bytes, way: Way, fault: Fault | None) -> tuple[bytes, bool]:
        """What of a block arrives, and whether more may follow."""
        place = fault.at - self.counts[way] if fault else _BLOCK
        if fault is None or place >= len(block) or place < 0:
            return block, True
        if fault.harm is Harm.FLIP:
            return block[:place] + bytes([block[place] ^ 1]) + block[place + 1 :], True
        if fault.harm is Harm.CUT:
            # The piece before the place has to arrive, then the end.
            target = self.server if way is Way.UP else self.client
            with suppress(OSError):
                target.sendall(block[:place])
            self.cut()
            return b"", False
        return block[:place], False

    def cut(self) -> None:
        """End the connection for both sides."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self.client.close()
        self.server.close()


class Proxy:
    """Listens on a loopback port of its own and passes on to another."""

    def __init__(self, listener: socket.socket, target: int) -> None:
        self._listener = listener
        self._target = target
        self.port: int = listener.getsockname()[1]
        self.faults: deque[Fault] = deque()
        self.connections: list[Passed] = []
        self._threads: list[threading.Thread] = []

    def accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            passed = Passed(self.faults.popleft() if self.faults else None, client, server)
            self.connections.append(passed)
            for way in Way:
                self._start(passed, way)

    def _start(self, passed: Passed, way: Way) -> None:
        thread = threading.Thread(target=passed.pump, args=(way,))
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        for passed in self.connections:
            passed.cut()
        for thread in self._threads:
            thread.join()
        for passed in self.connections:
            passed.close()


@contextmanager
def running_proxy(target: int) -> Iterator[Proxy]:
    """A proxy for the time of the context, to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        proxy = Proxy(listener, target)
        accepting = threading.Thread(target=proxy.accept)
        accepting.start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            proxy.close()
