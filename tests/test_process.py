"""Programs: run whole or streamed, and stopped with all that they started."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd import process
from opsd.errors import ProgramFailed
from tests.support.descriptors import settled_descriptors

PYTHON = [sys.executable, "-c"]


def read_all(reader: process.Output) -> bytes:
    whole = bytearray()
    buffer = memoryview(bytearray(70_000))
    while count := reader.readinto(buffer):
        whole += buffer[:count]
    return bytes(whole)


def interrupted_while_reading(reader: process.Output) -> None:
    assert reader.readinto(memoryview(bytearray(1))) == 1
    os.kill(os.getpid(), signal.SIGINT)
    read_all(reader)


class Witness:
    """A pipe whose writing end only the programs under test hold: its end tells that all of them are gone."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.writing}"

    def all_gone(self) -> bool:
        os.close(self.writing)
        ready, _, _ = select.select([self.reading], [], [], 10)
        gone = bool(ready) and not os.read(self.reading, 1)
        os.close(self.reading)
        return gone


def test_a_program_that_ends_gives_its_code_output_and_errors() -> None:
    done = process.run([*PYTHON, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], timeout=60)
    assert (done.status, done.output, done.error_text) == (3, b"out\n", b"err\n")


def test_input_larger_than_a_pipe_reaches_the_program_and_comes_back() -> None:
    given = bytes(range(256)) * 4096
    assert process.run(["cat"], timeout=60, given=given).output == given


def test_a_program_that_ignores_its_input_does_no_harm() -> None:
    assert process.run(["true"], timeout=60, given=bytes(1_000_000)).status == 0


def test_a_given_environment_replaces_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SECRET", "1")
    assert process.run(["/usr/bin/env"], timeout=60, environment={"ONLY": "this"}).output == b"ONLY=this\n"


def test_a_shell_never_sees_the_arguments(tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert process.run(["echo", f"; touch {target}"], timeout=60).output == f"; touch {target}\n".encode()
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "text"), [("no-such-program-here", "there is no program no-such"), ("/etc/passwd", "may not be run")]
)
def test_a_program_that_can_not_be_started_is_named_with_a_hint(name: str, text: str) -> None:
    with pytest.raises(ProgramFailed, match=text) as caught:
        process.run([name], timeout=60)
    assert caught.value.hint


def test_more_output_than_a_short_program_may_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_BYTES", 1024 * 1024)
    with pytest.raises(ProgramFailed, match="wrote more than 1 MiB"):
        process.run(["yes"], timeout=60)


def test_a_program_over_its_limit_is_stopped_with_its_children() -> None:
    witness = Witness()
    script = f"exec 9>{witness.path()}; sleep 600 & echo waiting >&2; wait"
    with pytest.raises(ProgramFailed, match=r"ran longer than its limit of 0\.5 s and was stopped: waiting"):
        process.run(["sh", "-c", script], timeout=0.5)
    assert witness.all_gone()


def test_a_program_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    witness = Witness()
    script = f"trap '' TERM; exec 9>{witness.path()}; echo; while :; do sleep 600; done"
    with pytest.raises(ProgramFailed, match="not read to its end"), process.stream(["sh", "-c", f"{script}"]):
        pass
    assert witness.all_gone()


def test_a_stream_gives_all_bytes_of_a_long_output() -> None:
    with process.stream(["head", "-c", "5000000", "/dev/zero"]) as reader:
        assert read_all(reader) == bytes(5_000_000)


def test_a_stream_whose_size_is_known_need_not_be_read_past_its_last_byte() -> None:
    with process.stream(["printf", "abc"]) as reader:
        buffer = memoryview(bytearray(3))
        assert reader.readinto(buffer) == 3


def test_a_failed_program_fails_its_stream_with_its_last_lines() -> None:
    script = "import sys; print('part'); [print('line', n, file=sys.stderr) for n in range(100_000)]; sys.exit(7)"
    with pytest.raises(ProgramFailed) as caught, process.stream([*PYTHON, script]) as reader:
        assert read_all(reader) == b"part\n"
    assert "exited with 7: line 99992; line 99993" in str(caught.value)
    assert str(caught.value).endswith("line 99999")


