"""What is written into the ledger, whoever did it and however it ended."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsd.app.ledgers import verify_own
from opsd.app.recording import recorded, who
from opsd.app.session import Access, Session
from opsd.errors import PruneRefused, RestoreError
from opsd.events import Recorder
from opsd.monitor.ledger_file import LedgerFile


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A host that only pulls: it has a ledger and no repository."""
    path = tmp_path / "opsd.yaml"
    pull = f"{{from: {{folder: {tmp_path}/a}}, to: {{folder: {tmp_path}/b}}}}"
    path.write_text(f"version: 1\nhost: mine\nstate: {tmp_path}/state\npulls: {{web1: {pull}}}\n")
    (tmp_path / "state").mkdir()
    return path


@pytest.fixture
def opened(configuration: Path) -> Iterator[Session]:
    with Session(Access(configuration=str(configuration)), Recorder()) as session:
        yield session


def entries(session: Session) -> list[dict[str, Any]]:
    return [json.loads(line) for line in LedgerFile(session.settings.state).lines()]


def test_what_ends_well_is_done_with_its_reason_and_details(opened: Session) -> None:
    with recorded(opened, "copy", reason="a try", copy="web1") as record:
        assert record.ended(0, objects=3) == 0
    (entry,) = entries(opened)
    assert {name: entry[name] for name in ("action", "outcome", "exit_code", "reason", "host")} == {
        "action": "copy",
        "outcome": "done",
        "exit_code": 0,
        "reason": "a try",
        "host": "mine",
    }
    assert entry["details"] == {"copy": "web1", "objects": 3}


def test_whoever_forgets_to_say_how_it_ended_leaves_an_entry_all_the_same(opened: Session) -> None:
    with recorded(opened, "copy"):
        pass
    assert [each["outcome"] for each in entries(opened)] == ["done"]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (RestoreError("/srv/secret is full"), "failed", 1),
        (PruneRefused("no"), "refused", 1),
        (KeyboardInterrupt(), "stopped", 130),
        (ZeroDivisionError(), "failed", 1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_an_error_leaves_its_kind_and_none_of_its_words(
    opened: Session, error: BaseException, outcome: str, code: int
) -> None:
    with pytest.raises(type(error)), recorded(opened, "restore"):
        raise error
    (entry,) = entries(opened)
    assert (entry["outcome"], entry["exit_code"]) == (outcome, code)
    assert entry["details"] == {"error": type(error).__name__}
    assert "secret" not in json.dumps(entry)


def test_what_was_killed_leaves_that_it_began(opened: Session) -> None:
    child = os.fork()
    if not child:
        with recorded(opened, "restore", begins=True, reason="night shift"):
            os._exit(9)
    os.waitpid(child, 0)
    with recorded(opened, "restore", begins=True):
        pass
    assert [(each["outcome"], each["begun"]) for each in entries(opened)] == [
        ("begun", None),
        ("begun", None),
        ("done", 2),
    ]


def test_a_ledger_that_cannot_be_written_is_a_warning_and_nothing_fails(opened: Session) -> None:
    LedgerFile(opened.settings.state).path.mkdir()
    with recorded(opened, "prune", begins=True) as record:
        assert record.ended(0) == 3
    heard: Any = opened.reporter
    assert {each.subject for each in heard.warnings} == {"ledger"}
    with recorded(opened, "prune") as record:
        assert record.ended(4) == 4


def test_a_machine_without_a_state_folder_gets_none_for_the_ledger(opened: Session) -> None:
    opened.settings.state.rmdir()
    with recorded(opened, "restore", begins=True) as record:
        assert record.ended(0) == 0
    assert not opened.settings.state.exists()


def test_another_configuration_is_an_entry_of_its_own(opened: Session, configuration: Path) -> None:
    with recorded(opened, "copy"):
        pass
    configuration.write_text(configuration.read_text() + "timezone: Europe/Paris\n")
    with Session(Access(configuration=str(configuration)), Recorder()) as later, recorded(later, "copy"):
        pass
    first, change, last = entries(opened)
    assert (change["action"], change["details"]["before"]) == ("configuration", first["configuration"])
    assert change["details"]["after"] == last["configuration"] != first["configuration"]


def test_sudo_names_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert who().uid == os.getuid()
    assert who().login == "alice" or os.geteuid()


def test_a_host_that_only_pulls_verifies_its_own_ledger(opened: Session) -> None:
    with recorded(opened, "pull", copy="web1"):
        pass
    verdict = verify_own(opened)
    assert (verdict.exit_code, len(verdict.entries), verdict.vouchers) == (0, 1, ("the state folder",))
