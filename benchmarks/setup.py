"""Time `opsd setup --yes` on a bare host with one PostgreSQL, one SQLite and 1 GiB of files, to its first proven restore.

As root: `python -m benchmarks.setup [MIB]`. The host is a mount namespace of this machine: its own users (with opsd), homes, services' folders
and sockets. The goal is less than two minutes. What is already in the caches is dropped before, where that is allowed.
"""

import grp
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.support.postgresql import as_server, programs

#: What setup looks at or writes to; the interpreter may live below /root.
HIDDEN = (
    "/home",
    "/srv",
    "/opt",
    "/var/lib",
    "/var/cache",
    "/var/backups",
    "/var/run/postgresql",
    "/etc/postgresql",
    "/etc/opsd",
)
USER = 64_999
GOAL_SECONDS = 120.0


def hide(scratch: Path) -> None:
    """Put empty folders over the machine's own, and a user opsd beside its users."""
    for number, place in enumerate(HIDDEN):
        if not Path(place).is_dir():
            continue
        mine = scratch / f"place{number}"
        mine.mkdir(mode=0o755)
        subprocess.run(["mount", "--bind", mine, place], check=True)
    for name, line in (
        ("passwd", f"opsd:x:{USER}:{USER}::/var/lib/opsd:/usr/sbin/nologin"),
        ("group", f"opsd:x:{USER}:"),
    ):
        mine = scratch / name
        mine.write_text((Path("/etc") / name).read_text() + line + "\n")
        subprocess.run(["mount", "--bind", mine, f"/etc/{name}"], check=True)
    pwd.getpwnam("opsd"), grp.getgrnam("opsd")


def fill(mebibytes: int) -> None:
    """Files of all sizes, one SQLite database."""
    left, number = mebibytes << 20, 0
    while left > 0:
        size = min(left, (1 << 12, 1 << 16, 1 << 20, 1 << 23)[number % 4])
        path = Path("/srv/www", f"{number % 97:02}", f"{number}.bin")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size // 2) + bytes(size - size // 2))
        left -= size
        number += 1
    Path("/var/lib/crm").mkdir()
    with sqlite3.connect("/var/lib/crm/crm.db") as database:
        database.execute("create table customers (id integer primary key, name text)")
        database.executemany(
            "insert into customers (name) values (?)", ((f"customer {each}",) for each in range(50_000))
        )
    database.close()


def serve() -> Path:
    """A PostgreSQL as Debian makes it: sockets alone, peers let in; returns the data folder."""
    found = programs()
    assert found, "no PostgreSQL server is installed"
    account = pwd.getpwnam("postgres")
    data = Path("/var/lib/postgresql/main")
    for folder in (data.parent, Path("/var/run/postgresql")):
        folder.mkdir(exist_ok=True)
        os.chown(folder, account.pw_uid, account.pw_gid)
    as_server([str(found / "initdb"), "-D", str(data), "-N", "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8"])
    with (data / "postgresql.conf").open("a") as file:
        file.write("unix_socket_directories = '/var/run/postgresql'\nlisten_addresses = ''\nport = 5432\n")
    as_server([str(found / "pg_ctl"), "-D", str(data), "-w", "-s", "-l", f"{data}/log", "start"])
    psql = ["runuser", "-u", "postgres", "--", "psql", "-q", "-h", "/var/run/postgresql"]
    rows = "create table orders as select g, md5(g::text) from generate_series(1, 100000) g"
    subprocess.run([*psql, "-c", "create database shop"], check=True)
    subprocess.run([*psql, "-d", "shop", "-c", rows], check=True)
    return data


def measure(*program: str) -> int:
    """Run setup as a person would, by this program; says how long it took, and what came back."""
    subprocess.run(["sync"], check=True)
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
    began = time.monotonic()
    done = subprocess.run([*program, "setup", "--yes", "--json"], check=False, capture_output=True)
    seconds = time.monotonic() - began
    answer = json.loads(done.stdout or "{}")
    print(done.stderr.decode(), end="")
    print(
        json.dumps(
            {key: answer.get(key) for key in ("error", "found", "roles_made", "sample", "to_do", "not_covered")},
            indent=1,
        )
    )
    print(f"setup ended with {done.returncode} after {seconds:.1f} s (goal: {GOAL_SECONDS:.0f} s)")
    return 0 if done.returncode == 0 and seconds < GOAL_SECONDS else 1


def main() -> int:
    """Enter a namespace of our own, make the host, measure, take it down."""
    if len(sys.argv) < 3:
        mebibytes = sys.argv[1] if len(sys.argv) > 1 else "1024"
        inside = ["unshare", "--mount", sys.executable, "-m", "benchmarks.setup", mebibytes, "inside"]
        return subprocess.run(inside, check=False).returncode
    scratch = Path(tempfile.mkdtemp(prefix="opsd-bench-"))
    scratch.chmod(0o755)
    made = not Path("/etc/opsd").exists()
    Path("/etc/opsd").mkdir(exist_ok=True)
    try:
        hide(scratch)
        fill(int(sys.argv[1]))
        data = serve()
        try:
            return measure(sys.executable, "-m", "opsd")
        finally:
            as_server([f"{programs()}/pg_ctl", "-D", str(data), "-m", "immediate", "-s", "stop"])
    finally:
        for place in (*HIDDEN, "/etc/passwd", "/etc/group"):
            subprocess.run(["umount", "--lazy", place], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(scratch, ignore_errors=True)
        if made:
            Path("/etc/opsd").rmdir()


if __name__ == "__main__":
    sys.exit(main())
