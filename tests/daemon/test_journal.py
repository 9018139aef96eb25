"""What the daemon says, as the journal gets it."""

import socket
from pathlib import Path

import pytest
import structlog

from opsd.daemon.journal import ToJournal, datagram


def test_an_event_becomes_fields_to_search_by() -> None:
    told = datagram({"event": "job ended", "level": "error", "opsd_run": "r1", "opsd_job": "backup", "exit_code": 1})
    assert told.decode().splitlines() == [
        "MESSAGE=job ended exit_code=1",
        "PRIORITY=3",
        "SYSLOG_IDENTIFIER=opsd",
        "OPSD_RUN=r1",
        "OPSD_JOB=backup",
        "EXIT_CODE=1",
    ]


def test_a_value_of_several_lines_goes_with_its_length() -> None:
    told = datagram({"event": "a\nb"})
    assert told.startswith(b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n")


def test_it_is_sent_and_what_can_not_be_sent_is_printed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        with pytest.raises(structlog.DropEvent):
            ToJournal(tmp_path / "journal")(None, "info", {"event": "daemon started"})
        assert journal.recv(4096).startswith(b"MESSAGE=daemon started\n")
    (tmp_path / "journal").unlink()
    assert ToJournal(tmp_path / "journal")(None, "info", {"event": "still said"}) == "still said"
