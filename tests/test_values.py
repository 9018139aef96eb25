"""Classes made by `opsd.values` against the same ones made by the standard library."""

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any

import pytest

from opsd import values


def _frozen(make: Callable[..., Any]) -> Any:
    @make(frozen=True, slots=True, kw_only=True)
    class Value:
        """A value."""

        name: str
        size: int = 0
        parts: list[int] = field(default_factory=list, compare=False)
        secret: str = field(default="", repr=False)

    return Value


def _plain(make: Callable[..., Any]) -> Any:
    @make(slots=True)
    class Value:
        """A thing."""

        name: str
        parts: list[int] = field(default_factory=list)
        size: int = field(default=1, kw_only=True)

        @property
        def doubled(self) -> int:
            return self.size * 2

    return Value


OURS, THEIRS = _frozen(values.dataclass), _frozen(dataclasses.dataclass)
OUR_THING, THEIR_THING = _plain(values.dataclass), _plain(dataclasses.dataclass)


def test_a_value_reads_as_the_standard_librarys_does() -> None:
    given = {"name": "a", "size": 3, "secret": "no"}
    assert repr(OURS(**given)) == repr(THEIRS(**given))
    assert repr(OUR_THING("a", [1], size=2)) == repr(THEIR_THING("a", [1], size=2))


def test_fields_are_those_of_the_standard_library() -> None:
    assert [(each.name, each.kw_only) for each in fields(OURS)] == [
        (each.name, each.kw_only) for each in fields(THEIRS)
    ]
    assert OURS.__slots__ == THEIRS.__slots__
    assert OUR_THING.__match_args__ == THEIR_THING.__match_args__
    assert dataclasses.asdict(OURS(name="a", parts=[1])) == dataclasses.asdict(THEIRS(name="a", parts=[1]))


def test_values_are_equal_where_each_compared_field_is_and_hash_alike() -> None:
    assert OURS(name="a", parts=[1]) == OURS(name="a", parts=[2])
    assert hash(OURS(name="a", parts=[1])) == hash(OURS(name="a", parts=[2]))
    assert OURS(name="a") != OURS(name="b")
    assert OURS(name="a", secret="x") != OURS(name="a")
    assert OURS(name="a") != THEIRS(name="a")


def test_a_value_of_one_field_and_one_of_none_compare_too() -> None:
    @values.dataclass(frozen=True)
    class One:
        """One field."""

        name: str

    @values.dataclass(frozen=True)
    class Empty:
        """No field."""

    assert (One("a") == One("a"), One("a") == One("b"), Empty() == Empty()) == (True, False, True)
    assert len({One("a"), One("a"), Empty(), Empty()}) == 2


def test_what_can_be_changed_has_no_hash_and_what_is_not_compared_is_itself() -> None:
    @values.dataclass(slots=True, eq=False)
    class Itself:
        """Compared by identity."""

        name: str

    @values.dataclass(slots=True)
    class Thing:
        """One field, and it may change."""

        name: str

    with pytest.raises(TypeError, match="Thing"):
        hash(Thing("a"))
    assert Itself("a") != Itself("a")
    assert len({Itself("a"), Itself("a")}) == 2


def test_a_frozen_value_can_neither_be_changed_nor_lose_a_field() -> None:
    value = OURS(name="a")
    with pytest.raises(FrozenInstanceError, match="name"):
        value.name = "b"
    with pytest.raises(FrozenInstanceError, match="name"):
        del value.name
    with pytest.raises(FrozenInstanceError):
        value.other = 1
    assert value == OURS(name="a")
    assert replace(value, name="b") == OURS(name="b")


def test_each_value_gets_a_default_of_its_own() -> None:
    first, second = OUR_THING("a"), OUR_THING("b")
    first.parts.append(1)
    assert (first.parts, second.parts, second.size, second.doubled) == ([1], [], 1, 2)


@pytest.mark.parametrize("given", [{}, {"name": "a", "other": 1}])
def test_an_argument_that_is_missing_or_unknown_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        OURS(**given)


def test_a_keyword_field_can_not_be_given_by_place() -> None:
    with pytest.raises(TypeError):
        OURS("a")
    with pytest.raises(TypeError):
        OUR_THING("a", [], 2)


def test_a_class_of_the_standard_library_may_inherit_from_it() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class More(OURS):  # type: ignore[misc, valid-type]
        """One field more."""

        more: int = 1

    assert repr(More(name="a")).endswith("More(name='a', size=0, parts=[], more=1)")
    with pytest.raises(FrozenInstanceError):
        More(name="a").more = 2  # type: ignore[misc]
