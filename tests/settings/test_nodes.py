"""YAML becomes nodes with their places, and no text makes it fail or grow."""

import re

import pytest

from opsd.errors import ConfigurationError
from opsd.settings.nodes import LARGEST, Items, Pairs, Place, Reading, Scalar, merged, parse


def read(content: str | bytes) -> Pairs:
    reading = Reading()
    node = parse("a.yaml", content.encode() if isinstance(content, str) else content, reading)
    reading.finish()
    return node


def mistakes(content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(content)
    return caught.value.mistakes


def test_each_node_knows_where_it_stands() -> None:
    root = read("a: x\nb:\n  - y\n  - {c: z}\n")
    assert isinstance(root, Pairs)
    place, node = root.pairs["b"]
    assert str(place) == "a.yaml:2:1"
    assert isinstance(node, Items)
    inner = node.items[1]
    assert isinstance(inner, Pairs)
    assert inner.pairs["c"] == (Place("a.yaml", 4, 6), Scalar(Place("a.yaml", 4, 9), "z", plain=True))


@pytest.mark.parametrize("text", ["no", "04:00", "0x10", "1_000", "2026-11-24", "~", "1e3"])
def test_a_scalar_keeps_its_text_as_written(text: str) -> None:
    node = read(f"a: {text}").pairs["a"][1]
    assert isinstance(node, Scalar)
    assert (node.text, node.plain) == (text, True)


def test_quotes_are_remembered() -> None:
    node = read("a: 'x'").pairs["a"][1]
    assert isinstance(node, Scalar)
    assert not node.plain


@pytest.mark.parametrize("content", ["", "# only a remark\n", "\ufeff"])
def test_a_file_without_content_is_an_empty_mapping(content: str) -> None:
    assert read(content).pairs == {}


@pytest.mark.parametrize(
    "content, mistake",
    [
        ("a: b: c\n", "a.yaml:1:5 syntax: mapping values are not allowed in this context"),
        ("a: [1\n", "a.yaml:2:1 syntax: did not find expected ',' or ']'"),
        ("a: 'x\n", "a.yaml:2:1 syntax: found unexpected end of stream"),
        ("a:\n\t- b\n", "a.yaml:2:1 syntax: found character that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1 syntax: a file holds one document, without a second '---'"),
        ("- a\n", "a.yaml:1:1 syntax: a configuration is a mapping: key: value"),
        ("a\n", "a.yaml:1:1 syntax: a configuration is a mapping: key: value"),
        ("a: *b\n", "a.yaml:1:4 syntax: this alias (*) names no anchor (&) before it"),
        ("a: &b [*b]\n", "a.yaml:1:8 syntax: this alias (*) names no anchor (&) before it"),
        ("ä: é\na: \x07\n", "a.yaml:2:4 syntax: a control character (U+0007) can't stand here"),
        ("a: 1\na: 2\n", "a.yaml:2:1 a: set twice, first at a.yaml:1:1"),
        ("b: {a: 1, a: 2}\n", "a.yaml:1:11 b.a: set twice, first at a.yaml:1:5"),
        ("[a]: 1\n", "a.yaml:1:1 ?: a key is a plain word"),
        ("a: !secret x\n", "a.yaml:1:4 a: tags (!) are not used here"),
        ("a: [!!python/object:os.system x]\n", "a.yaml:1:5 a[0]: tags (!) are not used here"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(content: str, mistake: str) -> None:
    assert mistakes(content) == (mistake,)


def test_what_is_not_utf8_is_told_with_its_place() -> None:
    assert mistakes("ä: 1\nb: é".encode() + b"\xff") == ("a.yaml:2:5 syntax: this is not UTF-8",)


def test_a_file_that_is_too_large_is_not_read() -> None:
    assert mistakes(b"#" * (LARGEST + 1)) == ("a.yaml:1:1 syntax: the file is larger than 1 MiB",)


@pytest.mark.parametrize("content", ["[" * 50_000, "{a: " * 20_000, "- " * 20_000])
def test_nesting_has_a_limit(content: str) -> None:
    assert re.search("nested more than 20 levels|exceeded maximum nesting", mistakes(content)[0])


def test_an_anchor_may_be_used_again() -> None:
    root = read("a: &x [1, 2]\nb: *x\n")
    assert root.pairs["a"][1] == root.pairs["b"][1]


def test_aliases_that_would_grow_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "has over 100000 values" in mistakes("\n".join(lines))[0]


def joined(*contents: str) -> Pairs:
    reading = Reading()
    first, second = (parse(f"{n}.yaml", content.encode(), reading) for n, content in enumerate(contents))
    both = merged(first, second, reading)
    reading.finish()
    return both


def test_of_two_files_mappings_join_and_lists_append() -> None:
    both = joined("a: {x: 1}\nl: [1]\n", "a: {y: 2}\nl: [2, 3]\nb: 4\n")
    assert list(both.pairs) == ["a", "l", "b"]
    mapping, items = both.pairs["a"][1], both.pairs["l"][1]
    assert isinstance(mapping, Pairs)
    assert isinstance(items, Items)
    assert list(mapping.pairs) == ["x", "y"]
    assert len(items.items) == 3


@pytest.mark.parametrize("other", ["2", "[2]", "{b: 2}"])
def test_a_key_set_in_two_files_is_a_mistake(other: str) -> None:
    with pytest.raises(ConfigurationError, match=r"1\.yaml:1:5 m\.a: set twice, first at 0\.yaml:2:3"):
        joined("m:\n  a: 1\n", f"m: {{a: {other}}}\n")


def test_mistakes_are_told_in_the_order_of_files_and_lines() -> None:
    reading = Reading()
    for file in ("z.yaml", "a.yaml"):
        reading.begin(file)
    for place in (Place("a.yaml", 1, 1), Place("z.yaml", 10, 1), Place("z.yaml", 9, 5), Place("z.yaml", 9, 4)):
        reading.mistake(place, "k", "wrong")
    with pytest.raises(ConfigurationError) as caught:
        reading.finish()
    assert [line.split()[0] for line in caught.value.mistakes] == [
        "z.yaml:9:4",
        "z.yaml:9:5",
        "z.yaml:10:1",
        "a.yaml:1:1",
    ]
