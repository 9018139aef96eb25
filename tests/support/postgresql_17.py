"""PostgreSQL 17 as Debian 13 ships it, beside whatever is installed: fetched once into a folder of the machine's, and run from there."""

import fcntl
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.support.warm import ROOT

_FOLDER = Path(f"/var/tmp/opsd-postgresql-17-{os.geteuid()}")
#: What its server needs nothing of here, and what is large.
_WITHOUT = ("libllvm19", "perl", "libperl5.40", "postgresql-common", "postgresql-client-common", "locales", "ssl-cert")
_SECONDS = 180


@cache
def programs_17() -> Path:
    """The folder of its programs, server and clients; skips the test where it can't be fetched."""
    home = _FOLDER / "root/usr/lib/postgresql/17"
    # One fetches for all: several tests, several checkouts.
    with open(f"{_FOLDER}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "whole").is_dir():
            _fetch(home)
    owner = home.stat()
    if owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
        pytest.skip(f"{_FOLDER} is somebody else's")
    return home / "bin"


def _fetch(home: Path) -> None:
    packages = ["postgresql-17", *(f"-{name}" for name in _WITHOUT)]
    fetch = [str(ROOT / "scripts/fetch-debian"), str(_FOLDER), *packages]
    try:
        subprocess.run(fetch, check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"PostgreSQL 17 of Debian 13 could not be fetched: {error}")
    real, made = home / "real", home / "bin"
    made.rename(real)
    made.mkdir()
    for program in real.iterdir():
        # By the name in this folder it finds the others here, and its files beside.
        (made / program.name).write_text(f'#!/bin/sh\nexec {_FOLDER}/run {made / program.name} {program} "$@"\n')
        (made / program.name).chmod(0o755)
    (home / "whole").mkdir()  # The stamp: it comes last.
