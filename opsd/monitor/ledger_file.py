"""The ledger's file in the state folder: `ledger.jsonl`, private, one entry a line, only ever appended to.

Promise: an entry is synced before it counts. A last line that was not finished is dropped and told; a file that was cut, edited or lost is
kept aside, and the chain goes on from the newest head that is known of: it never silently begins anew.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from opsd.monitor.ledger import (
    ACCEPTED,
    CONFIGURATION,
    REBUILT,
    BadLine,
    Entry,
    Gap,
    Head,
    Review,
    disagreement,
    gaps_of,
    mended,
    parse,
    review,
)
from opsd.repository.local import HostState
from opsd.storage.durable import private_file
from opsd.values import dataclass

#: Longer than any line.
_TAIL_BYTES: Final = 65_536
#: Who else may know of newer entries; asked only if the file is not what it should be.
Vouch = Callable[[], Iterable[Head]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The entry as it was written, and what was found wrong on the way."""

    entry: Entry
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tail:
    """The end of the file: its last entry, whether that is sound, and the bytes of a line that was not finished."""

    entry: Entry | None = None
    sound: bool = True
    torn: int = 0


class LedgerFile:
    """The ledger of one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "ledger.jsonl"
        self._memory = folder / "ledger.head"

    def lines(self) -> tuple[bytes, ...]:
        """Every finished line; none where there is no file."""
        try:
            return tuple(self.path.read_bytes().split(b"\n")[:-1])
        except FileNotFoundError:
            return ()

    def torn(self) -> int:
        """The bytes of a last line that was not finished."""
        return self._tail().torn

    def remembered(self) -> Head:
        """The last entry that was written, as the file beside remembers it; it may lag behind after a power cut."""
        return self._recalled()[0]

    def _recalled(self) -> tuple[Head, tuple[int, ...]]:
        """The same, and the file's bytes and change time (ns) then, as far as they are known."""
        with suppress(OSError, ValueError):
            number, digest, *rest = self._memory.read_text(encoding="ascii").split()
            if len(bytes.fromhex(digest)) == 32:
                return Head(number=int(number), hash=digest), tuple(map(int, rest))
        return Head(), ()

    def head(self) -> Head:
        """The newest entry that this host knows of."""
        entry = self._tail().entry
        return max(entry.head if entry else Head(), self.remembered(), key=lambda each: each.number)

    def vouched(self) -> tuple[int, bytes] | None:
        """The same for a manifest; None before the first entry, or where it can't be read: no backup fails for it."""
        try:
            head = self.head()
        except OSError:
            return None
        return (head.number, bytes.fromhex(head.hash)) if head.number else None

    def append(self, entry: Entry, vouch: Vouch) -> Appended:
        """Write an entry as the next; where the configuration changed since the last, an entry for that before it.

        Raises:
            OSError, OpsdError: it could not be written; the file is as it was.
        """
        with HostState(self._folder).locked("ledger"):
            tail = self._tail()
            notes: list[str] = []
            due: list[Entry] = []
            if altered := self._altered(tail):
                notes.append(altered)
            if self._is_broken(tail):
                notes += filter(None, [self._rebuild(entry, vouch)])
                tail = self._tail()
            elif tail.torn:
                notes.append("its last entry was not finished, and was dropped")
                os.truncate(self.path, self.path.stat().st_size - tail.torn)
                due.append(_own(entry, "ledger-torn", bytes=tail.torn))
            return Appended(entry=self._write(tail.entry, [*due, entry]), notes=tuple(notes))

    def accept(self, entry: Entry, vouch: Vouch) -> tuple[Gap, ...]:
        """Mend the file if need be, and state that what is missing is known to be; returns that, nothing where nothing is.

        Raises:
            OSError, OpsdError: it could not be written.
        """
        with HostState(self._folder).locked("ledger"):
            heads = tuple(vouch())
            found = review(self.lines())
            if found.faults or any(disagreement(found, head) for head in (*heads, self.remembered())):
                self._rebuild(entry, lambda: heads)
                found = review(self.lines())
            open_gaps = tuple(gap for gap in found.gaps if gap.accepted is None)
            if open_gaps:
                told = _own(entry, ACCEPTED, missing=[gap.as_list for gap in open_gaps])
                self._write(self._tail().entry, [replace(told, reason=entry.reason, outcome="done", exit_code=0)])
            return open_gaps

    def _tail(self) -> _Tail:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                *whole, torn = file.read().split(b"\n")
        except FileNotFoundError:
            return _Tail()
        if not whole:
            return _Tail(sound=not size, torn=len(torn))
        try:
            line = parse(whole[-1])
        except BadLine:
            return _Tail(sound=False, torn=len(torn))
        return _Tail(entry=line.entry, sound=line.is_whole, torn=len(torn))

    def _is_broken(self, tail: _Tail) -> bool:
        """Whether the end of the file is not what was written last."""
        if tail.entry is None:
            return True  # Nothing there: others may know better.
        memory = self.remembered()
        head = tail.entry.head
        return not tail.sound or head.number < memory.number or (head.number == memory.number and head != memory)

    def _altered(self, tail: _Tail) -> str:
        """What is wrong within the file, which is read whole where its length or change time is not that of the last entry."""
        head, known = self._recalled()
        if not known or tail.entry is None or tail.entry.head != head:
            return ""
        state = self.path.stat()
        if known == (state.st_size - tail.torn, state.st_ctime_ns)[: len(known)]:
            return ""
        found = review(self.lines())
        unexplained = (f"{gap} missing" for gap in found.gaps if not gap.accepted and not gap.rebuilt)
        return next((f"{self.path} was altered: {fault}" for fault in (*found.faults, *unexplained)), "")

    def _rebuild(self, entry: Entry, vouch: Vouch) -> str:
        """Go on from the newest head that is known, with an entry that says what is missing; empty if nothing was ever there."""
        found: Review = review(self.lines())
        entries, newest = mended(found, (*vouch(), self.remembered()))
        if not newest.number and not self.path.exists():
            return ""
        rebuilt = _own(entry, REBUILT).after(newest)
        missing = gaps_of([*entries, rebuilt])
        rebuilt = replace(rebuilt, details={"missing": [gap.as_list for gap in missing if gap.rebuilt is None]})
        aside = self._put_aside()
        partial = self.path.with_name(f"{self.path.name}.new")
        partial.unlink(missing_ok=True)
        _append(partial, b"".join(each.line() + b"\n" for each in (*entries, rebuilt)))
        partial.rename(self.path)
        self._remember(rebuilt.head)
        gone = ", ".join(map(str, missing)) or "no entry"
        kept = f"; the damaged file is kept as {aside}" if aside else ""
        return f"{self.path} was cut, edited or lost: {gone} missing{kept}; it goes on with entry {rebuilt.number}"

    def _put_aside(self) -> Path | None:
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        os.link(self.path, aside)
        return aside

    def _write(self, last: Entry | None, due: list[Entry]) -> Entry:
        """Append entries after the last; each without a configuration has the one before's."""
        lines = b""
        for entry in due:
            before = last.configuration if last else None
            named = replace(entry, configuration=entry.configuration or before)
            if before and named.configuration != before:
                change = _own(named, CONFIGURATION, before=before, after=named.configuration)
                last = replace(change, outcome="done", exit_code=0).after(last.head if last else Head())
                lines += last.line() + b"\n"
            last = named.after(last.head if last else Head())
            lines += last.line() + b"\n"
        if last is None:
            raise ValueError("nothing to write")
        _append(self.path, lines)
        self._remember(last.head)
        return last

    def _remember(self, head: Head) -> None:
        """Not synced: it may lag behind the file, never lead it; always as long, so that it is written at one go."""
        descriptor = private_file(self._memory, os.O_WRONLY)
        try:
            state = self.path.stat()
            told = f"{head.number:020} {head.hash} {state.st_size:020} {state.st_ctime_ns:020}\n"
            os.pwrite(descriptor, told.encode(), 0)
        finally:
            os.close(descriptor)


def _own(entry: Entry, action: str, **details: object) -> Entry:
    """An entry of the ledger about itself, written on the occasion of another."""
    return replace(entry, action=action, outcome="warnings", exit_code=None, reason=None, begun=None, details=details)


def _append(path: Path, content: bytes) -> None:
    """Append and sync, all or nothing.

    Raises:
        OSError: nothing was appended.
    """
    new = not path.exists()
    descriptor = private_file(path, os.O_WRONLY | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if new:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
