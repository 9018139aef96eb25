"""The log: a real datagram socket hears what the journal would."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from opsd.daemon import journal


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        journal.configure(tmp_path / "journal")
        yield receiver
        structlog.reset_defaults()


def fields(datagram: bytes) -> dict[str, str]:
    """What the journal would keep (systemd.io, Native Journal Protocol)."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + length], datagram[9 + length :]
        found[key.decode()] = value.decode()
    return found


def test_an_event_is_one_entry_with_its_fields(heard: socket.socket) -> None:
    log = structlog.get_logger().bind(opsd_run="r1", opsd_job="backup", opsd_source=None)
    log.error("the disk is full", hint="make room", exit_code=1)
    found = fields(heard.recv(65536))
    assert found.pop("SYSLOG_PID")
    assert found == {
        "MESSAGE": "backup: the disk is full (exit code 1); make room",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "opsd",
        "OPSD_RUN": "r1",
        "OPSD_JOB": "backup",
        "OPSD_HINT": "make room",
        "OPSD_EXIT_CODE": "1",
    }


def test_a_value_of_several_lines_or_without_end_is_kept_as_far_as_there_is_room(heard: socket.socket) -> None:
    structlog.get_logger().info("one\ntwo\0", text="x" * 1_000_000)
    found = fields(heard.recv(1_000_000))
    assert found["MESSAGE"].startswith("one\ntwo\0 (text xxx")
    assert len(found["OPSD_TEXT"]) == 32 * 1024


def test_an_error_brings_where_it_came_from(heard: socket.socket) -> None:
    try:
        raise ZeroDivisionError("no")  # noqa: TRY301 - it is what is told of
    except ZeroDivisionError:
        structlog.get_logger().exception("a tick failed")
    assert "ZeroDivisionError: no" in fields(heard.recv(65536))["MESSAGE"]


def test_a_journal_that_is_gone_or_full_fails_nothing(tmp_path: Path, heard: socket.socket) -> None:
    log = structlog.get_logger()
    for _ in range(2000):
        log.info("x" * 1000)
    (tmp_path / "journal").unlink()
    heard.close()
    log.info("nobody hears it")


def test_without_a_journal_it_is_one_line_on_standard_error() -> None:
    program = "import structlog; from opsd.daemon import journal; journal.configure(); structlog.get_logger().info('begun', jobs=2)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env={})
    assert done.stdout == ""
    assert re.fullmatch(r"\S+Z info    begun \(jobs 2\)\n", done.stderr)
