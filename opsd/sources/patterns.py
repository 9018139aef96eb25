"""Match absolute paths against patterns as in gitignore, on bytes.

Promise: pure; of a list the last rule that matches decides. No pattern takes more than polynomial time.

    *.tmp               that name, in any folder
    /srv/www/cache/     that folder only; a slash at the end means folders only
    www/cache           with a slash inside but none in front: at any depth
    /srv/**/log         any number of folders between, none included
    /srv/www/**         everything below, not the folder itself
    * ? [a-z] [!a-z]    never match a slash; a backslash takes the next character as it is
    !important.tmp      takes back what a rule before it said
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from opsd.errors import ConfigurationError
from opsd.values import dataclass

_ANY = b"**"
_SPECIAL = re.compile(rb"[*?\[\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One pattern, read: `parts` between slashes, `floating` when it may begin at any depth."""

    parts: tuple[bytes, ...]
    floating: bool
    negated: bool
    folders_only: bool
    regex: re.Pattern[bytes]
    way: re.Pattern[bytes]

    def matches(self, path: bytes, name: bytes, is_folder: bool) -> bool:  # noqa: FBT001 - an inner call per entry
        """Whether the rule is about this entry, negated or not."""
        if self.folders_only and not is_folder:
            return False
        by_name = self.floating and len(self.parts) == 1
        return self.regex.fullmatch(name if by_name else path) is not None


class Matcher:
    """A list of rules in order; made by `compile`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._backwards = tuple(reversed(rules))
        lasts = {rule.parts[-1] for rule in rules if rule.parts and not rule.negated}
        self._names = frozenset(last for last in lasts if not _SPECIAL.search(last))
        wild = sorted(_component(last) for last in lasts - self._names)
        self._wild = re.compile(b"/(" + b"|".join(wild) + b")(?=/)") if wild else None

    def __bool__(self) -> bool:
        return bool(self._backwards)

    def matches(self, path: bytes, name: bytes, is_folder: bool) -> bool:  # noqa: FBT001 - an inner call per entry
        """Whether the rules say yes to the entry at `path`, whose last part is `name`; what lies above it doesn't count."""
        return self._verdict(path, name, is_folder) or False

    def candidates(self, names: Sequence[bytes]) -> frozenset[bytes]:
        """Those of a folder's names that some rule may match; all others certainly match none."""
        found = self._names.intersection(names)
        if self._wild is None or not names:
            return found
        return found.union(self._wild.findall(b"/%s/" % b"/".join(names)))

    def selects(self, path: bytes, *, is_folder: bool = False) -> bool:
        """Whether a rule names the path or a folder above it; the nearest one that a rule names decides."""
        while True:
            verdict = self._verdict(path, path.rpartition(b"/")[2], is_folder)
            if verdict is not None or path == b"/":
                return verdict or False
            path, is_folder = path.rpartition(b"/")[0] or b"/", True

    def reaches(self, folder: bytes, *, anchored_only: bool = False) -> bool:
        """Whether something below the folder may match; `anchored_only` leaves out rules that begin at any depth."""
        return any(
            not anchored_only if rule.floating else rule.way.fullmatch(folder) is not None
            for rule in self._backwards
            if not rule.negated
        )

    def _verdict(self, path: bytes, name: bytes, is_folder: bool) -> bool | None:  # noqa: FBT001 - as matches
        for rule in self._backwards:
            if rule.matches(path, name, is_folder):
                return not rule.negated
        return None


def compile(patterns: Iterable[str | bytes]) -> Matcher:  # noqa: A001 - as re.compile: always called with its module's name
    """The matcher of these patterns; empty ones are ignored.

    Raises:
        ConfigurationError: a range such as [z-a] holds nothing.
    """
    return Matcher([_rule(os.fsencode(pattern)) for pattern in patterns if pattern])


