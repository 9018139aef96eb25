"""The example and the schema say what the model says, and are the ones in `config/`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from opsd.errors import ConfigurationError
from opsd.settings import example, load, schema, shown
from opsd.settings.rendering import flow

CONFIG = Path(__file__).parents[2] / "config"

MAKE = "make it anew: opsd config generate > config/opsd.yaml; opsd config schema > config/schema.json"


def uncommented(text: str) -> str:
    """With every key set; a remark has a space after its '#'."""
    return re.sub(r"^( *)#(?=\S)", r"\1", text, flags=re.MULTILINE)


def check(document: Any) -> None:
    jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)


def test_the_example_in_the_repository_is_the_generated_one() -> None:
    assert (CONFIG / "opsd.yaml").read_text() == example(), MAKE


def test_the_schema_in_the_repository_is_the_generated_one() -> None:
    assert json.loads((CONFIG / "schema.json").read_text()) == schema(), MAKE


def test_the_example_is_accepted_as_it_stands_and_with_every_key_set(tmp_path: Path) -> None:
    path = tmp_path / "opsd.yaml"
    for text in (example(), uncommented(example())):
        path.write_text(text)
        check(yaml.safe_load(text))
        check(json.loads(json.dumps(shown(load(path)))))


def test_a_key_that_is_commented_out_shows_its_default_where_it_has_one(tmp_path: Path) -> None:
    plain, whole = tmp_path / "plain.yaml", tmp_path / "whole.yaml"
    plain.write_text(example())
    whole.write_text(uncommented(example()))
    before, after = load(plain), load(whole)
    assert before.schedule == after.schedule
    assert before.cache == after.cache
    mail = {source.label: source for source in after.sources}["mail"]
    assert mail in before.sources


def keys_of(part: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property in a schema, but the kinds of secrets."""
    for name, each in part.get("properties", {}).items():
        yield name, each
        if "maxProperties" not in each:
            yield from keys_of(each)
    for inside in ("additionalProperties", "items"):
        if isinstance(part.get(inside), dict):
            yield from keys_of(part[inside])


def test_every_key_has_one_line_of_explanation_and_stands_in_the_example() -> None:
    keys = dict(keys_of(schema()))
    assert len(keys) > 50
    for name, each in keys.items():
        assert re.search(rf"\b{name}:", example()), name
        assert each["description"].endswith("."), name
        assert "\n" not in each["description"], name
    assert max(map(len, example().splitlines())) <= 130


@pytest.mark.parametrize(
    "change",
    [
        {"retention": {"keep_dayly": 3}},
        {"sources": {}},
        {"sources": {"A": {"sqlite": {"path": "/a"}}}},
        {"sources": {"a": {"sqlite": {"path": "/a"}, "command": {"run": ["x"], "name": "x"}}}},
        {"sources": {"a": {"command": {"run": ["x"], "name": ".."}}}},
        {"passphrase": "secret"},
        {"passphrase": {"file": "/a", "env": "B"}},
        {"repository": "relative"},
        {"version": 2},
        {"copies": {}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_loading_refuses(change: dict[str, Any], tmp_path: Path) -> None:
    document = {**yaml.safe_load(example()), **change}
    with pytest.raises(jsonschema.ValidationError):
        check(document)
    path = tmp_path / "opsd.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError):
        load(path)


@pytest.mark.parametrize(
    "value", ["no", "~", "-", "a: b", "#", "*", "", "04:00", "1", "é", "a\nb", "--all", "/a", "5m", True, 7, [], {}]
)
def test_a_value_on_one_line_reads_back(value: Any) -> None:
    assert yaml.safe_load(f"[{flow(value)}]") == [value]
