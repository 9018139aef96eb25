"""The single values of the configuration: texts, paths, numbers, durations, sizes, times, zones, and references to secrets.

Promise: whatever passes can be handed to the operating system as it is, and `show` gives a text that reads back as the same value.
"""

import re
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from opsd.settings.nodes import Node, Pairs, Reading
from opsd.settings.shapes import WRONG, ListOf, Schema, Shape, Value, suggestion
from opsd.values import dataclass

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_BYTES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_DURATION = r"[0-9]{1,6}(\.[0-9]{1,3})?[smhdw]"
_SIZE = r"[0-9]{1,9} ?([KMGT]i)?B"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_WORDS = {"true": True, "false": False}


def text(content: str) -> str:
    """Any text that a file name or an argument can be."""
    if not content:
        raise ValueError("expected a text, found an empty one")
    if "\0" in content:
        raise ValueError("a NUL can't stand in a text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair can't stand in a text") from None
    return content


def _absolute(content: str) -> str:
    path = text(content)
    if not path.startswith("/"):
        raise ValueError(f"expected an absolute path, found {path}: does it begin with / ?")
    if ".." in path.split("/"):
        raise ValueError("a path can't go through ..")
    return path


def _matching(what: str, pattern: str, *, example: str) -> Value:
    def convert(content: str) -> str:
        if not re.fullmatch(pattern, content):
            raise ValueError(f"expected {what}, such as {example}")
        return content

    return Value(what=what, convert=convert, json={"type": "string", "pattern": f"^{pattern}$"})


TEXT = Value(what="a text", convert=text, json={"type": "string", "minLength": 1})
PATH = Value(what="an absolute path", convert=_absolute, json={"type": "string", "pattern": "^/"})
LABEL = _matching(
    "a name of a-z, 0-9, '-', '_' and '.', that begins with a letter or digit",
    r"[a-z0-9][a-z0-9_.-]{0,63}",
    example="web1",
)
HOST = _matching("a host's name", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", example="web1.example.org")
FILE_NAME = _matching("a file's name without /", r"(?!\.{1,2}$)[^/\x00-\x1f]{1,200}", example="mail.mbox")
TIME = _matching("a time of day", _TIME, example='"04:00"')
SHARE = _matching("full, off, or a share of rows", r"(full|off|[0-9]{1,2}(\.[0-9]{1,3})?%)", example="10%")


def number(least: int, most: int) -> Value:
    """A whole number within these bounds."""
    what = f"a whole number from {least} to {most}" if least < most else f"the number {least}"

    def convert(content: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", content) or not least <= int(content) <= most:
            raise ValueError(f"expected {what}")
        return int(content)

    return Value(what=what, convert=convert, json={"type": "integer", "minimum": least, "maximum": most}, bare=True)


def choice(*allowed: str) -> Value:
    """One of a few words."""

    def convert(content: str) -> str:
        if content not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}{suggestion(content, allowed).split(', known')[0]}")
        return content

    return Value(what=f"one of {', '.join(allowed)}", convert=convert, json={"enum": list(allowed)})


def _truth(content: str) -> bool:
    try:
        return _WORDS[content.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


TRUTH = Value(what="true or false", convert=_truth, json={"type": "boolean"}, bare=True)


def _seconds(content: str) -> float:
    if not re.fullmatch(_DURATION, content):
        raise ValueError("expected a duration with its unit, such as 30s, 5m, 4h or 30d")
    return float(content[:-1]) * _SECONDS[content[-1]]


def _duration(seconds: float) -> str:
    unit = next((unit for unit, size in _SECONDS.items() if seconds and seconds % size == 0), "s")
    return f"{seconds / _SECONDS[unit]:.12g}{unit}"


DURATION = Value(
    what="a duration such as 5m", convert=_seconds, json={"type": "string", "pattern": f"^{_DURATION}$"}, show=_duration
)
SPAN = Value(
    what="a duration such as 48h",
    convert=lambda content: timedelta(seconds=_seconds(content)),
    json=DURATION.json,
    show=lambda span: _duration(span.total_seconds()),
)


def _bytes(content: str) -> int:
    if not re.fullmatch(_SIZE, content):
        raise ValueError("expected a size with its unit, such as 16KiB or 32MiB")
    digits = content.rstrip("KMGTiB")
    return int(digits) * _BYTES[content[len(digits) :]]


def _size(size: int) -> str:
    unit = next((unit for unit, factor in _BYTES.items() if size and size % factor == 0), "B")
    return f"{size // _BYTES[unit]}{unit}"


def size(is_right: Callable[[int], bool], rule: str) -> Value:
    """A number of bytes that obeys a rule."""

    def convert(content: str) -> int:
        value = _bytes(content)
        if not is_right(value):
            raise ValueError(f"expected {rule}")
        return value

    return Value(
        what="a size such as 32MiB", convert=convert, json={"type": "string", "pattern": f"^{_SIZE}$"}, show=_size
    )


def _zone(content: str) -> str:
    try:
        return zoneinfo.ZoneInfo(text(content)).key
    except (KeyError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        raise ValueError(f"no time zone of that name{suggestion(content, known)}") from None


ZONE = Value(what="a time zone such as Europe/Paris", convert=_zone, json={"type": "string", "minLength": 1})

TEXTS = ListOf(item=TEXT)
PROGRAM = ListOf(item=TEXT, least=1)


#: How each kind of reference is written; `opsd.credentials` follows them.
REFERENCES: Mapping[str, Shape] = {"file": PATH, "env": TEXT, "credential": TEXT, "command": PROGRAM}


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret; a mistake here never repeats what stands in the file."""

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The reference as a dict of one kind, or WRONG."""
        kinds = ", ".join(REFERENCES)
        if not isinstance(node, Pairs):
            reading.mistake(node.place, key, "expected a reference such as {file: /path}, never the secret itself")
            return WRONG
        if len(node.pairs) != 1:
            reading.mistake(node.place, key, f"expected exactly one of {kinds}")
            return WRONG
        ((kind, (place, value)),) = node.pairs.items()
        if kind not in REFERENCES:
            close = suggestion(kind, REFERENCES)
            reading.mistake(place, key, f"unknown kind of reference{close}")
            return WRONG
        read = REFERENCES[kind].read(value, f"{key}.{kind}", reading)
        return read if read is WRONG else {kind: read}

    def schema(self) -> Schema:
        """An object with exactly one key."""
        return {
            "type": "object",
            "properties": {kind: shape.schema() for kind, shape in REFERENCES.items()},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }

    def shown(self, value: Any) -> Any:
        """The reference."""
        return {kind: list(each) if isinstance(each, tuple) else each for kind, each in value.items()}


SECRET = Secret()
