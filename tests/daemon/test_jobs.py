"""Jobs as child processes: whatever they do, whoever runs them goes on and learns how they ended."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from opsd.control import TAIL_BYTES, Ended
from opsd.daemon.jobs import Job, Limits, run_job


@dataclass(frozen=True, slots=True, kw_only=True)
class Script(Job):
    """A job that is a script of Python rather than a command of opsd."""

    script: str = ""

    def arguments(self) -> list[str]:
        return [sys.executable, "-c", self.script]


def ended(
    script: str,
    *,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    on_alive: Callable[[int], None] | None = None,
) -> Ended:
    job = Script(verb=(), script=script, limits=limits or Limits())
    return run_job(job, on_alive or (lambda _: None), stop or threading.Event())


def test_a_command_of_opsd_runs_and_its_code_and_words_come_back(tmp_path: Path) -> None:
    job = Job(verb=("config", "validate"), configuration=str(tmp_path / "none.yaml"))
    done = run_job(job, lambda _: None, threading.Event())
    assert done.exit_code == 2
    assert "none.yaml" in done.tail


def test_a_job_that_floods_its_output_leaves_only_the_end_of_it() -> None:
    done = ended("import os\nfor _ in range(400): os.write(1, b'x' * 100_000)\nos.write(2, b'the end')")
    assert done.exit_code == 0
    assert len(done.tail) == TAIL_BYTES
    assert done.tail.endswith("the end")


def test_a_job_that_takes_more_memory_than_its_limit_fails_and_nobody_else() -> None:
    done = ended("b = bytearray(300 << 20)", limits=Limits(memory=128 << 20))
    assert done.exit_code == 1
    assert "MemoryError" in done.tail


def test_a_job_is_nicer_than_whoever_runs_it() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    done = ended("import sys, os; sys.stdout.write(str(os.getpriority(os.PRIO_PROCESS, 0)))", limits=Limits(nice=17))
    assert int(done.tail) == max(17, own)


def test_whoever_runs_it_hears_its_process_id_at_once() -> None:
    heard: list[int] = []
    done = ended("import os; print(os.getpid())", on_alive=heard.append)
    assert heard == [int(done.tail)]


POLITE = """
import signal, sys, os
def stop(number, frame):
    print("at a safe point", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
os.write({descriptor}, b"!")
while True: signal.pause()
"""
DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
witness = os.open({witness!r}, os.O_WRONLY)
os.fork()
while True: signal.pause()
"""


def test_a_wish_to_stop_lets_it_end_at_a_safe_point(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    descriptor = os.open(ready, os.O_RDWR)
    stop = threading.Event()

    def stop_once_it_is_ready() -> None:
        os.read(descriptor, 1)
        stop.set()

    waiting = threading.Thread(target=stop_once_it_is_ready)
    waiting.start()
    script = POLITE.replace("{descriptor}", f"os.open({str(ready)!r}, os.O_WRONLY)")
    done = ended(script, stop=stop)
    waiting.join()
    os.close(descriptor)
    assert (done.exit_code, done.tail) == (143, "at a safe point\n")


def test_one_that_hangs_is_killed_after_its_time_with_all_its_group(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    os.mkfifo(witness)
    reading = os.open(witness, os.O_RDONLY | os.O_NONBLOCK)
    done = ended(DEAF.format(witness=str(witness)), limits=Limits(seconds=0.5, grace=0.1))
    assert done.exit_code == -signal.SIGKILL
    assert "longer than its limit of 0.5 s" in done.tail
    ready, _, _ = select.select([reading], [], [], 10)
    assert ready, "somebody holds the other end"
    os.close(reading)


def test_one_that_leaves_a_child_with_its_output_is_not_waited_for() -> None:
    script = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.alarm(20)\n    signal.pause()\nprint('done', flush=True)"
    done = ended(script)
    assert (done.exit_code, done.tail) == (0, "done\n")
    assert done.seconds < 15
