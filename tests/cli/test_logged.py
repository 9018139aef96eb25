"""A backup under systemd says into the journal which source it is at."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from opsd.cli.logged import Logged
from opsd.events import Warning
from tests.daemon.test_journal import fields


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        monkeypatch.setenv("OPSD_RUN_ID", "r1")
        yield receiver
        structlog.reset_defaults()


def test_stages_warnings_and_lines_carry_run_job_and_source(tmp_path: Path, heard: socket.socket) -> None:
    listener = Logged("backup", tmp_path / "journal")
    listener.stage("www")
    listener.warn(Warning(subject="/srv/x", problem="permission denied", hint="run as root"))
    listener.stage("storing")
    listener.tell("a line")
    found = [fields(heard.recv(65536)) for _ in range(4)]
    assert [each["MESSAGE"] for each in found] == [
        "backup: www",
        "backup: /srv/x: permission denied; run as root",
        "backup: storing",
        "backup: a line",
    ]
    assert [each.get("OPSD_SOURCE") for each in found] == ["www", "www", None, None]
    assert {(each["OPSD_RUN"], each["OPSD_JOB"]) for each in found} == {("r1", "backup")}
    assert [warning.problem for warning in listener.warnings] == ["permission denied"]
