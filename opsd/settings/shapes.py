"""What a part of the configuration may look like; reading, the JSON Schema and `config show` all follow from it.

Promise: a shape notes every mistake in its part and goes on, then gives WRONG; a value it gives is complete, with its defaults.
"""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Protocol

from opsd.settings.nodes import Items, Node, Pairs, Place, Reading, Scalar, joined
from opsd.values import dataclass

#: In place of a value that could not be read; its mistakes are noted.
WRONG: Final = object()
#: In place of an example that is not given.
ABSENT: Final = object()

Schema = dict[str, Any]


class Shape(Protocol):
    """What a part may look like."""

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The value, or WRONG with its mistakes noted."""
        ...

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        ...

    def shown(self, value: Any) -> Any:
        """The value as it would stand in a file."""
        ...


def suggestion(text: str, known: Collection[str]) -> str:
    """`, did you mean …?`, or the choice where nothing is close and it is small, or nothing."""
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]}?"
    return f", known are {', '.join(known)}" if 0 < len(known) <= 24 else ""


def _found(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Pairs):
        return "a mapping"
    return "a single value" if not is_null(node) else "nothing"


def is_null(node: Node) -> bool:
    """Whether YAML says that there is no value."""
    return isinstance(node, Scalar) and node.plain and node.text in {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A single value: `convert` raises ValueError with what is wrong, `bare` forbids quotes (numbers, true and false)."""

    what: str
    convert: Callable[[str], Any]
    json: Mapping[str, Any]
    show: Callable[[Any], Any] = lambda value: value
    bare: bool = False

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The converted text."""
        if not isinstance(node, Scalar) or is_null(node):
            reading.mistake(node.place, key, f"expected {self.what}, found {_found(node)}")
            return WRONG
        if self.bare and not node.plain:
            reading.mistake(node.place, key, f"expected {self.what}, without quotes")
            return WRONG
        try:
            return self.convert(node.text)
        except ValueError as error:
            reading.mistake(node.place, key, str(error))
            return WRONG

    def schema(self) -> Schema:
        """One type, often with a pattern."""
        return dict(self.json)

    def shown(self, value: Any) -> Any:
        """A text, number or truth value."""
        return self.show(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """A list, as a tuple."""

    item: Shape
    least: int = 0

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """All items, or WRONG."""
        if not isinstance(node, Items):
            reading.mistake(node.place, key, f"expected a list such as [a, b], found {_found(node)}")
            return WRONG
        if len(node.items) < self.least:
            reading.mistake(node.place, key, "at least one is required")
            return WRONG
        values = [self.item.read(each, f"{key}[{number}]", reading) for number, each in enumerate(node.items)]
        return WRONG if any(value is WRONG for value in values) else tuple(values)

    def schema(self) -> Schema:
        """An array."""
        least = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), **least}

    def shown(self, value: Any) -> Any:
        """A list."""
        return [self.item.shown(each) for each in value]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping: its shape, what it says in one line, and how the example shows it.

    With `example` it stands in the example; else it is commented out with its default, or `sample` where the default says nothing.
    `unless`: another key that makes up for a required one. `into`: the value's field, where that is called otherwise.
    """

    shape: Shape
    says: str
    required: bool = field(default=False, kw_only=True)
    example: Any = field(default=ABSENT, kw_only=True)
    sample: Any = field(default=ABSENT, kw_only=True)
    unless: str | None = field(default=None, kw_only=True)
    into: str | None = field(default=None, kw_only=True)


def read_keys(node: Pairs, keys: Mapping[str, Key], key: str, reading: Reading) -> dict[str, Any]:
    """The values of these keys; unknown and missing ones are mistakes."""
    values = {}
    for name, (place, value) in node.pairs.items():
        path = joined(key, name)
        if name not in keys:
            reading.mistake(place, path, f"unknown key{suggestion(name, keys)}")
            continue
        reading.origins[path] = place
        values[name] = keys[name].shape.read(value, path, reading)
    for name, each in keys.items():
        if each.required and name not in values and each.unless not in values:
            reading.mistake(node.place, joined(key, name), "this key is required")
            values[name] = WRONG
    return values


def is_set(key: Key, value: Any) -> bool:
    """Whether a value could stand in a file: one that is empty where the key can't be was not given."""
    return value is not None and bool(value or not (key.unless or _least(key.shape)))


def _least(shape: Shape) -> int:
    return _least(shape.shape) if isinstance(shape, Converted) else shape.least if isinstance(shape, MapOf) else 0


def keys_schema(keys: Mapping[str, Key], defaults: Mapping[str, Any]) -> Schema:
    """Properties with descriptions and defaults."""
    properties = {}
    for name, key in keys.items():
        default = {"default": key.shape.shown(defaults[name])} if is_set(key, defaults.get(name)) else {}
        properties[name] = {**key.shape.schema(), "description": key.says, **default}
    required = [name for name, key in keys.items() if key.required and not key.unless]
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
        **_alternatives(keys),
    }


def _alternatives(keys: Mapping[str, Key]) -> Schema:
    """Keys that are required unless another is there, or that other; one such group in a mapping."""
    names = [name for name, key in keys.items() if key.unless]
    others = {key.unless for key in keys.values() if key.unless}
    return {"anyOf": [{"required": names}, *({"required": [other]} for other in others)]} if names else {}


