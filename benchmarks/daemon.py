"""What an idle daemon takes: memory, processor time, and the time of a scrape, with 500 sources.

python -m benchmarks.daemon [--seconds 120] [--sources 500] [--contacts 3] [--sick]

Processor time is the process's own, over the wall-clock time of the interval; other work on the machine makes it dearer by cold caches only. The
self-check, a process of its own each hour, is measured once and told apart. `--sick`: no source was ever stored, and
people are told of each, which nobody hears.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from opsd.clock import DAY
from opsd.monitor.observed import Observed, PlaceSeen, Point, SourceSeen
from opsd.monitor.state import Run, State

_PORT = 29797


def main() -> None:
    """Print a line a figure."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--seconds", type=float, default=120.0)
    given.add_argument("--sources", type=int, default=500)
    given.add_argument("--contacts", type=int, default=0)
    given.add_argument("--sick", action="store_true")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line = _site(Path(folder), options.sources, options.contacts)
        if not options.sick:
            subprocess.run([*line, "backup"], check=True, capture_output=True)
        looked = _looked(line)
        daemon = subprocess.Popen([*line, "daemon"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _measure(daemon.pid, options.seconds)
        finally:
            daemon.terminate()
            daemon.wait()
    print(f"self-check, each hour   {looked:8.1f} s    or {100 * looked / 3600:.3f} % more")


def _measure(process: int, seconds: float) -> None:
    _wait_for_metrics()
    time.sleep(20)  # The first self-check is over, and people were told what there is to tell.
    before, began = _cpu(process), time.monotonic()
    time.sleep(seconds)
    share = (_cpu(process) - before) / (time.monotonic() - began)
    status = Path(f"/proc/{process}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    scrapes = sorted(_scrape() for _ in range(20))
    print(f"resident memory         {resident:8.1f} MiB  (at most 80)")
    print(f"share of one processor  {100 * share:8.3f} %    (at most 0.2)")
    print(
        f"scrape, median of 20    {1000 * statistics.median(scrapes):8.1f} ms   (at most 50), worst {1000 * scrapes[-1]:.1f}"
    )


def _looked(line: list[str]) -> float:
    """What a self-check takes of a processor, once the first has been."""
    subprocess.run([*line, "run", "self-check"], check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*line, "run", "self-check"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _site(folder: Path, sources: int, contacts: int = 0) -> list[str]:
    (folder / "www").mkdir()
    (folder / "pass").write_text("a passphrase")
    (folder / "pass").chmod(0o600)
    names = [f"s{number}" for number in range(sources)]
    listed = "".join(f"  {name}: {{files: {{paths: [{folder}/www]}}}}\n" for name in names)
    told = "".join(f"    - {{name: c{number}, urls: ['json://127.0.0.1:9']}}\n" for number in range(contacts))
    file = folder / "opsd.yaml"
    file.write_text(
        f"repository: {folder}/repo\nstate: {folder}/state\npassphrase: {{file: {folder}/pass}}\n"
        f"metrics: {{listen: 127.0.0.1:{_PORT}}}\nalerts:\n  contacts:\n{told or '    []'}\nsources:\n{listed}"
    )
    line = [sys.executable, "-m", "opsd", "-c", str(file)]
    subprocess.run([*line, "init"], check=True, capture_output=True)
    _fill_state(folder / "state", names)
    return line


def _fill_state(folder: Path, names: list[str]) -> None:
    """A year of runs, and a look at all sources."""
    now = time.time_ns()
    with State.open(folder, now) as state:
        for day in range(365):
            began = now - day * DAY - DAY // 24
            runs = [
                Run(
                    id=f"{job}{day}",
                    job=job,
                    cause="daemon",
                    slot=began,
                    started=began,
                    ended=began + DAY // 96,
                    outcome="done",
                )
                for job in ("backup", "prune", "check", "drill", "self-check")
            ]
            state.put(runs)
        places = {"repository": PlaceSeen(kind="repository", points={name: Point(stored=now) for name in names})}
        seen = {name: SourceSeen(outcome="complete", files=9, bytes=9) for name in names}
        state.remember("observed", now, Observed(time=now, sources=seen, places=places).as_json())


def _wait_for_metrics() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError):
            _scrape()
            return
        time.sleep(0.2)
    raise SystemExit("the daemon answers no scrape")


def _scrape() -> float:
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/metrics", timeout=10) as answer:
        answer.read()
    return time.monotonic() - began


def _cpu(process: int) -> float:
    """Seconds of a processor, to the nanosecond; the clock of a process is numbered like this by Linux."""
    return time.clock_gettime((~process << 3) | 2)


if __name__ == "__main__":
    main()