def _rule(pattern: bytes) -> Rule:
    negated = pattern.startswith(b"!")
    body = pattern[1:] if negated else pattern
    parts = tuple(part for part in body.split(b"/") if part)
    floating = bool(parts) and (not body.startswith(b"/") or (parts[0] == _ANY and len(parts) == 2))
    if floating and len(parts) > 1 and parts[0] == _ANY:
        parts = parts[1:]
    try:
        return Rule(
            parts=parts,
            floating=floating,
            negated=negated,
            folders_only=body.endswith(b"/") and bool(parts),
            regex=re.compile(_whole(parts, floating=floating)),
            way=re.compile(b"/|" + _way(parts)),
        )
    except re.error as cause:
        text = f"pattern {os.fsdecode(pattern)}: {cause}"
        raise ConfigurationError((text,), hint="a range goes upwards, as in [a-z]") from cause


def _whole(parts: tuple[bytes, ...], *, floating: bool) -> bytes:
    if not parts:
        return b"/"
    if floating and len(parts) == 1:
        return _component(parts[0])
    steps = [b"(?:/[^/]+)*"] if floating else []
    steps += [b"(?:/[^/]+)*" if part == _ANY else b"/" + _component(part) for part in parts[:-1]]
    return b"".join(steps) + (b"(?:/[^/]+)+" if parts[-1] == _ANY else b"/" + _component(parts[-1]))


def _way(parts: tuple[bytes, ...]) -> bytes:
    """Matches the folders that a path must go through to match all parts: each true beginning of them."""
    source = b""
    for part in reversed(parts if parts[-1:] == (_ANY,) else parts[:-1]):
        source = b"(?:/[^/]+)*" if part == _ANY else b"(?:/" + _component(part) + source + b")?"
    return source


def _component(part: bytes) -> bytes:
    """The regular expression of one part. Stars are cut off atomically, so no pattern backtracks more than once a star."""
    pieces: list[bytes] = [b""]
    for token in _tokens(part):
        if token is not None:
            pieces[-1] += token
        elif pieces[-1] or len(pieces) == 1:
            pieces.append(b"")
    first, *middle = pieces
    if not middle:
        return first
    if pieces == [b"", b""]:
        return b"[^/]+"  # Any name, but the root has none.
    return first + b"".join(b"(?>[^/]*?" + piece + b")" for piece in middle[:-1]) + b"[^/]*" + middle[-1]


def _tokens(part: bytes) -> Iterator[bytes | None]:
    """Expressions of one byte each; None for a star."""
    place = 0
    while place < len(part):
        byte = part[place : place + 1]
        end = _set_end(part, place) if byte == b"[" else 0
        if end:
            yield _set(part[place + 1 : end])
            place = end
        elif byte == b"\\" and place + 1 < len(part):
            place += 1
            yield re.escape(part[place : place + 1])
        else:
            yield {b"*": None, b"?": b"[^/]"}.get(byte, re.escape(byte))
        place += 1


def _set_end(part: bytes, place: int) -> int:
    """Where the set that opens at `place` closes, or 0: then the bracket stands for itself."""
    start = place + 1 + (part[place + 1 : place + 2] in {b"!", b"^"})
    end = start + 1 + (part[start : start + 1] == b"\\")  # A closing bracket in first place belongs to the set.
    while end < len(part) and part[end : end + 1] != b"]":
        end += 1 + (part[end : end + 1] == b"\\")
    return end if end < len(part) else 0


def _set(inside: bytes) -> bytes:
    negated = inside[:1] in {b"!", b"^"}
    source = bytearray()
    escaped = False
    for place, byte in enumerate(inside[1:] if negated else inside):
        if byte == ord("\\") and not escaped:
            escaped = True
            continue
        plain = byte == ord("-") and not escaped and place > 0
        source += b"-" if plain else b"\\x%02x" % byte
        escaped = False
    return b"(?:(?!/)[" + (b"^" if negated else b"") + bytes(source) + b"])"
