"""How answers look: sizes, times, tables of at most 80 columns, JSON.

Promise: sizes in binary units with one decimal, times in the site's zone to the minute; colours only on a terminal and not with
NO_COLOR; JSON is one value on stdout, everything said on the way goes to stderr.
"""

import json
import os
import re
import shutil
import stat
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any, Final, TextIO

import click

from opsd import clock
from opsd.errors import ConfigurationError, OpsdError
from opsd.events import Warning
from opsd.model import Entry, EntryType, Outcome
from opsd.values import dataclass

#: Warnings listed for a person; JSON has them all.
WARNINGS_SHOWN: Final = 20
#: What our own lines may hold beside printable characters (ECMA-48, SGR).
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
#: A command within a sentence; no line is broken at the space.
_QUOTED: Final = re.compile(r"'[^']*'")
_HARD_SPACE: Final = "\N{NO-BREAK SPACE}"
#: The daemon names the run of a job of its own here.
_RUN: Final = "OPSD_RUN_ID"
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_LETTERS: Final = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.FOLDER: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
_COLOURS: Final = {Outcome.COMPLETE: "green", Outcome.WARNINGS: "yellow", Outcome.FAILED: "red"}


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: its head, whether numbers stand in it, whether it may be cut, in its middle, to fit the width."""

    head: str
    right: bool = False
    elastic: bool = False


def size(count: int) -> str:
    """A number of bytes: `999 B`, `1.2 MiB`."""
    if abs(count) < 1024:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 1023.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError


def moment(time: int, zone: tzinfo) -> str:
    """A time for people: `2026-11-24 04:00`."""
    return f"{clock.local(time, zone):%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """A span: `0.8 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 file`, `2,431 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def line(text: str = "") -> None:
    """A line of the answer; what can't be printed is escaped."""
    _answer(printable(text))


def lines(text: str, indent: int = 0, first: str = "") -> None:
    """A text folded at 80 columns below an indent, `first` before its first line; no word is broken, so that a path can be copied."""
    inner = len(click.unstyle(first))
    for number, each in enumerate(
        textwrap.wrap(plain(text), 80 - indent - inner, break_long_words=False, break_on_hyphens=False)
    ):
        line(" " * indent + (" " * inner if number else first) + each)


def note(text: str) -> None:
    """A line beside the answer, on stderr; no work fails because nobody reads it any more, or the disk of a log is full."""
    try:
        click.echo(plain(text), err=True)
    except OSError:
        _hush(sys.stderr)


def _answer(text: str) -> None:
    """A piece of the answer. Of a job whose daemon is gone nobody hears it, and the job has done its work all the same."""
    try:
        click.echo(text)
    except BrokenPipeError:
        if _RUN not in os.environ:
            raise
        _hush(sys.stdout)


def _hush(stream: TextIO) -> None:
    """Nothing more is said there, also not what the stream still holds at the exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def error(found: OpsdError, of: str = "") -> None:
    """What went wrong (`of`: where, if there are several), a line for each mistake of a configuration, and the next step."""
    for each in found.mistakes if isinstance(found, ConfigurationError) else (str(found),):
        problem(f"{of}: {each}" if of else each)
    _advise(found.hint)


def problem(text: str, hint: str | None = None) -> None:
    """What is wrong and the next step below, on stderr; folded on a terminal only, so that a log has it in one line."""
    whole = plain(f"opsd: {text}")
    for each in wrapped(whole, 80, indent=6) if sys.stderr.isatty() else [whole]:
        note(each)
    _advise(hint)


def wrapped(text: str, columns: int, indent: int = 0) -> list[str]:
    """A text folded, all lines but the first below an indent; no word is broken, so that a path can be copied."""
    return textwrap.wrap(
        text, columns, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [text]


def _advise(hint: str | None) -> None:
    """The next step below what is wrong, in lines of at most 80 columns; a command that is quoted stays in one."""
    whole = _QUOTED.sub(lambda found: found[0].replace(" ", _HARD_SPACE), plain(hint or ""))
    for each in textwrap.wrap(whole, 74, break_long_words=False, break_on_hyphens=False):
        note(f"      {each}".replace(_HARD_SPACE, " "))


def printable(text: str) -> str:
    """The text without control characters, but for colours: a file's name must neither move the cursor nor forge a line."""
    if text.isprintable():
        return text
    pieces = _COLOUR.split(text)
    return "".join(piece if place % 2 else plain(piece) for place, piece in enumerate(pieces))


def plain(text: str) -> str:
    """The text with escapes for all that can't be printed, colours too: for what others have named."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def quoted(path: bytes) -> str:
    """A path for people: no control character passes, bytes that are no UTF-8 stand as escapes."""
    return plain(path.decode("utf-8", "backslashreplace"))


def path_text(path: bytes) -> str:
    """A path for JSON: bytes that are no UTF-8 become lone surrogates (os.fsencode gives them back), escaped in turn."""
    return os.fsdecode(path)


def emit(value: Any) -> None:
    """The answer as JSON. Lone surrogates, which stand for bytes that are no UTF-8, are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    _answer(text if text.isascii() else _escaped(text))


def _escaped(text: str) -> str:
    return "".join(each if not 0xD800 <= ord(each) < 0xE000 else f"\\u{ord(each):04x}" for each in text)


def paint(text: str, colour: str | None, *, bold: bool = False) -> str:
    """Coloured text, if stdout is a terminal and NO_COLOR is not set; it brings no colours of its own."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return plain(text)
    return click.style(plain(text), fg=colour, bold=bold)


def outcome(value: Outcome, text: str = "") -> str:
    """An outcome in its colour."""
    return paint(text or str(value), _COLOURS[value])


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below heads, aligned; elastic columns are cut so that a line fits the terminal, 80 columns elsewhere."""
    for each in table_lines(columns, rows):
        line(each)


def table_lines(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    cells = [list(row) for row in rows]
    widths = [
        max([len(column.head), *(len(click.unstyle(row[place])) for row in cells)])
        for place, column in enumerate(columns)
    ]
    _shrink(columns, widths)
    head = paint(_row(columns, widths, [column.head for column in columns]), None, bold=True)
    return [head, *(_row(columns, widths, row) for row in cells)]


def width() -> int:
    """Of a line: the terminal's, 80 columns elsewhere."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80


def height() -> int:
    """How many lines can be seen at once: the terminal's; elsewhere all are wanted."""
    return shutil.get_terminal_size((80, 24)).lines if sys.stdout.isatty() else sys.maxsize


def _shrink(columns: Sequence[Column], widths: list[int]) -> None:
    excess = sum(widths) + 2 * (len(widths) - 1) - width()
    for place, column in enumerate(columns):
        if column.elastic and excess > 0:
            cut = min(excess, max(0, widths[place] - 12))
            widths[place] -= cut
            excess -= cut


def _row(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    parts = []
    for column, width, cell in zip(columns, widths, row, strict=True):
        plain = click.unstyle(cell)
        shown = cell if len(plain) <= width else _cut(plain, width)
        room = " " * (width - min(len(plain), width))
        parts.append(room + shown if column.right else shown + room)
    return "  ".join(parts).rstrip()


def _cut(text: str, width: int) -> str:
    """Both ends of a text, which say more than its middle."""
    begin = (width - 1) // 2
    return f"{text[:begin]}…{text[len(text) - (width - 1 - begin) :]}"


def mode(entry: Entry) -> str:
    """Type and permissions as `ls -l` shows them."""
    return stat.filemode(_LETTERS[entry.type] | entry.mode)


def type_name(entry: Entry) -> str:
    """An entry's type in JSON: file, folder, symlink, fifo, socket, character_device, block_device."""
    return entry.type.name.lower()


def warning_json(warning: Warning) -> dict[str, Any]:
    """A warning in JSON: {subject, problem, hint}."""
    return {"subject": warning.subject, "problem": warning.problem, "hint": warning.hint}


def warnings(found: Sequence[Warning]) -> None:
    """List warnings on stderr, the first of them."""
    for warning in found[:WARNINGS_SHOWN]:
        note(f"warning: {warning.subject}: {warning.problem}" + (f" ({warning.hint})" if warning.hint else ""))
    if len(found) > WARNINGS_SHOWN:
        note(f"… and {count(len(found) - WARNINGS_SHOWN, 'more warning')}; --json lists them all")
