"""A program's output as a source."""

import os

import pytest

from opsd.errors import SourceError
from opsd.sources.command import CommandOutput
from opsd.sources.options import CommandSource
from opsd.sources.protocol import Readable, Stream


def only_stream(options: CommandSource) -> Stream:
    with CommandOutput("mail", options).streams() as streams:
        (stream,) = streams
    return stream


def read_all(reader: Readable) -> int:
    size = 0
    buffer = memoryview(bytearray(1024 * 1024))
    while count := reader.readinto(buffer):
        size += count
    return size


def test_the_output_is_one_stream_under_its_name() -> None:
    stream = only_stream(CommandSource(run=("printf", "all of it"), name="mail.mbox"))
    buffer = memoryview(bytearray(100))
    with stream.open() as reader:
        count = reader.readinto(buffer)
    assert (stream.path, bytes(buffer[:count]), stream.mode) == (b"/mail.mbox", b"all of it", 0o600)


def test_a_name_that_is_no_utf8_stays_as_it_is() -> None:
    assert only_stream(CommandSource(run=("true",), name=os.fsdecode(b"caf\xe9"))).path == b"/caf\xe9"


def test_nothing_runs_before_the_stream_is_opened() -> None:
    only_stream(CommandSource(run=("/no/such/program",), name="x"))


def test_a_long_output_is_passed_on_without_being_gathered() -> None:
    stream = only_stream(CommandSource(run=("head", "-c", "50000000", "/dev/zero"), name="x"))
    with stream.open() as reader:
        assert read_all(reader) == 50_000_000


def test_a_program_that_fails_fails_its_source_with_its_words() -> None:
    stream = only_stream(CommandSource(run=("sh", "-c", "echo part; echo 'mail store is gone' >&2; exit 4"), name="x"))
    with (
        pytest.raises(SourceError, match=r"source mail: sh exited with 4: mail store is gone") as caught,
        stream.open() as reader,
    ):
        read_all(reader)
    assert caught.value.hint
    assert caught.value.label == "mail"


def test_a_program_that_is_missing_fails_its_source() -> None:
    stream = only_stream(CommandSource(run=("/no/such/program",), name="x"))
    with pytest.raises(SourceError, match="there is no program"), stream.open():
        pass


def test_a_program_over_its_limit_fails_its_source() -> None:
    stream = only_stream(CommandSource(run=("sleep", "600"), name="x", timeout=0.2))
    with pytest.raises(SourceError, match="ran longer than its limit"), stream.open() as reader:
        read_all(reader)


def test_an_output_that_was_not_read_whole_fails_its_source() -> None:
    stream = only_stream(CommandSource(run=("yes",), name="x"))
    with pytest.raises(SourceError, match="not read to its end"), stream.open() as reader:
        reader.readinto(memoryview(bytearray(10)))


def test_an_error_of_whoever_reads_is_not_blamed_on_the_program() -> None:
    stream = only_stream(CommandSource(run=("yes",), name="x"))
    with pytest.raises(ZeroDivisionError), stream.open():
        raise ZeroDivisionError