def as_pairs(node: Node, key: str, reading: Reading) -> Pairs | None:
    """The node if it is a mapping, or None with the mistake noted."""
    if isinstance(node, Pairs):
        return node
    reading.mistake(node.place, key, f"expected a mapping such as {{key: value}}, found {_found(node)}")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A mapping with fixed keys that becomes a dataclass; defaults are the dataclass's own.

    `fill` adds the defaults of `varying` keys, which depend on the machine or on other keys; `check` looks at a whole value and gives what is wrong.
    """

    build: type[Any]
    keys: Mapping[str, Key]
    fill: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
    varying: frozenset[str] = frozenset()
    check: Callable[[Any], Iterable[str]] = lambda _: ()

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The dataclass, or WRONG."""
        pairs = as_pairs(node, key, reading)
        if pairs is None:
            return WRONG
        values = read_keys(pairs, self.keys, key, reading)
        if any(value is WRONG for value in values.values()) or pairs.pairs.keys() - values.keys():
            return WRONG
        built = self.build(**self.fill({self.keys[name].into or name: each for name, each in values.items()}))
        problems = list(self.check(built))
        for problem in problems:
            reading.mistake(node.place, key, problem)
        return WRONG if problems else built

    def defaults(self) -> dict[str, Any]:
        """What each key is when it is not given; keys without a fixed default are left out."""
        fields = {each.name: each for each in dataclasses.fields(self.build)}
        found = {}
        for name in self.keys.keys() - self.varying:
            each = fields[self.keys[name].into or name]
            if each.default is not dataclasses.MISSING:
                found[name] = each.default
            elif each.default_factory is not dataclasses.MISSING:
                found[name] = each.default_factory()
        return found

    def schema(self) -> Schema:
        """An object."""
        return keys_schema(self.keys, self.defaults())

    def shown(self, value: Any) -> Any:
        """A mapping of all keys that have a value."""
        values = {name: getattr(value, key.into or name) for name, key in self.keys.items()}
        return {
            name: self.keys[name].shape.shown(each) for name, each in values.items() if is_set(self.keys[name], each)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """A mapping whose keys are names that the site gives."""

    name: Value
    value: Shape
    least: int = 0

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """A dict, or WRONG."""
        pairs = as_pairs(node, key, reading)
        if pairs is None:
            return WRONG
        if len(pairs.pairs) < self.least:
            reading.mistake(node.place, key, "at least one is required")
            return WRONG
        values = {}
        for name, (place, each) in pairs.pairs.items():
            path = joined(key, name)
            label = self.name.read(Scalar(place, name, plain=False), path, reading)
            reading.origins[path] = place
            value = self.value.read(each, path, reading)
            values[name] = WRONG if label is WRONG else value
        return WRONG if any(value is WRONG for value in values.values()) else values

    def schema(self) -> Schema:
        """An object with free names."""
        return {
            "type": "object",
            "propertyNames": {"pattern": self.name.json["pattern"]},
            "additionalProperties": self.value.schema(),
            **({"minProperties": self.least} if self.least else {}),
        }

    def shown(self, value: Any) -> Any:
        """A mapping."""
        return {name: self.value.shown(each) for name, each in value.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Another shape whose values are made into something else, and back to be shown."""

    shape: Shape
    make: Callable[[Any], Any]
    unmake: Callable[[Any], Any]

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """What is made, or WRONG."""
        value = self.shape.read(node, key, reading)
        return WRONG if value is WRONG else self.make(value)

    def schema(self) -> Schema:
        """The other shape's."""
        return self.shape.schema()

    def shown(self, value: Any) -> Any:
        """As the other shape shows it."""
        return self.shape.shown(self.unmake(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What one of several kinds became: its key, its options and the keys that all kinds share."""

    kind: str
    options: Any
    common: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """A mapping with exactly one of several kinds, beside keys that all of them may have."""

    kinds: Mapping[str, Key]
    common: Mapping[str, Key] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """A Kind, or WRONG."""
        pairs = as_pairs(node, key, reading)
        if pairs is None:
            return WRONG
        values = read_keys(pairs, {**self.kinds, **self.common}, key, reading)
        chosen = [kind for kind in self.kinds if kind in values]
        if len(chosen) != 1:
            self._refuse(pairs, chosen, key, reading)
            return WRONG
        if any(value is WRONG for value in values.values()):
            return WRONG
        return Kind(kind=chosen[0], options=values.pop(chosen[0]), common=values)

    def _refuse(self, pairs: Pairs, chosen: list[str], key: str, reading: Reading) -> None:
        if not chosen and pairs.pairs.keys() - self.kinds.keys() - self.common.keys():
            return  # Probably a kind misspelt: that key is noted as unknown.
        place: Place = pairs.pairs[chosen[1]][0] if chosen else pairs.place
        which = f"only one of {' and '.join(chosen)}" if chosen else f"one of {', '.join(self.kinds)}"
        reading.mistake(place, key, f"{which} may stand here" if chosen else f"{which} is required")

    def schema(self) -> Schema:
        """An object of which exactly one kind is required."""
        whole = keys_schema({**self.kinds, **self.common}, self.defaults)
        return {**whole, "oneOf": [{"required": [kind]} for kind in self.kinds]}

    def shown(self, value: Any) -> Any:
        """The one kind, then what all may have."""
        common = {
            name: key.shape.shown(each) for name, key in self.common.items() if is_set(key, each := value.common[name])
        }
        return {value.kind: self.kinds[value.kind].shape.shown(value.options), **common}
