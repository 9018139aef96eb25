"""The ledger's file: appended to, cut, edited, lost."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from opsd.monitor.ledger import CONFIGURATION, REBUILT, Entry, Head, review
from opsd.monitor.ledger_file import LedgerFile
from tests.monitor.test_ledger import entry


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerFile:
    return LedgerFile(tmp_path)


def nobody() -> list[Head]:
    return []


def asked() -> list[Head]:
    raise AssertionError("nothing is wrong, so nobody is asked")


def fill(ledger: LedgerFile, count: int = 4) -> list[Entry]:
    return [ledger.append(entry(), nobody).entry for _ in range(count)]


def actions(ledger: LedgerFile) -> list[tuple[int, str]]:
    return [(each.number, each.action) for each in review(ledger.lines()).entries]


def test_entries_are_numbered_chained_private_and_the_head_is_remembered(ledger: LedgerFile) -> None:
    fill(ledger, 2)
    last = ledger.append(entry(), asked).entry
    found = review(ledger.lines())
    assert (len(found.entries), found.faults, found.gaps) == (3, (), ())
    assert last.head == found.head == ledger.head() == ledger.remembered()
    assert ledger.path.stat().st_mode & 0o777 == 0o600


def test_many_threads_append_without_losing_or_mixing_any(ledger: LedgerFile) -> None:
    threads = [threading.Thread(target=fill, args=(ledger, 10)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [number for number, _ in actions(ledger)] == list(range(1, 51))


def test_a_configuration_that_changed_gets_an_entry_before_the_next(ledger: LedgerFile) -> None:
    for configuration in ("a", None, "b", "b"):
        ledger.append(entry(configuration=configuration), nobody)
    found = review(ledger.lines())
    assert [each.action for each in found.entries] == ["backup", "backup", CONFIGURATION, "backup", "backup"]
    assert found.entries[2].details == {"before": "a", "after": "b"}
    assert (found.entries[1].configuration, found.faults) == ("a", ())


def test_a_line_that_was_not_finished_is_dropped_and_told(ledger: LedgerFile) -> None:
    fill(ledger, 3)
    with ledger.path.open("ab") as file:
        file.write(b'{"action":"ba')
    assert ledger.torn() == 13
    done = ledger.append(entry(), asked)
    assert "not finished" in done.notes[0]
    assert actions(ledger)[3:] == [(4, "ledger-torn"), (5, "backup")]
    assert review(ledger.lines()).faults == ()


@pytest.mark.parametrize("damage", ["cut", "torn", "edited", "emptied", "lost"])
def test_a_file_that_was_damaged_is_kept_and_the_chain_goes_on_with_a_gap(ledger: LedgerFile, damage: str) -> None:
    head = fill(ledger, 4)[-1].head
    content = ledger.path.read_bytes()
    lines = content.splitlines(keepends=True)
    if damage == "lost":
        ledger.path.unlink()
    else:
        changed = {
            "cut": b"".join(lines[:2]),
            "torn": content[:-20],
            "edited": b"".join([*lines[:3], lines[3].replace(b"done", b"gone")]),
            "emptied": b"",
        }
        ledger.path.write_bytes(changed[damage])
    done = ledger.append(entry(), nobody)
    left = {"cut": 2, "torn": 3, "edited": 3, "emptied": 0, "lost": 0}[damage]
    assert "cut, edited or lost" in done.notes[0]
    assert actions(ledger)[left:] == [(5, REBUILT), (6, "backup")]
    (gap,) = review(ledger.lines()).gaps
    assert (gap.first, gap.last, bool(gap.rebuilt)) == (left + 1, 4, True)
    assert review(ledger.lines()).entries[left].previous == head.hash
    aside = ledger.path.with_name("ledger.jsonl.damaged-1")
    assert aside.exists() == (damage != "lost")
    assert ledger.append(entry(), asked).notes == ()


@pytest.mark.parametrize(
    "change",
    [lambda line: line[:-9] + b"\n", lambda _: b"", lambda line: line.replace(b"done", b"gone")],
    ids=["cut", "removed", "edited to the same length"],
)
def test_a_line_that_was_altered_in_the_middle_is_told_once_with_the_next_entry(
    ledger: LedgerFile, change: Callable[[bytes], bytes]
) -> None:
    fill(ledger, 4)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], change(lines[1]), *lines[2:]]))
    (note,) = ledger.append(entry(), nobody).notes
    assert "was altered" in note
    assert actions(ledger)[-1] == (5, "backup")
    assert ledger.append(entry(), nobody).notes == ()


def test_a_ledger_whose_memory_is_lost_too_goes_on_from_whoever_vouches(ledger: LedgerFile) -> None:
    head = fill(ledger, 4)[-1].head
    for path in ledger.path.parent.glob("ledger.*"):
        path.unlink()
    done = ledger.append(entry(), lambda: [head])
    assert (done.entry.number, len(done.notes)) == (6, 1)


def test_an_edited_last_line_is_noticed_without_any_memory(ledger: LedgerFile) -> None:
    fill(ledger, 3)
    (ledger.path.parent / "ledger.head").unlink()
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"done", b"gone")]))
    assert len(ledger.append(entry(), nobody).notes) == 1
    assert [number for number, _ in actions(ledger)][:2] == [1, 2]


def test_a_first_entry_of_all_is_no_rebuilding(ledger: LedgerFile) -> None:
    assert ledger.append(entry(), nobody).notes == ()
    assert actions(ledger) == [(1, "backup")]


def test_what_is_missing_can_be_accepted_once_and_stays_missing(ledger: LedgerFile) -> None:
    fill(ledger, 4)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], lines[1].replace(b"done", b"gone"), *lines[2:]]))
    assert [str(gap) for gap in ledger.accept(entry(reason="I know"), nobody)] == ["entry 2"]
    (gap,) = review(ledger.lines()).gaps
    assert gap.accepted
    assert gap.accepted.reason == "I know"
    assert review(ledger.lines()).faults == ()
    assert ledger.accept(entry(reason="again"), nobody) == ()


def test_an_entry_that_finds_no_room_leaves_the_file_as_it_was(ledger: LedgerFile) -> None:
    """A limit of the process on the size of files stands in for a full disk: a short write, then an error."""
    fill(ledger, 2)
    before = ledger.path.read_bytes()
    child = os.fork()
    if not child:
        import resource  # noqa: PLC0415 - in the child alone
        import signal  # noqa: PLC0415 - likewise

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, len(before) + 100))
        try:
            ledger.append(entry(), nobody)
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert ledger.path.read_bytes() == before
