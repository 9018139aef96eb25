"""Prove a copy in a folder, beside two processes of `sha256sum` on the same files: `python -m benchmarks.prove [--mebibytes 2048]`.

Rounds in turn, the best of each compared, files in the page cache for both. opsd starts, lists, compares sizes and histories, hashes every
object and looks that no snapshot lacks one; the goal is 0.8 of their speed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
ROOT = Path(__file__).parents[1]
ROUNDS = 5


def make(folder: Path, mebibytes: int) -> Path:
    """A repository with so much in it, and a copy; returns the configuration."""
    (folder / "source").mkdir()
    for number in range(max(1, mebibytes // 64)):
        (folder / "source" / str(number)).write_bytes(os.urandom(min(64, mebibytes) * MIB))
    secret = folder / "passphrase"
    secret.write_text("to be proved\n")
    secret.chmod(0o600)
    path = folder / "opsd.yaml"
    path.write_text(
        f"version: 1\ntimezone: UTC\nrepository: {folder}/repository\nstate: {folder}/state\n"
        f"passphrase: {{file: {secret}}}\nsources: {{all: {{files: {{paths: [{folder}/source]}}}}}}\n"
        f"copies: {{disk: {{folder: {folder}/disk}}}}\n"
    )
    for command in ("init", "backup", "copy"):
        opsd(path, command)
    return path


def opsd(configuration: Path, *arguments: str) -> None:
    """Run to the end."""
    command = [sys.executable, "-m", "opsd", "-c", str(configuration), *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sums(folder: Path) -> None:
    """Hash every file, two processes at a time."""
    names = "\0".join(str(path) for path in folder.rglob("*") if path.is_file())
    command = ["xargs", "-0", "-P", "2", "-n", "4", "sha256sum"]
    subprocess.run(command, check=True, input=names.encode(), stdout=subprocess.DEVNULL)


def main() -> None:
    """Make, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=2048)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opsd-prove-", dir="/var/tmp") as name:
        folder = Path(name)
        configuration = make(folder, given.mebibytes)
        steps: dict[str, Callable[[], None]] = {
            "two of sha256sum": lambda: sums(folder / "disk"),
            "opsd check --copy": lambda: opsd(configuration, "check", "--copy", "disk"),
        }
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(ROUNDS):
            for step, run in steps.items():
                began = time.monotonic()
                run()
                best[step] = min(best[step], time.monotonic() - began)
    for step, took in best.items():
        print(f"{step:20} {took:6.2f} s  {given.mebibytes / took:7.0f} MiB/s  {best['two of sha256sum'] / took:5.2f}")


if __name__ == "__main__":
    main()
