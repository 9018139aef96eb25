"""How far a stage is, in words: what is done of how much, how fast, and about how long it still takes.

Promise: pure. What is only known from the last time is marked with `~`, and left out once it has been passed; so is what a narrow
terminal has no room for, the least important first.
"""

from typing import Final

from opsd.cli import output
from opsd.events import Total
from opsd.values import dataclass

_BETWEEN: Final = "  "
#: Before this, what has passed tells little about what is to come, in seconds.
_EARLY: Final = 3.0
#: What is given up first where there is no room.
_GIVEN_UP: Final = ("rate", "files", "share", "left", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A stage at work: what it is called and comes to, how much of it was done in how many seconds, bytes a second now."""

    name: str
    total: Total
    files: int
    size: int
    seconds: float
    rate: float

    @property
    def share(self) -> float:
        """Which part is done, 0 to 1; 0 where nothing tells.

        The further of files and bytes: of many small files the number says more, of one large file only the bytes.
        """
        known = [(done, whole) for done, whole in self._both() if whole]
        if any(done > whole for done, whole in known):
            return 0.0
        return max((done / whole for done, whole in known), default=0.0)

    def _both(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.files, self.total.files), (self.size, self.total.size)

    @property
    def left(self) -> float | None:
        """About how many seconds it still takes, or None."""
        share = self.share
        return self.seconds * (1 - share) / share if share and self.seconds >= _EARLY else None


def text(pace: Pace, width: int) -> str:
    """A line of at most that many columns, if its name leaves room for anything."""
    parts = _parts(pace)
    for name in _GIVEN_UP:
        line = _BETWEEN.join(part for part in parts.values() if part)
        if len(line) <= width:
            return line
        parts[name] = ""
    return parts["name"][:width]


def _parts(pace: Pace) -> dict[str, str]:
    about = "~" if pace.total.estimated else ""
    left = pace.left
    return {
        "name": output.plain(pace.name),
        "share": f"{about}{int(100 * pace.share)}%" if pace.share else "",
        "size": _size(pace, about),
        "files": _files(pace, about),
        "rate": f"{output.size(int(pace.rate))}/s" if pace.rate else "",
        "left": f"~{span(left)} left" if left else "",
    }


def _size(pace: Pace, about: str) -> str:
    done, whole = output.size(pace.size), output.size(pace.total.size)
    if pace.size > pace.total.size:
        return done
    if not pace.total.size:
        return ""
    number, unit = done.split()
    return f"{number if whole.endswith(unit) and pace.size >= 1024 else done} of {about}{whole}"


def _files(pace: Pace, about: str) -> str:
    if pace.files > pace.total.files:
        return output.count(pace.files, "file")
    return f"{pace.files:,} of {about}{output.count(pace.total.files, 'file')}" if pace.total.files else ""


def span(seconds: float) -> str:
    """A span that nobody takes for exact: `40 s`, `3 min`, `2 h 10 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
