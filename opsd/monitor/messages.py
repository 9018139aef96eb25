"""What an alert says: a short text that is an SMS or a subject, and a long one.

Pure. Promise: the short text has at most 160 characters and names the host, what is wrong and the next step. No control character gets
in, and no path: errors name files, and a message passes through many hands.
"""

import re
from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from opsd import clock
from opsd.monitor.alerts import Event
from opsd.monitor.problems import Problem, Severity
from opsd.monitor.spool import Note
from opsd.values import dataclass

#: What an SMS holds, in characters.
SHORT: Final = 160
_HOST: Final = 40
_NEXT: Final = 60
#: Less of a title says nothing.
_SHARE: Final = 24
#: A cut of plain letters: one that is not in their alphabet would halve what an SMS holds (3GPP TS 23.038).
_CUT: Final = "..."
#: An absolute path, and words after a blank in it as long as they have a slash too.
_PATH: Final = re.compile(r"""(?<![^\s'"(\[])/[^\s:'"]+(?:\s+[^\s:'"]*/[^\s:'"]*)*""")
_ENDS: Final = (".", "?", "!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent. `severity` is the worst that is still open; None: it is an all-clear."""

    short: str
    long: str
    severity: Severity | None


def message(host: str, notes: Sequence[Note], zone: tzinfo) -> Message:
    """One message of all that waits for an address."""
    ended = [each for each in notes if each.event is Event.ENDED]
    present = [each for each in notes if each.event is not Event.ENDED]
    present.sort(key=lambda each: each.incident.problem.severity is not Severity.CRITICAL)
    severity = present[0].incident.problem.severity if present else None
    return Message(
        short=_short(host, present, ended), long="\n".join(_long(host, present, ended, zone)) + "\n", severity=severity
    )


def plain(text: str) -> str:
    """One line without control characters."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def _title(problem: Problem) -> str:
    return _without_paths(problem.title)


def _step(problem: Problem) -> str:
    return _without_paths(problem.next_step)


def _without_paths(text: str) -> str:
    return _PATH.sub("(path)", plain(text))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - len(_CUT))] + _CUT


def _short(host: str, present: Sequence[Note], ended: Sequence[Note]) -> str:
    head = f"opsd {_cut(plain(host), _HOST)}: "
    if not present:
        head += "all clear, this has ended: "
        return head + _titles(ended, SHORT - len(head))
    again = "still " if all(each.event is Event.REPEATED for each in present) else ""
    tail = " Next: opsd status"
    if len(present) > 1:
        head += f"{again}{len(present)} problems: "
    else:
        head += "still: " if again else ""
        tail = f" Next: {_cut(_step(present[0].incident.problem), _NEXT)}"
    room = SHORT - len(head) - len(tail) - 1
    over = f"; ended: {_titles(ended, room // 3)}" if ended else ""
    what = _titles(present, room - len(over)) + over
    return head + (what if what.endswith(_ENDS) else f"{what}.") + tail


def _titles(notes: Sequence[Note], room: int) -> str:
    """As many as there is room for; where they are too long, each gets its share, so that one does not hide the others."""
    titles = [_title(each.incident.problem) for each in notes]
    if len("; ".join(titles)) > room:
        titles = [_cut(each, max(_SHARE, (room + 2) // len(titles) - 2)) for each in titles]
    return _cut("; ".join(titles), room)


def _long(host: str, present: Sequence[Note], ended: Sequence[Note], zone: tzinfo) -> list[str]:
    lines = []
    for note in present:
        lines += _described(note.incident.problem, zone)
        if note.incident.acknowledged is not None:
            lines.append("  acknowledged meanwhile")
        lines.append("")
    if ended:
        lines += ["All clear, this has ended:", *(f"  {_span(each, zone)}" for each in ended), ""]
    if present:
        lines += [f"On {plain(host)}, 'opsd status' shows the whole picture. Whoever takes care of it runs"]
        key = plain(present[0].incident.key) if len(present) == 1 else "--all"
        lines += [f"  opsd ack {key}", "and it is not told again until it has ended."]
    return lines or [f"On {plain(host)}, nothing is wrong."]


def _described(problem: Problem, zone: tzinfo) -> list[str]:
    return [
        f"{str(problem.severity).upper()}: {_title(problem)}",
        f"  since: {_moment(problem.since, zone)}",
        f"  next: {_step(problem)}",
    ]


def _span(note: Note, zone: tzinfo) -> str:
    incident = note.incident
    gone = incident.gone or incident.ended or incident.opened
    return f"{_title(incident.problem)} (from {_moment(incident.problem.since, zone)} to {_moment(gone, zone)})"


def _moment(time: int, zone: tzinfo) -> str:
    return f"{clock.local(time, zone):%Y-%m-%d %H:%M %Z}"
