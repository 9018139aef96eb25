"""Time the package's promise, from the end of `apt install ./opsd.deb` to the first proven restore by `opsd setup --yes`.

As root: `python -m benchmarks.install PACKAGE [MIB]`, with mmdebstrap. The host has one PostgreSQL, one SQLite and 1 GiB of files; it is a Debian 12 of its
own in namespaces of its own, without a network and without systemd. The goal is less than two minutes. What is in the kernel's caches is dropped before,
where that is allowed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.setup import fill, measure

_PACKAGES = "postgresql-15,python3,systemd"
_DEVICES = ("null", "zero", "full", "random", "urandom")
#: Put before a program, it runs as the server's superuser.
_AS_SERVER = ("runuser", "-u", "postgres", "--")
_ROWS = "create table orders as select g, md5(g::text) from generate_series(1, 100000) g"


def enter(root: Path) -> None:
    """Make the folder the root of this process, as far as programs need it."""
    for device in _DEVICES:
        (root / "dev" / device).touch()
        subprocess.run(["mount", "--bind", f"/dev/{device}", root / "dev" / device], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "memory", root / "dev/shm"], check=True)
    os.chroot(root)
    os.chdir("/")
    os.environ.clear()
    os.environ |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def inside(root: Path, mebibytes: int) -> int:
    """Make the host, install, set up."""
    enter(root)
    fill(mebibytes)
    subprocess.run(["install", "-d", "-o", "postgres", "/run/postgresql"], check=True)
    subprocess.run(["pg_ctlcluster", "15", "main", "start"], check=True)
    try:
        subprocess.run([*_AS_SERVER, "psql", "-q", "-c", "create database shop"], check=True)
        subprocess.run([*_AS_SERVER, "psql", "-q", "-d", "shop", "-c", _ROWS], check=True)
        with Path("/root/apt.log").open("w") as log:
            subprocess.run(["apt-get", "install", "-y", "/opsd.deb"], check=True, stdout=log, stderr=log)
        return measure("/usr/bin/opsd")
    finally:
        subprocess.run(["pg_ctlcluster", "-m", "immediate", "15", "main", "stop"], check=False)


def main(arguments: list[str]) -> int:
    """Make a Debian, go into namespaces of our own with it, and take it down."""
    if arguments[0] == "inside":
        return inside(Path(arguments[1]), int(arguments[2]))
    root = Path(tempfile.mkdtemp(prefix="opsd-bench-", dir="/var/tmp"))
    root.chmod(0o755)
    try:
        make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root)]
        subprocess.run(make, check=True)
        shutil.copy(arguments[0], root / "opsd.deb")
        mebibytes = arguments[1] if len(arguments) > 1 else "1024"
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc"]
        again = [sys.executable, "-m", "benchmarks.install", "inside", str(root), mebibytes]
        return subprocess.run([*apart, *again], check=False).returncode
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
