"""The commented example and the JSON Schema, from the model.

Promise: every key stands in the example with its one line and its default; it is accepted as it stands, and also with
every `#key:` line uncommented (a remark has a space after its `#`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from opsd.settings.model import CONFIGURATION
from opsd.settings.shapes import ABSENT, Converted, Key, MapOf, OneOf, Record, Schema, Shape

_HEADER = """\
# The configuration of opsd. Made from its model by 'opsd config generate': every key, with one line and its default.
# Remove the '#' before a key (and before the section that it stands in) to set it. 'opsd config validate' checks the result.
"""
#: A sample that is longer is written as a section.
_WIDE = 80
_PLAIN = re.compile(r"[A-Za-z/-][A-Za-z0-9_./-]*|[0-9]+[A-Za-z]+")
_NOT_PLAIN = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "-", "--", "---"}


def schema() -> Schema:
    """The whole configuration as JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "opsd.yaml",
        **CONFIGURATION.schema(),
    }


def example() -> str:
    """The commented example."""
    examples = {name: key.example for name, key in CONFIGURATION.keys.items() if key.example is not ABSENT}
    blocks = ["\n".join(_key(name, key, examples, "")) for name, key in CONFIGURATION.keys.items()]
    return _HEADER + "\n" + "\n\n".join(blocks) + "\n"


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_PLAIN:
        return value
    return json.dumps(value, ensure_ascii=False)


def _inner(shape: Shape) -> Shape:
    return _inner(shape.shape) if isinstance(shape, Converted) else shape


def _key(name: str, key: Key, given: Mapping[str, Any], indent: str, default: Any = ABSENT) -> Iterator[str]:
    """The lines of one key: active if a value is given, else commented out with its default."""
    yield f"{indent}# {key.says}"
    shape = _inner(key.shape)
    if name in given:
        if isinstance(shape, Record | MapOf | OneOf):
            yield f"{indent}{name}:"
            yield from _section(shape, given[name], indent + "  ")
        else:
            yield f"{indent}{name}: {flow(given[name])}"
    elif isinstance(shape, Record) and key.sample is ABSENT:
        yield f"{indent}#{name}:"
        yield from _section(shape, {}, indent + "  ")
    elif isinstance(shape, MapOf) and key.sample is not ABSENT and len(flow(key.sample)) > _WIDE:
        yield f"{indent}#{name}:"
        yield from map(_commented, _section(shape, key.sample, indent + "  "))
    else:
        yield f"{indent}#{name}: {flow(key.shape.shown(default) if key.sample is ABSENT else key.sample)}"


def _commented(line: str) -> str:
    """The line as a key that is not set."""
    text = line.lstrip()
    return line if text.startswith("#") else f"{line[: len(line) - len(text)]}#{text}"


def _section(shape: Shape, given: Mapping[str, Any], indent: str, *, first: bool = True) -> Iterator[str]:
    if isinstance(shape, Record):
        defaults = shape.defaults()
        for name, key in shape.keys.items():
            yield from _key(name, key, given, indent, defaults.get(name))
    elif isinstance(shape, MapOf):
        for number, (label, value) in enumerate(given.items()):
            yield f"{indent}{label}:"
            yield from _section(_inner(shape.value), value, indent + "  ", first=number == 0)
    elif isinstance(shape, OneOf):
        for kind in given:
            yield from _key(kind, shape.kinds[kind], given, indent)
        # What all kinds share stands once.
        for name, key in shape.common.items() if first else ():
            yield from _key(name, key, given, indent, shape.defaults[name])
