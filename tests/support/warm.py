"""opsd in a process of its own without the cost of its start: forked from one that has imported all of opsd and done nothing but make
passphrases cheap (tests.support.passphrases).

Promise: the command sees its own arguments, environment, folder and pipes, starts with nothing left from another, and ends as a program
does. What the interpreter reads when it starts (PYTHON…, LANG, LC_…) stays as it was when this module was first used.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.passphrases import make_passphrases_cheap

ROOT = Path(__file__).parents[2]
_LONGEST_REQUEST = 1 << 17
#: The exit code of a command that came to its end.
_ended: list[int] = []


def run(
    arguments: Sequence[str], folder: Path, variables: Mapping[str, str], given: bytes, seconds: float
) -> tuple[int, bytes, bytes]:
    """Run `opsd ARGUMENTS`; returns its exit code (negative: ended by that signal) and what it wrote to stdout and stderr.

    Raises TimeoutError, with the command killed, where it lasts longer than `seconds`.
    """
    request = json.dumps({"arguments": arguments, "folder": str(folder), "variables": dict(variables)}).encode()
    (stdin, feed), (output, stdout), (errors, stderr) = os.pipe(), os.pipe(), os.pipe()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, os.fdopen(feed, "wb") as feeding, os.fdopen(output, "rb") as out, os.fdopen(errors, "rb") as err:
        passed = [stdin, stdout, stderr]
        socket.send_fds(_door(), [request], [*passed, there.fileno()])
        for descriptor in passed:
            os.close(descriptor)
        there.close()
        process = int(here.recv(32))
        feeding.write(given)
        feeding.close()
        written, complained = _read_all([out.fileno(), err.fileno()], process, seconds)
        return int(here.recv(32)), written, complained


def _read_all(pipes: list[int], process: int, seconds: float) -> list[bytes]:
    parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                os.kill(process, signal.SIGKILL)
                raise TimeoutError
            for key, _ in ready:
                if part := os.read(key.fd, 1 << 20):
                    parts[key.fd].append(part)
                else:
                    selector.unregister(key.fd)
    return [b"".join(parts[pipe]) for pipe in pipes]


@cache
def _door() -> socket.socket:
    """Where the warm process takes requests; it is started once, and ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm", str(there.fileno())],
        cwd="/",
        env={**kept, "PYTHONPATH": str(ROOT), "TZ": "UTC"},
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    there.close()

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def _serve(door: socket.socket) -> dict[str, Any]:
    """Answer requests; returns only in a process that is to carry one out."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, _LONGEST_REQUEST, 4)
        if not message:
            os._exit(0)
        if not os.fork():
            door.close()
            request: dict[str, Any] = json.loads(message)
            _attend(descriptors)
            return request
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _attend(descriptors: list[int]) -> None:
    """Returns in a new process with these as stdin, stdout and stderr; the one that calls tells the last how that ends."""
    *passed, last = descriptors
    child = os.fork()
    if child:
        for descriptor in passed:
            os.close(descriptor)
        with socket.socket(fileno=last) as reply:
            reply.send(str(child).encode())
            reply.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    for place, descriptor in enumerate(passed):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.close(last)


def _carry_out(request: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(request["variables"])
    time.tzset()
    os.chdir(request["folder"])
    tempfile.tempdir = None
    sys.argv = ["opsd", *request["arguments"]]
    try:
        importlib.import_module("opsd.cli.main").main()
    except SystemExit as ending:
        if isinstance(ending.code, int):
            _ended.append(ending.code)
        raise


def _leave() -> None:
    """Called last of all that runs at an exit. What is left would take every module apart, and copy the memory that they share with the
    process that this one was forked from: three quarters of what a short command took."""
    if _ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_ended[0])


def _import_all() -> None:
    package = importlib.import_module("opsd")
    for module in pkgutil.walk_packages(package.__path__, "opsd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    make_passphrases_cheap()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    atexit.register(_leave)  # The first to be registered is the last to be called.
    _import_all()
    _carry_out(_serve(socket.socket(fileno=int(sys.argv[1]))))
