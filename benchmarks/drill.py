"""What a drill costs beside a plain restore: `python -m benchmarks.drill [--mebibytes 256] [--rows 1000000] [--folder DIR] [--full]`.

Rounds in turn on one machine, the best of each. Files: the restoring stages of a drill from a copy beside `opsd restore --from`; the goal is 0.8 of
its speed. Databases: the comparison of so many rows beside their restore into the throwaway server; the goal is a third. `--full` is 4 GiB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.postgresql import Cluster, running_cluster

MIB = 1 << 20
ROOT = Path(__file__).parents[1]
ROUNDS = 3
SMALL_FILES = 5000
FULL_MEBIBYTES = 4096

TABLE = """
create table orders as select n as id, md5(n::text) as item, n % 97 as quantity, now() as at from generate_series(1, {rows}) n;
alter table orders add primary key (id); create index on orders (item); create index on orders (at)
"""


def opsd(configuration: Path, *arguments: str) -> bytes:
    """Run to the end; what it answered."""
    command = [sys.executable, "-m", "opsd", "-c", str(configuration), *arguments]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def made(folder: Path, source: str) -> Path:
    """A repository with one source, and a copy; returns the configuration."""
    secret = folder / "passphrase"
    secret.write_text("to be proved\n")
    secret.chmod(0o600)
    path = folder / "opsd.yaml"
    path.write_text(
        f"version: 1\ntimezone: UTC\nrepository: {folder}/repository\nstate: {folder}/state\npassphrase: {{file: {secret}}}\n"
        f"sources: {{it: {source}}}\ncopies: {{disk: {{folder: {folder}/disk}}}}\ndrill: {{scratch: {folder}/scratch}}\n"
    )
    for command in ("init", "backup", "copy"):
        opsd(path, command)
    return path


@contextmanager
def place(above: str) -> Iterator[Path]:
    """A folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="opsd-drill-", dir=above) as name:
        yield Path(name)


def seconds(record: dict[str, Any], kind: str) -> float:
    """What the stages of a kind took."""
    return sum(float(took) for name, took in record["stages"] if name.partition(" ")[0] == kind)


def drilled(configuration: Path) -> dict[str, Any]:
    """A drill's record."""
    record: dict[str, Any] = json.loads(opsd(configuration, "drill", "--from", "disk", "--json"))
    return record


def restored(configuration: Path, target: Path) -> float:
    """Seconds of a plain restore, as it says itself."""
    answer = json.loads(opsd(configuration, "restore", "latest", "--from", "disk", "--to", str(target), "--json"))
    subprocess.run(["rm", "-rf", str(target)], check=True)
    return float(answer["seconds"])


def files(mebibytes: int, above: str) -> None:
    """Small and large files."""
    with place(above) as folder:
        for number in range(SMALL_FILES):
            below = folder / "source" / str(number // 100)
            below.mkdir(parents=True, exist_ok=True)
            (below / str(number)).write_bytes(os.urandom(4096))
        for number in range(max(1, mebibytes // 64)):
            (folder / "source" / f"large-{number}").write_bytes(os.urandom(min(64, mebibytes) * MIB))
        configuration = made(folder, f"{{files: {{paths: [{folder}/source]}}}}")
        plain = restoring = comparing = float("inf")
        for _ in range(ROUNDS):
            plain = min(plain, restored(configuration, folder / "back"))
            record = drilled(configuration)
            restoring = min(restoring, seconds(record, "restore"))
            comparing = min(comparing, seconds(record, "compare"))
    print(f"opsd restore        {plain:6.2f} s  {mebibytes / plain:6.0f} MiB/s")
    print(f"drill restores      {restoring:6.2f} s  {plain / restoring:6.2f} of its speed (goal 0.80)")
    print(f"drill compares      {comparing:6.2f} s  {mebibytes / comparing:6.0f} MiB/s")


def databases(rows: int, cluster: Cluster, above: str) -> None:
    """One table of so many rows, with a key and two indexes."""
    with place(above) as folder:
        cluster.create("shop", TABLE.format(rows=rows))
        source = f"{{postgresql: {{host: {cluster.host}, user: postgres, databases: [shop]}}}}"
        configuration = made(folder, source)
        restoring = comparing = float("inf")
        for _ in range(ROUNDS):
            record = drilled(configuration)
            restoring = min(restoring, seconds(record, "restore"))
            comparing = min(comparing, seconds(record, "compare"))
    print(f"{rows:,} rows restored in {restoring:.2f} s, compared in {comparing:.2f} s")
    print(f"comparison adds     {comparing / restoring:6.2f} of the restore (goal 0.33)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--folder",
        default=tempfile.gettempdir(),
        help="where a disk that others write to would only add noise: /dev/shm",
    )
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    files(FULL_MEBIBYTES if given.full else given.mebibytes, given.folder)
    with running_cluster() as cluster:
        databases(given.rows, cluster, given.folder)
    print(f"all of it took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
