"""Run opsd and every peer through the same steps on the same input, in turn, and write one table.

Each step is timed as one whole process: wall time, processor time of it and its children, and the largest resident set of
one of its processes. Rounds go in turn, so that a slow minute hits all alike; the best and the median are shown.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import limit, make, report, tools
from benchmarks.make import Place
from benchmarks.tools import Command, Tool

CACHES = Path("/proc/sys/vm/drop_caches")
MEMORY = Path("/dev/shm")  # noqa: S108 - restores go to a folder of their own in it


class StepFailed(Exception):
    """A program did not do its step; its figures would mean nothing."""


@dataclass(slots=True)
class Bench:
    """Where the run happens and what it found so far."""

    place: Place
    restores: Path
    figures: report.Figures = field(default_factory=dict)
    drops_caches: bool = False

    @property
    def logs(self) -> Path:
        return self.place.folder / "logs"

    def note(self, row: str, tool: Tool, figure: report.Figure) -> None:
        self.figures.setdefault(row, {}).setdefault(tool.name, []).append(figure)
        print(f"  {tool.name:7} {row:16} {report.brief(figure)}", file=sys.stderr, flush=True)


def run(command: Command, logs: Path) -> report.Figure:
    """Run one process to its end; raise StepFailed with what it said if it failed."""
    logs.mkdir(parents=True, exist_ok=True)
    said, result = logs / "said", logs / "result"
    timed_by = [sys.executable, "-I", "-S", str(Path(__file__).with_name("timed.py")), str(result)]
    with said.open("wb") as output:
        subprocess.run(
            [*timed_by, *command.arguments],
            env=tools.environment_of(command),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )
    code, wall, processor, memory = result.read_text().split()
    if int(code) != 0:
        words = " ".join(command.arguments)
        raise StepFailed(f"{words}: exit {code}: {said.read_text(errors='replace')[-1000:]}")
    return report.Figure(wall=float(wall), processor=float(processor), memory=int(memory) * 1024)


def cool_down(bench: Bench) -> None:
    """Write out what waits and forget what was read, for all alike."""
    os.sync()
    if bench.drops_caches:
        CACHES.write_text("3\n")


def weight(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(os.lstat(Path(parent) / name).st_size for parent, _, names in os.walk(folder) for name in names)


@contextmanager
def empty(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def timed(bench: Bench, tool: Tool, row: str, command: Command) -> None:
    cool_down(bench)
    bench.note(row, tool, run(command, bench.logs))


def restored(bench: Bench, tool: Tool, row: str, part: Path | None) -> None:
    """Time a restore, and see that it brought back as many bytes as the source has."""
    with empty(bench.restores / tool.name) as target:
        timed(bench, tool, row, tool.restore(target, part))
        wanted, found = weight(part or bench.place.files), weight(target)
        if wanted != found:
            raise StepFailed(f"{tool.name} restored {found:,} bytes of {wanted:,}")


def _repository(bench: Bench, tool: Tool, kind: str) -> Path:
    return bench.place.folder / "repositories" / f"{tool.name}-{kind}"


def first_day(bench: Bench, tool: Tool, kind: str, source: Path) -> None:
    """Make an empty repository, then back up twice (files) or once (image)."""
    folder = _repository(bench, tool, kind)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in tool.prepare(folder, source):
        run(command, bench.logs)
    timed(bench, tool, f"{kind}: first", tool.backup(1))
    bench.note(f"{kind}: stored", tool, report.Figure(stored=weight(folder / "repository")))
    if kind == "files":
        timed(bench, tool, "files: unchanged", tool.backup(2))


def second_day(bench: Bench, tool: Tool, kind: str) -> None:
    """Back up what a day changed; what that adds is a figure of its own."""
    repository = _repository(bench, tool, kind) / "repository"
    before = weight(repository)
    timed(bench, tool, f"{kind}: day two", tool.backup(3))
    bench.note(f"{kind}: day two adds", tool, report.Figure(stored=weight(repository) - before))
    if kind == "files":
        timed(bench, tool, "files: list", tool.listing())
        restored(bench, tool, "files: one folder", bench.place.files / "src" / "project_00")
        restored(bench, tool, "files: restore", None)
        timed(bench, tool, "files: check", tool.check())


def one_round(bench: Bench, chosen: list[Tool]) -> None:
    """Take all tools through both days. A tool that fails leaves the run, and says why."""
    sources = {"files": bench.place.files, "image": bench.place.image.parent}
    for kind, source in sources.items():
        make.day_one(bench.place)
        for day in (1, 2):
            if day == 2:
                make.day_two(bench.place)
            for tool in tuple(chosen):
                try:
                    if day == 1:
                        first_day(bench, tool, kind, source)
                    else:
                        second_day(bench, tool, kind)
                except StepFailed as failure:
                    print(f"{tool.name} leaves the run: {failure}", file=sys.stderr)
                    chosen.remove(tool)
        shutil.rmtree(bench.place.folder / "repositories", ignore_errors=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 55,000 files, 1.7 GiB and a 2 GiB image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/opsd-bench"), help="for input and repositories")  # noqa: S108
    parser.add_argument("--only", action="append", help="run only this tool; may be given again")
    return parser.parse_args()


def _restores(place: Place) -> tuple[Path, str]:
    """Return where restores go: memory if it has room, for a disk's own habits are not what is measured."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * weight(place.files):
        return MEMORY / f"opsd-bench-{os.getpid()}", "restores to memory"
    return place.folder / "restores", "restores to disk: no room in memory"


def main() -> int:
    """Make the input, run the rounds, print and write the table."""
    asked = arguments()
    place = Place(folder=asked.folder.resolve(), scale=asked.scale)
    chosen = [tool for tool in tools.find(place.folder / "peers") if not asked.only or tool.name in asked.only]
    print(f"making the input in {place.folder}", file=sys.stderr)
    make.make(place)
    restores, where = _restores(place)
    bench = Bench(place, restores, drops_caches=os.access(CACHES, os.W_OK))
    notes = [where, "caches dropped before each step" if bench.drops_caches else "caches NOT dropped: not allowed here"]
    try:
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
            one_round(bench, chosen)
        cool_down(bench)
        stored = report.best(
            bench.figures, "files: stored", "opsd" if any(t.name == "opsd" for t in chosen) else "restic"
        )
        limits = limit.measure(place.files, place.folder, int(stored or 0))
    finally:
        shutil.rmtree(restores, ignore_errors=True)
        shutil.rmtree(bench.logs, ignore_errors=True)
    run_of = report.Run(
        scale=place.scale, rounds=asked.rounds, versions={t.name: t.version for t in chosen}, notes=notes
    )
    print(report.write(Path(__file__).parent / "results", run_of, bench.figures, limits))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tools.TooOld as old:
        sys.exit(f"invalid run: {old}")
