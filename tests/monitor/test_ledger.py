"""The chain of entries: what holds, and what each kind of change is told as."""

from collections.abc import Callable
from typing import Any

import pytest

from opsd.monitor.ledger import (
    REBUILT,
    BadLine,
    Entry,
    Head,
    Who,
    disagreement,
    encoded,
    mended,
    outcome_of,
    parse,
    review,
    signature_of,
    signed_head,
)


def entry(number: int = 1, **more: Any) -> Entry:
    made: dict[str, Any] = {
        "time": f"2026-11-26T04:00:{number % 60:02}.000000+00:00",
        "who": Who(login="alice", uid=1000, terminal=True),
        "host": "web1",
        "action": "backup",
        "outcome": "done",
        "version": "1.0",
        "exit_code": 0,
    }
    return Entry(**{**made, **more})


def chain(count: int) -> list[Entry]:
    found: list[Entry] = []
    for number in range(1, count + 1):
        found.append(entry(number, details={"files": number}).after(found[-1].head if found else Head()))
    return found


def lines(entries: list[Entry]) -> list[bytes]:
    return [each.line() for each in entries]


def test_a_chain_that_nobody_touched_has_no_fault_and_comes_back_as_it_was() -> None:
    entries = chain(5)
    found = review(lines(entries))
    assert (found.entries, found.faults, found.gaps) == (tuple(entries), (), ())
    assert found.head == Head(number=5, hash=entries[-1].hash)


def forged(text: bytes, **changes: Any) -> bytes:
    """The line with other values, and a hash that fits them."""
    found = parse(text).entry
    return Entry(**{**{name: getattr(found, name) for name in Entry.__slots__}, **changes}).line()


CHANGES: list[tuple[str, Callable[[list[bytes]], list[bytes]], str]] = [
    (
        "a word",
        lambda all_: [each.replace(b"done", b"gone") if not n else each for n, each in enumerate(all_)],
        "altered",
    ),
    ("a blank", lambda all_: [all_[0].replace(b":", b": ", 1), *all_[1:]], "not as opsd writes it"),
    ("a key", lambda all_: [all_[0].replace(b'{"action"', b'{"aa":1,"action"'), *all_[1:]], "altered"),
    (
        "forged with its hash",
        lambda all_: [all_[0], forged(all_[1], outcome="failed"), *all_[2:]],
        "replaced or put in",
    ),
    ("removed", lambda all_: [*all_[:2], *all_[3:]], ""),
    ("removed at the front", lambda all_: all_[1:], ""),
    ("twice", lambda all_: [*all_[:3], all_[2], *all_[3:]], "put in"),
    ("moved", lambda all_: [all_[1], all_[0], *all_[2:]], "moved"),
    ("put in", lambda all_: [*all_[:2], entry(9).after(parse(all_[1]).entry.head).line(), *all_[2:]], "put in"),
    ("no entry", lambda all_: [*all_[:2], b"hello", *all_[2:]], "altered"),
    ("empty", lambda all_: [*all_[:2], b"", *all_[2:]], "altered"),
]


@pytest.mark.parametrize(("change", "told"), [pair[1:] for pair in CHANGES], ids=[name for name, _, _ in CHANGES])
def test_no_line_can_be_changed_removed_moved_or_put_in_unseen(
    change: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    found = review(change(lines(chain(5))))
    assert found.faults or found.gaps
    assert told in " ".join(found.faults)


def test_every_bit_of_a_line_counts() -> None:
    whole = lines(chain(3))
    for place in range(len(whole[1])):
        changed = bytearray(whole[1])
        changed[place] ^= 1
        found = review([whole[0], bytes(changed), whole[2]])
        assert found.faults, changed


HOSTILE = [
    b"[" * 100_000,
    b'{"number":' + b"9" * 5000 + b"}",
    b"{}",
    b"null",
    b"\xff\xfe",
    encoded(entry().as_map() | {"hash": 5, "number": "1"}),
    encoded(entry().as_map() | {"hash": "x", "who": {"login": 5, "uid": 0, "terminal": True}}),
    encoded(entry().as_map() | {"hash": "x", "time": "yesterday"}),
    encoded(entry().as_map() | {"hash": "x", "details": []}),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_of_any_other_kind_is_refused_and_never_a_crash(text: bytes) -> None:
    with pytest.raises(BadLine):
        parse(text)


@pytest.mark.parametrize("missing", [5, [5], [[1]], [[1, 2, []]], [[[], 2, "x"]], {"a": 1}])
def test_a_rebuilt_entry_that_says_nonsense_explains_no_gap(missing: object) -> None:
    late = entry(7, action=REBUILT, details={"missing": missing}).after(Head(number=6, hash="ab"))
    assert [gap.rebuilt for gap in review(lines([*chain(3), late])).gaps] == [None]


def test_a_gap_is_explained_only_by_an_entry_that_names_the_one_before_it() -> None:
    kept = chain(3)
    for after, explained in ((kept[-1].hash, True), ("0" * 64, False)):
        late = entry(7, action=REBUILT, details={"missing": [[4, 6, after]]}).after(Head(number=6, hash="ab"))
        (gap,) = review(lines([*kept, late])).gaps
        assert (gap.first, gap.last, bool(gap.rebuilt)) == (4, 6, explained)


def test_a_ledger_that_is_shorter_or_other_than_a_head_disagrees_with_it() -> None:
    entries = chain(5)
    found = review(lines(entries[:3]))
    assert disagreement(found, entries[1].head) == ""
    assert disagreement(found, entries[4].head) == "entries 4 to 5 are gone"
    assert disagreement(found, Head(number=2, hash="ab")) == "entry 2 is another one"
    assert disagreement(found, Head()) == ""


def test_what_is_mended_keeps_what_a_head_vouches_for_and_goes_on_from_the_newest() -> None:
    entries = chain(6)
    cut = review(lines(entries[:3]))
    assert mended(cut, [entries[4].head]) == (tuple(entries[:3]), entries[4].head)
    other = review([*lines(entries[:2]), forged(entries[2].line(), outcome="failed")])
    assert other.faults == ()
    assert mended(other, [entries[1].head, entries[2].head])[0] == tuple(entries[:2])


def test_a_signed_head_is_of_one_entry_and_names_its_key() -> None:
    head = chain(2)[-1].head
    signed = signed_head(head, "now", lambda message: b"signed" + message[:4], b"\x01" * 16)
    identity, message, signature = signature_of(signed, head)
    assert (identity, signature) == (b"\x01" * 16, b"signedopsd")
    assert message.startswith(b"opsd ledger head 1\0")
    for wrong in ({**signed, "hash": "ab"}, {**signed, "more": 1}, {**signed, "key": "zz"}, {}):
        with pytest.raises(BadLine):
            signature_of(wrong, head)


@pytest.mark.parametrize(
    ("code", "word"), [(0, "done"), (1, "failed"), (3, "warnings"), (4, "failed"), (143, "stopped")]
)
def test_an_exit_code_has_one_word(code: int, word: str) -> None:
    assert outcome_of(code) == word
