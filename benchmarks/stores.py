"""Copy packs to and from real servers on this machine, opsd's stores beside rclone: `python -m benchmarks.stores`.

SFTP goes to one OpenSSH server with one cipher, S3 to `rclone serve s3`. Each step is one whole process (start, login and all),
files and servers are in memory, and rounds alternate, so that a slow minute hits both. Needs what the tests need. opsd syncs every
file twice, and sends what the server checks; rclone syncs nothing. `benchmarks.copies` measures the whole command.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer import TRANSFERS
from opsd.storage.sftp import SftpStore
from tests.support.s3 import KEY, SECRET, S3Server, rclone_server
from tests.support.sshd import Server, running_server

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
CIPHER = "aes128-gcm@openssh.com"


@dataclass(frozen=True, slots=True)
class Figure:
    """One process: seconds that passed, and processor seconds of the client."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench runs. `folder` holds `source`, `restored` and what the servers serve."""

    folder: Path
    sftp: Server
    s3: S3Server

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def restored(self) -> Path:
        return self.folder / "restored"


def make_packs(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}").write_bytes(os.urandom(size))


def run(command: list[str], environment: dict[str, str]) -> Figure:
    """Run one process to its end, and let nobody see what it says of success; raise SystemExit if it failed."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, {**os.environ, **environment}, file_actions=silent)
    _, code, usage = os.wait4(child, 0)
    if code:
        raise SystemExit(f"{' '.join(command)} failed")
    return Figure(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)


def opsd(place: Place, kind: str, way: str) -> Figure:
    if kind == "sftp":
        where = [str(place.folder / "sftp"), str(place.sftp.key), str(place.sftp.known_hosts)]
    else:
        where = [KEY, SECRET]
    port = place.sftp.port if kind == "sftp" else place.s3.port
    command = [sys.executable, "-m", "benchmarks.transfer", kind, way, str(port), str(place.folder), *where]
    return run(command, {})


def rclone(place: Place, kind: str, way: str) -> Figure:
    there = f":{kind}:{place.folder / 'sftp/packs' if kind == 'sftp' else 'bucket/packs'}"
    return rclone_copy(place, kind, *([str(place.source), there] if way == "put" else [there, str(place.restored)]))


def rclone_copy(place: Place, kind: str, source: str, target: str) -> Figure:
    """Copy a folder from one end to the other."""
    program = str(Path(sys.executable).with_name("rclone"))
    command = [program, "copy", "--config", "/dev/null", "--transfers", str(TRANSFERS), source, target]
    if kind == "sftp":
        options = {"HOST": "127.0.0.1", "PORT": str(place.sftp.port), "USER": "root", "CIPHERS": CIPHER}
        options |= {
            "KEY_FILE": str(place.sftp.key),
            "KNOWN_HOSTS_FILE": str(place.sftp.known_hosts),
            "SHELL_TYPE": "none",
        }
    else:
        options = {"PROVIDER": "Other", "ENDPOINT": f"http://127.0.0.1:{place.s3.port}", "ACCESS_KEY_ID": KEY}
        options |= {"SECRET_ACCESS_KEY": SECRET}
    return run(command, {f"RCLONE_{kind.upper()}_{name}": value for name, value in options.items()})


def empty(place: Place, way: str) -> None:
    """Make a step start with nothing where it writes."""
    if way == "get":
        shutil.rmtree(place.restored, ignore_errors=True)
        place.restored.mkdir()
        return
    shutil.rmtree(place.folder / "sftp", ignore_errors=True)
    SftpStore.create(place.sftp.options(place.folder / "sftp")).close()
    client = place.s3.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket="bucket", Key=entry["Key"])


TOOLS: dict[str, Callable[[Place, str, str], Figure]] = {"opsd": opsd, "rclone": rclone}


@contextmanager
def prepared(packs: int) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="opsd-stores-", dir=MEMORY))
    try:
        make_packs(folder / "source", packs, 32 << 20)
        (folder / "s3").mkdir()
        with ExitStack() as stack:
            sftp = stack.enter_context(running_server())
            s3 = stack.enter_context(rclone_server(folder / "s3"))
            s3.client().create_bucket(Bucket="bucket")
            yield Place(folder, sftp, s3)
    finally:
        shutil.rmtree(folder)


def arguments(name: str, text: str | None) -> argparse.Namespace:
    """How much, and how often."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=text)
    parser.add_argument("--packs", type=int, default=32, help="of 32 MiB each")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> int:
    """Run the rounds and print a line per step: the best of each, and how they compare."""
    asked = arguments("stores", __doc__)
    figures: dict[tuple[str, str], list[Figure]] = {}
    with prepared(asked.packs) as place:
        for _ in range(asked.rounds):
            for kind in ("sftp", "s3"):
                for name, tool in TOOLS.items():
                    for way in ("put", "get"):
                        empty(place, way)
                        figures.setdefault((f"{kind} {way}", name), []).append(tool(place, kind, way))
    print(f"{asked.packs} packs of 32 MiB, best of {asked.rounds}: MB/s (processor seconds of the client)")
    show(figures, asked.packs * 32 << 20)
    return 0


def show(figures: dict[tuple[str, str], list[Figure]], size: int) -> None:
    """A line per step, of so many bytes."""
    for step in dict.fromkeys(step for step, _ in figures):
        best = {name: min(figures[step, name], key=lambda figure: figure.wall) for name in TOOLS}
        words = "  ".join(
            f"{name} {size / 1e6 / figure.wall:5.0f} ({figure.processor:.1f})" for name, figure in best.items()
        )
        print(f"{step:9} {words}  opsd/rclone {best['rclone'].wall / best['opsd'].wall:.2f}")


if __name__ == "__main__":
    sys.exit(main())
