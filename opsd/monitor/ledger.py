"""The ledger: entries of what was done, chained by hash, as lines of JSON.

Promise: pure. A line has one encoding only, so that not a byte of it can change unseen; an entry that is missing is a gap, which only
a later entry explains. docs/format.md, The ledger.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, replace
from datetime import datetime
from typing import Any, Final

from opsd.values import dataclass

#: What the first entry follows.
NOTHING: Final = "0" * 64
REBUILT: Final = "ledger-rebuilt"
ACCEPTED: Final = "ledger-accepted"
CONFIGURATION: Final = "configuration"
BEGUN: Final = "begun"
_OUTCOMES: Final = {0: "done", 2: "refused", 3: "warnings", 75: "postponed", 130: "stopped", 143: "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """An entry's number and hash (hex): they stand for it and all before it."""

    number: int = 0
    hash: str = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """The login name of the person (as sudo tells it, which root can forge), the uid of the process, and whether a terminal was there."""

    login: str
    uid: int
    terminal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that was done. `time` is ISO 8601 UTC; `begun` the number of the entry that said it begins; `exit_code` None for that one.

    `details` are counts, ids and words of opsd's own, `configuration` the SHA-256 of the one in force; `reason` is what the person said.
    """

    time: str
    who: Who
    host: str
    action: str
    outcome: str
    version: str
    exit_code: int | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    configuration: str | None = None
    begun: int | None = None
    number: int = 0
    previous: str = NOTHING

    def after(self, head: Head) -> "Entry":
        """The entry as the next of a ledger with that head."""
        return replace(self, number=head.number + 1, previous=head.hash)

    def as_map(self) -> dict[str, Any]:
        """All but the hash."""
        value = {each.name: getattr(self, each.name) for each in fields(self)}
        return value | {"who": {each.name: getattr(self.who, each.name) for each in fields(Who)}}

    @property
    def hash(self) -> str:
        """SHA-256 of its encoding, which holds the hash of the one before; in hex."""
        return hashlib.sha256(b"opsd ledger 1\0" + encoded(self.as_map())).hexdigest()

    @property
    def head(self) -> Head:
        """What stands for it."""
        return Head(number=self.number, hash=self.hash)

    def line(self, **more: Any) -> bytes:
        """As it stands in the file, without the newline."""
        return encoded(self.as_map() | {"hash": self.hash} | more)


def encoded(value: Mapping[str, Any]) -> bytes:
    """The one encoding: keys sorted, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def outcome_of(exit_code: int) -> str:
    """How an action ended, in a word: done, warnings, failed, refused, postponed, stopped."""
    return _OUTCOMES.get(exit_code, "failed")


class BadLine(ValueError):
    """A line is no entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line as it was read: the entry, the hash that it states, whether that is its hash, and what else an export's last line has."""

    entry: Entry
    stated: str
    is_whole: bool
    signed: Mapping[str, Any] | None = None


def parse(line: bytes) -> Line:
    """The entry of a line.

    Raises:
        BadLine: it is none, or in another encoding.
    """
    try:
        value = json.loads(line)
        if encoded(value) != line:
            raise BadLine("it is not as opsd writes it")
        stated, signed, who = value.pop("hash"), value.pop("signed_head", None), value.pop("who")
        entry = Entry(**value, who=Who(**who))
        if set(entry.as_map()) != {*value, "who"} or not _is_typed(entry):
            raise BadLine("parts of it are missing, or of another kind")
        datetime.fromisoformat(entry.time)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadLine(str(error) if isinstance(error, BadLine) else "it is no entry") from error
    return Line(entry=entry, stated=str(stated), is_whole=entry.hash == stated, signed=signed)