def test_a_killed_program_fails_its_stream_with_the_signals_name() -> None:
    script = "import os; print('part', flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(ProgramFailed, match="was ended by SIGKILL"), process.stream([*PYTHON, script]) as reader:
        read_all(reader)


def test_leaving_early_stops_the_program_with_its_children_and_fails() -> None:
    witness = Witness()
    script = f"exec 9>{witness.path()}; yes & yes"
    with pytest.raises(ProgramFailed, match="not read to its end"), process.stream(["sh", "-c", script]) as reader:
        assert reader.readinto(memoryview(bytearray(10))) > 0
    assert witness.all_gone()


def test_an_error_of_the_reader_stops_the_program_and_stays_the_error() -> None:
    witness = Witness()
    with pytest.raises(ZeroDivisionError), process.stream(["sh", "-c", f"exec 9>{witness.path()}; sleep 600"]):
        raise ZeroDivisionError
    assert witness.all_gone()


def test_an_interrupt_stops_the_program() -> None:
    witness = Witness()
    with (
        pytest.raises(KeyboardInterrupt),
        process.stream(["sh", "-c", f"exec 9>{witness.path()}; echo; sleep 600"]) as reader,
    ):
        interrupted_while_reading(reader)
    assert witness.all_gone()


def test_a_stream_over_its_limit_says_so() -> None:
    with (
        pytest.raises(ProgramFailed, match="ran longer than its limit"),
        process.stream(["sleep", "600"], timeout=0.2) as reader,
    ):
        read_all(reader)


def test_nothing_is_left_behind_by_many_streams() -> None:
    threads, open_before = threading.active_count(), len(settled_descriptors())
    for _ in range(20):
        with process.stream(["cat"], timeout=60, given=b"x") as reader:
            assert read_all(reader) == b"x"
    assert len(os.listdir("/proc/self/fd")) <= open_before
    assert threading.active_count() <= threads


def test_a_child_in_the_background_that_keeps_the_pipes_open_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 600)
    threads, open_before = threading.active_count(), len(settled_descriptors())
    script = "exec 3<&0; sleep 600 <&3 >/dev/null & echo $!"
    with process.stream(["sh", "-c", script], given=bytes(1_000_000)) as reader:
        child = int(read_all(reader))
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert threading.active_count() == threads
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("background", ["sleep 600", "while :; do echo x; sleep 0.05; done"])
def test_a_child_in_the_background_holds_up_no_short_program(background: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    done = process.run(["sh", "-c", f"({background}) & echo $!; exit 3"], timeout=60)
    child = next(each for each in done.output.split() if each != b"x")  # Either of the two may write first.
    os.kill(int(child), signal.SIGKILL)
    assert done.status == 3


def test_a_program_is_fed_piece_by_piece_and_its_failure_is_told(tmp_path: Path) -> None:
    target = tmp_path / "fed"
    pieces: list[bytes | memoryview] = [b"one ", memoryview(b"two "), b"x" * 300_000]
    done = process.feed(["sh", "-c", f"echo fine >&2; cat > {target}"], pieces)
    assert (done.status, done.error_text) == (0, b"fine\n")
    assert target.read_bytes() == b"one two " + b"x" * 300_000
    done = process.feed(["sh", "-c", "cat > /dev/null; echo no luck >&2; exit 3"], pieces)
    assert (done.status, done.error_text) == (3, b"no luck\n")


def test_a_program_that_reads_no_more_is_fed_no_more() -> None:
    assert process.feed(["true"], (b"x" * 65536 for _ in range(100))).status == 0


def test_what_a_program_writes_is_read_while_it_is_fed() -> None:
    assert process.feed(["cat"], (b"x" * 65536 for _ in range(100))).output == b"x" * 6_553_600


def test_a_program_that_writes_too_much_while_it_is_fed_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_BYTES", 1000)
    with pytest.raises(ProgramFailed, match="wrote more than"):
        process.feed(["cat"], (b"x" * 65536 for _ in range(100)))


def test_input_that_can_not_be_had_stops_the_program() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise LookupError

    with pytest.raises(LookupError):
        process.feed(["sh", "-c", "cat; sleep 100"], broken())
