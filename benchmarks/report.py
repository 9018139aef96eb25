"""Turn the bench's figures into one table for people and one file for programs.

A figure is the best of the rounds, with the median behind it; a share is opsd's best wall time (or size) by restic's best.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.limit import Limit

MEBIBYTE = 1 << 20
MEMORY_TARGET = 150 * MEBIBYTE

#: opsd's share of restic's figure to reach.
TARGETS = {
    "files: first": 0.5,
    "files: unchanged": 0.3,
    "files: day two": 0.35,
    "files: restore": 0.5,
    "files: one folder": 0.5,
    "files: check": 0.6,
    "files: stored": 1.0,
    "image: stored": 1.0,
}
NAMES = ("opsd", "restic", "borg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One step once: seconds and bytes of a process, or the bytes that a repository weighs."""

    wall: float | None = None
    processor: float | None = None
    memory: int | None = None
    stored: int | None = None

    @property
    def main(self) -> float:
        """What is compared: time, or size where there is none."""
        return self.wall if self.wall is not None else float(self.stored or 0)


#: Figures by row, then tool, one a round.
Figures = dict[str, dict[str, list[Figure]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run, for the head of the table."""

    scale: float
    rounds: int
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)


def brief(figure: Figure) -> str:
    if figure.wall is None:
        return f"{(figure.stored or 0) / MEBIBYTE:,.1f} MiB"
    return f"{figure.wall:.2f} s, {figure.processor:.1f} CPU s, {(figure.memory or 0) / MEBIBYTE:.0f} MiB"


def best(figures: Figures, row: str, tool: str) -> float | None:
    found = figures.get(row, {}).get(tool)
    return min(figure.main for figure in found) if found else None


def _cell(found: list[Figure] | None) -> str:
    """Return best and median, processor time and memory of one tool's step."""
    if not found:
        return "-"
    least = min(found, key=lambda figure: figure.main)
    median = statistics.median(figure.main for figure in found)
    if least.wall is None:
        return f"{least.main / MEBIBYTE:,.1f} MiB"
    memory = max(figure.memory or 0 for figure in found) / MEBIBYTE
    return f"{least.wall:.2f} ({median:.2f}) s, {least.processor:.1f} CPU s, {memory:.0f} MiB"


def _verdict(figures: Figures, row: str) -> tuple[str, str]:
    """Return opsd's share of restic's figure, and the target with whether it is met."""
    ours, theirs, target = best(figures, row, "opsd"), best(figures, row, "restic"), TARGETS.get(row)
    share = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
    if target is None:
        return share, ""
    met = "" if share == "-" else " met" if float(share) <= target else " MISSED"
    return share, f"{target}{met}"


def _table(figures: Figures) -> Iterator[str]:
    yield "| step | " + " | ".join(NAMES) + " | opsd / restic | target |"
    yield "| --- " * (len(NAMES) + 3) + "|"
    for row in sorted(figures, key=lambda row: not row.startswith("files")):
        cells = [_cell(figures[row].get(name)) for name in NAMES]
        yield "| " + " | ".join([row, *cells, *_verdict(figures, row)]) + " |"


def _memory(figures: Figures) -> Iterator[str]:
    peaks = [figure.memory or 0 for row in figures.values() for figure in row.get("opsd", [])]
    if peaks:
        met = "met" if max(peaks) <= MEMORY_TARGET else "MISSED"
        yield f"opsd's memory: at most {max(peaks) / MEBIBYTE:.0f} MiB in one process; target 150 MiB {met}."


def _limits(limits: Limit, figures: Figures) -> Iterator[str]:
    yield f"| the machine's limit, {os.cpu_count()} cores | MiB/s | s of a first backup |"
    yield "| --- | --- | --- |"
    for name, speed in limits.speeds.items():
        yield f"| {name} | {speed / MEBIBYTE:,.0f} | {limits.seconds[name]:.2f} |"
    yield ""
    yield f"Ideal: {limits.ideal:.1f} s (computing and disk side by side, the longer of both)."
    for name in NAMES:
        if first := best(figures, "files: first", name):
            yield f"{name}'s first backup takes {first / limits.ideal:.1f} times that."


def _text(run: Run, figures: Figures, limits: Limit) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = [
        f"# Bench of {when}",
        "",
        f"{versions}; scale {run.scale}, {run.rounds} rounds; {'; '.join(run.notes)}; Python {platform.python_version()}.",
        "Times: best (median) of the rounds; memory: the largest process in any round.",
        "",
    ]
    return "\n".join([*head, *_table(figures), "", *_memory(figures), "", *_limits(limits, figures)]) + "\n"


def write(folder: Path, run: Run, figures: Figures, limits: Limit) -> str:
    """Write latest.md and latest.json; return the text."""
    folder.mkdir(exist_ok=True)
    text = _text(run, figures, limits)
    (folder / "latest.md").write_text(text)
    plain = {row: {name: [asdict(f) for f in found] for name, found in by.items()} for row, by in figures.items()}
    content = {"run": asdict(run), "figures": plain, "limits": asdict(limits) | {"ideal": limits.ideal}}
    (folder / "latest.json").write_text(json.dumps(content, indent=1) + "\n")
    return text
