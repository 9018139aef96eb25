"""Patterns, against sentences and against an oracle that knows no regular expressions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.errors import ConfigurationError
from opsd.sources import patterns


def matches(pattern: str, path: str, *, folder: bool = False) -> bool:
    name = path.rpartition("/")[2].encode()
    return patterns.compile([pattern]).matches(path.encode(), name, folder)


def test_a_pattern_without_slash_matches_the_name_in_any_folder() -> None:
    assert matches("*.tmp", "/a.tmp")
    assert matches("*.tmp", "/srv/www/.tmp")
    assert not matches("*.tmp", "/srv/x.tmp/file")
    assert matches("**/core", "/srv/core")


def test_a_slash_in_front_anchors_the_pattern() -> None:
    assert matches("/srv/www/cache", "/srv/www/cache")
    assert not matches("/srv/www/cache", "/old/srv/www/cache")
    assert matches("www/cache", "/old/srv/www/cache")
    assert not matches("www/cache", "/srv/xwww/cache")


def test_a_slash_at_the_end_means_folders_only() -> None:
    assert matches("/srv/www/cache/", "/srv/www/cache", folder=True)
    assert not matches("/srv/www/cache/", "/srv/www/cache")
    assert not matches("build/", "/x/build")


def test_two_stars_cross_folders_and_one_does_not() -> None:
    assert matches("/srv/**/log", "/srv/log")
    assert matches("/srv/**/log", "/srv/a/b/log")
    assert not matches("/srv/*/log", "/srv/a/b/log")
    assert matches("/srv/www/**", "/srv/www/a/b")
    assert not matches("/srv/www/**", "/srv/www")


def test_sets_ranges_and_escapes_stand_for_one_byte() -> None:
    assert matches("[a-c]?.[!x]", "/b9.y")
    assert not matches("[a-c]?.[!x]", "/b9.x")
    assert matches("[]x]", "/]")
    assert matches(r"\*\[", "/*[")
    assert matches("[open", "/[open")
    assert not matches("[!a]", "/a")
    assert matches(r"[\]]", "/]")
    assert matches("[a-]", "/-")


def test_a_name_that_is_not_utf8_is_matched_byte_by_byte() -> None:
    rules = patterns.compile(["*.\udcff"])
    assert rules.matches(b"/a.\xff", b"a.\xff", False)


def test_the_last_rule_that_matches_decides() -> None:
    rules = patterns.compile(["*.tmp", "!keep.tmp"])
    assert rules.matches(b"/a/x.tmp", b"x.tmp", False)
    assert not rules.matches(b"/a/keep.tmp", b"keep.tmp", False)


def test_a_range_that_goes_downwards_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"\[z-a\]"):
        patterns.compile(["[z-a]"])


def test_many_stars_do_not_make_a_match_slow() -> None:
    name = b"a" * 255
    assert not patterns.compile(["*a" * 60 + "b"]).matches(b"/" + name, name, False)


def test_a_selected_folder_brings_all_below_it_unless_a_nearer_rule_takes_it_back() -> None:
    rules = patterns.compile(["/srv/www", "!/srv/www/cache"])
    assert rules.selects(b"/srv/www")
    assert rules.selects(b"/srv/www/a/b")
    assert not rules.selects(b"/srv/www/cache/x")
    assert not rules.selects(b"/srv/wwwx")
    assert patterns.compile(["/"]).selects(b"/any/thing")


@pytest.mark.parametrize("pattern", ["*/", "**/", "/*/", "**/*/", "/**/*/"])
def test_a_star_is_a_name_and_the_root_has_none(pattern: str) -> None:
    rules = patterns.compile([pattern])
    assert not rules.matches(b"/", b"", True)
    assert not rules.selects(b"/file")
    assert rules.selects(b"/folder/file")


def test_a_folder_on_the_way_to_a_match_is_reached() -> None:
    rules = patterns.compile(["/srv/w*/cache/x"])
    assert [rules.reaches(path) for path in (b"/", b"/srv", b"/srv/www", b"/srv/www/cache")] == [True] * 4
    assert not rules.reaches(b"/srv/www/cache/x")
    assert not rules.reaches(b"/etc")
    assert patterns.compile(["/srv/**"]).reaches(b"/srv/a/b")
    assert patterns.compile(["*.conf"]).reaches(b"/etc")
    assert not patterns.compile(["*.conf"]).reaches(b"/etc", anchored_only=True)


def _glob(pattern: str, name: str) -> bool:
    """Whether a part matches, decided byte by byte by the plain definition."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_glob(pattern[1:], name[cut:]) for cut in range(len(name) + 1))
    if pattern.startswith("[ab]"):
        return name[:1] in {"a", "b"} and _glob(pattern[4:], name[1:])
    return bool(name) and pattern[0] in {"?", name[0]} and _glob(pattern[1:], name[1:])


def _parts_match(wanted: list[str], parts: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted == ["**"]:
        return bool(parts)
    if wanted[0] == "**":
        return any(_parts_match(wanted[1:], parts[cut:]) for cut in range(len(parts) + 1))
    return bool(parts) and _glob(wanted[0], parts[0]) and _parts_match(wanted[1:], parts[1:])


def oracle(rules: list[str], path: str, *, folder: bool) -> bool:
    verdict = False
    for rule in rules:
        negated, body = rule.startswith("!"), rule.removeprefix("!")
        wanted = [part for part in body.split("/") if part]
        if not body.startswith("/"):
            wanted = wanted if wanted == ["**"] else ["**", *wanted]
        if (folder or not body.endswith("/")) and _parts_match(wanted, path.strip("/").split("/")):
            verdict = not negated
    return verdict


_PART = st.one_of(
    st.just("**"), st.lists(st.sampled_from(["a", "b", "c", "*", "?", "[ab]"]), min_size=1, max_size=4).map("".join)
)
_PATTERN = st.builds(
    lambda negated, front, parts, end: negated + front + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(_PART, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
_PATH = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4)


@given(rules=st.lists(_PATTERN, max_size=4), parts=_PATH, folder=st.booleans())
def test_any_list_of_patterns_decides_as_the_oracle_does(*, rules: list[str], parts: list[str], folder: bool) -> None:
    matcher = patterns.compile(rules)
    path, name = ("/" + "/".join(parts)).encode(), parts[-1].encode()
    expected = oracle(rules, path.decode(), folder=folder)
    assert matcher.matches(path, name, folder) is expected
    if expected:
        assert name in matcher.candidates([b"zz", name, b"y"])
        above = [b"/" + "/".join(parts[:count]).encode() for count in range(len(parts))]
        assert all(matcher.reaches(each) for each in above)


@given(rules=st.lists(_PATTERN, max_size=3), parts=_PATH)
def test_selection_is_decided_by_the_nearest_level_that_a_rule_names(rules: list[str], parts: list[str]) -> None:
    expected = False
    for count in range(1, len(parts) + 1):
        path, folder = "/" + "/".join(parts[:count]), count < len(parts)
        named = [rule for rule in rules if oracle([rule.removeprefix("!")], path, folder=folder)]
        expected = not named[-1].startswith("!") if named else expected
    assert patterns.compile(rules).selects(("/" + "/".join(parts)).encode()) is expected
