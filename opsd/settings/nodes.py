"""YAML as a tree of plain nodes that know their place, and the mistakes found on the way.

Promise: no text makes this fail but with a mistake, and none makes it grow: nesting, aliases and size are bounded. A scalar keeps its
text as written, so that `no` can be a name and `04:00` a time (YAML 1.1 would make them false and 240).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from opsd.errors import ConfigurationError
from opsd.values import dataclass

LARGEST = 1 << 20
DEEPEST = 20
MOST_NODES = 100_000

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map", "int", "float", "bool", "null"))
# What YAML 1.1, section 5.1, does not let stand in a text.
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text; `plain` if it has no quotes."""

    place: Place
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping: each key with its own place and its value."""

    place: Place
    pairs: Mapping[str, tuple[Place, "Node"]]


Node = Scalar | Items | Pairs


class Reading:
    """What reading a configuration leads to beside the values: mistakes, where each key was set, and where later files add to it."""

    def __init__(self) -> None:
        self._mistakes: list[tuple[Place, str]] = []
        self._files: list[str] = []
        self._unreadable = False
        self.origins: dict[str, Place] = {}
        self.appended: dict[str, list[Place]] = {}

    def mistake(self, place: Place, key: str, problem: str) -> None:
        """Note one; `key` is the way to it, such as `retention.keep_daily`."""
        line = f"{place} {key}: {problem}"
        if (place, line) not in self._mistakes:
            self._mistakes.append((place, line))

    def begin(self, file: str) -> None:
        """Mistakes are told in the order of the files."""
        self._files.append(file)

    def finish(self) -> None:
        """Raise ConfigurationError with every mistake, if there was one."""
        if self._mistakes:
            ordered = sorted(self._mistakes, key=lambda each: self._rank(each[0]))
            raise ConfigurationError(
                tuple(line for _, line in ordered), hint="'opsd config generate' prints an example with every key"
            )

    def stop_at_syntax(self) -> None:
        """Raise what was noted so far if a file could not be read whole: what it lacks would be told in vain."""
        if self._unreadable:
            self.finish()

    def unreadable(self, place: Place, problem: str) -> None:
        """Note that a file ends being read here."""
        self._unreadable = True
        self.mistake(place, "syntax", problem)

    def _rank(self, place: Place) -> tuple[int, int, int]:
        return self._files.index(place.file), place.line, place.column


class _Refused(Exception):
    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place
        self.problem = problem


def parse(file: str, content: bytes, reading: Reading) -> Pairs:
    """The mapping that a file holds; empty where it can't be read, which is then a mistake."""
    reading.begin(file)
    try:
        text = _decoded(file, content)
        return _Composer(file, reading).document(text)
    except _Refused as refused:
        reading.unreadable(refused.place, refused.problem)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        reading.unreadable(place, (error.problem or "this is not YAML").lower())
    except yaml.YAMLError:
        reading.unreadable(Place(file, 1, 1), "this is not YAML")
    return Pairs(Place(file, 1, 1), {})


def _decoded(file: str, content: bytes) -> str:
    if len(content) > LARGEST:
        raise _Refused(Place(file, 1, 1), f"the file is larger than {LARGEST >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused(_place_in(file, content[: error.start].decode("utf-8-sig")), "this is not UTF-8") from None
    strange = _UNPRINTABLE.search(text)
    if strange:
        where = _place_in(file, text[: strange.start()])
        raise _Refused(where, f"a control character (U+{ord(strange[0]):04X}) can't stand here")
    return text


def _place_in(file: str, before: str) -> Place:
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


class _Composer:
    """Makes one document's events into nodes."""

    def __init__(self, file: str, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0

    def document(self, text: str) -> Pairs:
        self._events = (
            event
            for event in yaml.parse(text, Loader=_LOADER)
            if not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent)
        )
        if next(self._events, None) is None:
            return Pairs(Place(self._file, 1, 1), {})
        root = self._node(next(self._events), "", 0)
        more = next(self._events, None)
        if more is not None:
            raise _Refused(self._place(more), "a file holds one document, without a second '---'")
        if isinstance(root, Pairs):
            return root
        raise _Refused(root.place, "a configuration is a mapping: key: value")

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _node(self, event: Any, key: str, depth: int) -> Node:
        place = self._place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if event.tag is not None and event.tag not in _PLAIN_TAGS:
            self._reading.mistake(place, key or "syntax", "tags (!) are not used here")
        if depth > DEEPEST:
            raise _Refused(place, f"nested more than {DEEPEST} levels deep")
        before = self._nodes
        self._count(place, 1)
        node = self._made(event, place, key, depth)
        if event.anchor is not None:
            # Known only now: an alias within its own node would have no end.
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _made(self, event: Any, place: Place, key: str, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(place, event.value, plain=not event.style)
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(place, tuple(self._items(key, depth)))
        return Pairs(place, self._pairs(key, depth))

    def _alias(self, event: Any, place: Place) -> Node:
        if event.anchor not in self._anchors:
            raise _Refused(place, "this alias (*) names no anchor (&) before it")
        node, weight = self._anchors[event.anchor]
        self._count(place, weight)
        return node

    def _count(self, place: Place, weight: int) -> None:
        self._nodes += weight
        if self._nodes > MOST_NODES:
            raise _Refused(place, f"with its aliases written out this file has over {MOST_NODES} values")

    def _items(self, key: str, depth: int) -> Iterator[Node]:
        number = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, f"{key}[{number}]", depth + 1)
            number += 1

    def _pairs(self, key: str, depth: int) -> dict[str, tuple[Place, Node]]:
        pairs: dict[str, tuple[Place, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            name = self._node(event, key, depth + 1)
            path = joined(key, name.text if isinstance(name, Scalar) else "?")
            value = self._node(next(self._events), path, depth + 1)
            if not isinstance(name, Scalar):
                self._reading.mistake(name.place, path, "a key is a plain word")
            elif name.text in pairs:
                self._reading.mistake(name.place, path, f"set twice, first at {pairs[name.text][0]}")
            else:
                pairs[name.text] = (name.place, value)
        return pairs


def joined(key: str, name: str) -> str:
    """The way to a key of the mapping at `key`."""
    return f"{key}.{name}" if key else name


def merged(first: Pairs, second: Pairs, reading: Reading, key: str = "") -> Pairs:
    """Two files as one: lists append, mappings join, and a key set twice is a mistake."""
    pairs = dict(first.pairs)
    for name, (place, value) in second.pairs.items():
        if name not in pairs:
            pairs[name] = (place, value)
            continue
        before, present = pairs[name]
        path = joined(key, name)
        if isinstance(present, Pairs) and isinstance(value, Pairs):
            pairs[name] = (before, merged(present, value, reading, path))
        elif isinstance(present, Items) and isinstance(value, Items):
            pairs[name] = (before, Items(present.place, present.items + value.items))
            reading.appended.setdefault(path, []).append(place)
        else:
            reading.mistake(place, path, f"set twice, first at {before}")
    return Pairs(first.place, pairs)
