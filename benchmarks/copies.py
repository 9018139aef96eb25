"""Copy a whole repository to a server and pull it back, `opsd copy` beside `rclone copy`: `python -m benchmarks.copies`.

As `benchmarks.stores`, with one OpenSSH server and everything in memory; here each step is the command that a user runs. opsd proves
each object by its SHA-256 on its way, syncs it and notes what it did; rclone compares sizes and times.
"""

import shutil
import sys
from pathlib import Path

from benchmarks.stores import Figure, Place, arguments, prepared, rclone_copy, run, show

CONFIGURATION = """
version: 1
timezone: UTC
repository: {folder}/repository
state: {folder}/state
passphrase: {{file: {folder}/passphrase}}
sources: {{it: {{files: {{paths: [{folder}/source]}}}}}}
copies:
"""
SFTP = "{{host: 127.0.0.1, port: {port}, user: root, path: {path}, key: {{file: {key}}}, known_hosts: {known_hosts}}}"


def opsd(folder: Path, *arguments: str, configuration: str = "opsd.yaml") -> Figure:
    """Run one command."""
    return run(
        [sys.executable, "-m", "opsd", "-c", str(folder / configuration), *arguments], {"PYTHONWARNINGS": "ignore"}
    )


def configured(place: Place, rounds: int) -> None:
    """A repository with one snapshot of the packs; a copy for each round, and a puller's file that gets it back."""
    folder, server = place.folder, place.sftp
    (folder / "passphrase").write_text("to be copied\n")
    (folder / "passphrase").chmod(0o600)
    there = [
        SFTP.format(
            port=server.port, path=folder / f"sftp/opsd-{number}", key=server.key, known_hosts=server.known_hosts
        )
        for number in range(rounds)
    ]
    copies = "".join(f"  copy-{number}: {{sftp: {each}}}\n" for number, each in enumerate(there))
    (folder / "opsd.yaml").write_text(CONFIGURATION.format(folder=folder) + copies)
    pulls = "".join(
        f"  pull-{number}: {{from: {{sftp: {each}}}, to: {{folder: {folder}/pulled-{number}}}}}\n"
        for number, each in enumerate(there)
    )
    (folder / "puller.yaml").write_text(f"version: 1\ntimezone: UTC\nstate: {folder}/puller\npulls:\n{pulls}")
    for command in ("init", "backup"):
        opsd(folder, command)


def measure(place: Place, number: int, figures: dict[tuple[str, str], list[Figure]]) -> None:
    """One round."""

    def add(step: str, tool: str, figure: Figure) -> None:
        figures.setdefault((step, tool), []).append(figure)

    folder = place.folder
    there = f":sftp:{folder}/sftp/rclone-{number}"
    add("copy", "opsd", opsd(folder, "copy", "--to", f"copy-{number}"))
    add("copy", "rclone", rclone_copy(place, "sftp", str(folder / "repository"), there))
    add("pull", "opsd", opsd(folder, "copy", "--from", f"pull-{number}", configuration="puller.yaml"))
    add("pull", "rclone", rclone_copy(place, "sftp", there, str(folder / "restored")))
    for path in (f"sftp/opsd-{number}", f"sftp/rclone-{number}", f"pulled-{number}", "restored"):
        shutil.rmtree(folder / path)


def main() -> int:
    """Run the rounds and print a line per step: the best of each, and how they compare."""
    asked = arguments("copies", __doc__)
    figures: dict[tuple[str, str], list[Figure]] = {}
    with prepared(asked.packs) as place:
        configured(place, asked.rounds)
        shutil.rmtree(place.source)
        for number in range(asked.rounds):
            measure(place, number, figures)
    print(
        f"{asked.packs * 32} MiB to and from an OpenSSH server, best of {asked.rounds}: MB/s (processor seconds of the client)"
    )
    show(figures, asked.packs * 32 << 20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