def _is_typed(entry: Entry) -> bool:
    """Whether each part is of its kind; files come from anywhere."""
    texts = (entry.time, entry.who.login, entry.host, entry.action, entry.outcome, entry.version, entry.previous)
    maybe = (entry.reason, entry.configuration)
    return (
        all(isinstance(each, str) for each in texts)
        and all(isinstance(each, str | None) for each in maybe)
        and isinstance(entry.details, dict)
        and type(entry.number) is int
        and entry.number > 0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Entries that are missing, `first` to `last`, after one of that hash; `rebuilt` and `accepted` are the entries that say so."""

    first: int
    last: int
    after: str
    rebuilt: Entry | None = None
    accepted: Entry | None = None

    def __str__(self) -> str:
        return f"entry {self.first}" if self.first == self.last else f"entries {self.first} to {self.last}"

    @property
    def as_list(self) -> list[Any]:
        """As it stands in the details of an entry."""
        return [self.first, self.last, self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the lines of a ledger come to. `entries` are those that can be believed, as far as the lines alone tell, `numbers` all that were met."""

    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    numbers: frozenset[int]
    gaps: tuple[Gap, ...]
    signed: Mapping[str, Any] | None = None

    @property
    def head(self) -> Head:
        """Of the last entry."""
        return self.entries[-1].head if self.entries else Head()


def review(lines: Iterable[bytes]) -> Review:
    """Check every line, and each against the one before it."""
    kept: list[Entry] = []
    faults: list[str] = []
    numbers: set[int] = set()
    last: Line | None = None
    for place, text in enumerate(lines, 1):
        if last and last.signed is not None:
            faults.append(f"line {place} comes after the signed head")
        try:
            line = parse(text)
        except BadLine as error:
            faults.append(f"line {place} was altered: {error}")
            continue
        numbers.add(line.entry.number)
        fault = _fault(line, last)
        if fault:
            faults.append(fault)
        if last and line.entry.number <= last.entry.number:
            continue
        if kept and last and fault and line.is_whole and kept[-1].number == line.entry.number - 1:
            kept.pop()  # The later one vouches for another entry in its place.
        if line.is_whole:
            kept.append(line.entry)
        last = line
    return Review(
        entries=tuple(kept),
        faults=tuple(faults),
        numbers=frozenset(numbers),
        gaps=gaps_of(kept),
        signed=last.signed if last else None,
    )


def _fault(line: Line, last: Line | None) -> str:
    """What is wrong with a line that follows another; empty if nothing is."""
    entry = line.entry
    if not line.is_whole:
        return f"entry {entry.number} was altered: its hash is not that of its content"
    number, stated = (last.entry.number, last.stated) if last else (0, NOTHING)
    if entry.number <= number:
        return f"entry {entry.number} comes after entry {number}: moved, or put in"
    if entry.number == number + 1 and entry.previous != stated:
        return (
            f"entry {entry.number} does not follow entry {number} as it stands: one of the two was replaced or put in"
        )
    return ""


def _missing(entry: Entry) -> Iterator[tuple[Any, ...]]:
    """The gaps that an entry tells of, as far as they are any."""
    listed = entry.details.get("missing")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, list) and [type(part) for part in each] == [int, int, str]:
            yield tuple(each)


def gaps_of(entries: Sequence[Entry]) -> tuple[Gap, ...]:
    """What is missing between entries in order."""
    told: dict[tuple[Any, ...], dict[str, Entry]] = {}
    for entry in entries:
        if entry.action in (REBUILT, ACCEPTED):
            for first, last, after in _missing(entry):
                told.setdefault((first, last, after), {})[entry.action] = entry
    found = []
    before: Entry | None = None
    for entry in entries:
        first = before.number + 1 if before else 1
        if entry.number > first:
            gap = Gap(first=first, last=entry.number - 1, after=before.hash if before else NOTHING)
            by = told.get(tuple(gap.as_list), {})
            found.append(replace(gap, rebuilt=by.get(REBUILT), accepted=by.get(ACCEPTED)))
        before = entry
    return tuple(found)


def disagreement(found: Review, head: Head) -> str:
    """What a ledger says against a head that somebody vouches for; empty if it holds that entry, or says that it is missing."""
    if head.number > found.head.number:
        gone = Gap(first=found.head.number + 1, last=head.number, after="")
        return f"{gone} {'is' if gone.first == gone.last else 'are'} gone"
    if any(gap.first <= head.number <= gap.last for gap in found.gaps) or not head.number:
        return ""
    entry = next((each for each in found.entries if each.number == head.number), None)
    return f"entry {head.number} is another one" if entry is None or entry.hash != head.hash else ""


def signed_head(head: Head, time: str, sign: Callable[[bytes], bytes], key: bytes) -> dict[str, Any]:
    """What the last line of an export carries beside its entry; `key` is the id of the key that signs."""
    value = {"number": head.number, "hash": head.hash, "time": time, "key": key.hex()}
    return value | {"signature": sign(_head_message(value)).hex()}


def signature_of(signed: Mapping[str, Any], head: Head) -> tuple[bytes, bytes, bytes]:
    """Key id, message and signature of a signed head.

    Raises:
        BadLine: it is not that of this head.
    """
    try:
        value = {name: signed[name] for name in ("number", "hash", "time", "key")}
        parts = bytes.fromhex(signed["key"]), _head_message(value), bytes.fromhex(signed["signature"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadLine("the signed head is none") from error
    if (value["number"], value["hash"]) != (head.number, head.hash) or len(signed) != 5:
        raise BadLine("the signed head is that of another entry")
    return parts


def _head_message(value: Mapping[str, Any]) -> bytes:
    return b"opsd ledger head 1\0" + encoded(value)


def mended(found: Review, heads: Iterable[Head]) -> tuple[tuple[Entry, ...], Head]:
    """The entries that no head speaks against, and the newest that is known of, which the next one follows."""
    known = sorted((head for head in heads if head.number), key=lambda each: each.number)
    newest = max((found.head, *known), key=lambda each: each.number)
    entries = found.entries
    for place, head in enumerate(known):
        if head.number <= found.head.number and disagreement(found, head):
            sound = known[place - 1].number if place else 0
            return tuple(each for each in entries if each.number <= sound), newest
    return entries, newest
