"""`opsd demo`: the main job before your eyes, on real data in a temporary folder.

Promise: every step is the command that a user would type, run as a process of its own; what comes back is compared byte by byte with
what was lost, by code that shares nothing with the restore. Nothing outside the temporary folder is touched.
"""

import hashlib
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from opsd.cli.output import duration, size
from opsd.errors import OpsdError
from opsd.values import dataclass

_CONFIGURATION = """version: 1
timezone: Europe/Paris
repository: {folder}/repository
state: {folder}/state
passphrase: {{file: {folder}/passphrase}}
sources:
  www:  {{files: {{paths: [{folder}/data/www], exclude: ["*.tmp"]}}}}
  crm:  {{sqlite: {{path: {folder}/data/crm.db}}}}
{postgresql}retention: {{keep_daily: 30, keep_monthly: 12}}
copies: {{elsewhere: {{folder: {folder}/elsewhere}}}}
"""
_POSTGRESQL = "  shop: {{postgresql: {{host: {socket}, port: 54329, user: {user}}}}}\n"
_ROWS = 40_000


class DemoFailed(OpsdError):
    """What came back is not what was lost, or a command failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """A PostgreSQL cluster of the demo's own."""

    programs: Path
    socket: Path
    user: str

    def sql(self, text: str, database: str = "shop") -> str:
        """The answer to some SQL, as psql prints it."""
        command = [
            str(self.programs / "psql"),
            "-XAtq",
            "-h",
            str(self.socket),
            "-p",
            "54329",
            "-U",
            self.user,
            "-d",
            database,
            "-c",
            text,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class _Demo:
    """The steps, in order."""

    def __init__(self, folder: Path, server: _Server | None) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._server = server
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPSD_", "PG"))}

    def _opsd(self, *arguments: str, quietly: bool = False) -> str:
        """Run opsd as a user would, showing command and answer."""
        click.secho(f"\n$ opsd {' '.join(arguments)}", bold=True)
        command = [sys.executable, "-m", "opsd", "-c", str(self._folder / "opsd.yaml"), *arguments]
        began = time.monotonic()
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        shown = done.stdout.rstrip().replace(str(self._folder), "~demo")
        lines = shown.splitlines()
        click.echo("\n".join(lines[:24] if quietly else lines))
        if quietly and len(lines) > 24:
            click.echo(f"… and {len(lines) - 24} lines more")
        if done.returncode not in (0, 3):
            raise DemoFailed(f"opsd {arguments[0]} ended with exit code {done.returncode}: {done.stderr.strip()}")
        click.secho(f"  ({duration(time.monotonic() - began)})", dim=True)
        return done.stdout

    def run(self) -> None:
        """All of it."""
        self._make()
        self._opsd("init")
        self._opsd("backup")
        self._change()
        self._opsd("backup")
        self._opsd("snapshots")
        before = self._first_and_latest()
        self._opsd("diff", *before, quietly=True)
        self._lose_and_restore()
        self._restore_parts()
        self._opsd("check", "--read-data")
        self._opsd("copy")
        self._spoil_and_heal()
        self._opsd("drill", "--from", "elsewhere")
        self._opsd("run", "check")
        self._opsd("ledger", "verify")
        self._opsd("status")
        self._lose_the_repository()

    def _first_and_latest(self) -> tuple[str, str]:
        command = [sys.executable, "-m", "opsd", "-c", str(self._folder / "opsd.yaml"), "snapshots", "--json"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True)
        ids = [each["id"] for each in json.loads(done.stdout)]
        return ids[0][:8], ids[-1][:8]

    # Data

    def _make(self) -> None:
        www = self._data / "www"
        library = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(
            library, www / "code", ignore=shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.so", "*.a")
        )
        (www / "current").symlink_to("code")
        os.link(www / "code" / "os.py", www / "os-again.py")
        with (www / "sparse.img").open("wb") as file:
            file.seek(64 * 1024 * 1024)
            file.write(b"the end")
        (www / "scratch.tmp").write_bytes(b"left out by exclude")
        os.utime(www / "code" / "ast.py", ns=(1_234_567_890_123_456_789, 1_234_567_890_123_456_789))
        connection = sqlite3.connect(self._data / "crm.db")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, note TEXT)")
        rows = ((f"customer {number}", hashlib.sha256(b"%d" % number).hexdigest()) for number in range(_ROWS))
        connection.executemany("INSERT INTO customer (name, note) VALUES (?, ?)", rows)
        connection.commit()
        connection.close()
        if self._server:
            self._server.sql("CREATE DATABASE shop", "postgres")
            self._server.sql(
                "CREATE TABLE orders AS SELECT n AS id, md5(n::text) AS item, n % 97 AS quantity FROM generate_series(1, 100000) n;"
                "ALTER TABLE orders ADD PRIMARY KEY (id)"
            )
        files = [path for path in www.rglob("*") if path.is_file() and not path.is_symlink()]
        total = sum(path.stat().st_blocks * 512 for path in files)
        click.echo(
            f"data: {len(files):,} files of {size(total)}, an SQLite database of {_ROWS:,} rows"
            + (", a PostgreSQL cluster with 100,000 orders" if self._server else "; no PostgreSQL is installed here")
        )

    def _change(self) -> None:
        (self._data / "www" / "new.txt").write_text("made between the two backups\n")
        (self._data / "www" / "code" / "this.py").unlink()
        connection = sqlite3.connect(self._data / "crm.db")
        connection.execute("UPDATE customer SET note = 'changed' WHERE id % 100 = 0")
        connection.commit()
        connection.close()
        if self._server:
            self._server.sql("DELETE FROM orders WHERE id <= 10")

    # Loss and return

    def _lose_and_restore(self) -> None:
        wanted = dict(_fingerprints(self._data / "www"))
        customers = _customers(self._data / "crm.db")
        click.secho("\n$ rm -rf ~demo/data/*        # the disaster", bold=True)
        shutil.rmtree(self._data)
        back = self._folder / "back"
        self._opsd("restore", "latest", "--to", str(back))
        found = dict(_fingerprints(back / "www" / self._data.relative_to("/") / "www"))
        wanted = {name: value for name, value in wanted.items() if not name.endswith(".tmp")}
        _compare("files", wanted, found)
        _compare(
            "rows of the SQLite database", customers, _customers(back / "crm" / self._data.relative_to("/") / "crm.db")
        )
        click.secho(
            f"same: {len(found):,} names with content, mode and time; {customers[0]:,} rows of SQLite", fg="green"
        )

    def _restore_parts(self) -> None:
        part = self._folder / "part"
        self._opsd("restore", f"latest:{self._data}/www/code/json", "--to", str(part))
        click.secho(f"there: {', '.join(sorted(path.name for path in part.iterdir()))}", fg="green")
        if self._server:
            digest = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM orders t"
            wanted = self._server.sql(digest)
            self._server.sql("DROP DATABASE shop", "postgres")
            self._opsd("restore", "latest", "--source", "shop", "--database", "shop", "--as", "shop_back")
            _compare("rows of PostgreSQL", wanted, self._server.sql(digest, "shop_back"))
            click.secho(f"same: {wanted.partition('|')[0]} orders, row by row", fg="green")

    # Copies

    def _spoil_and_heal(self) -> None:
        click.secho("\n$ dd …                      # one byte of a pack in the copy changes", bold=True)
        pack = max((self._folder / "elsewhere" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
        with pack.open("r+b") as file:
            file.seek(100_000)
            byte = file.read(1)[0]
            file.seek(100_000)
            file.write(bytes([byte ^ 1]))
        self._opsd("check", "--copy", "elsewhere", "--repair")

    def _lose_the_repository(self) -> None:
        click.secho("\n$ rm -rf ~demo/repository    # the disk of the backups, too", bold=True)
        shutil.rmtree(self._folder / "repository")
        again = self._folder / "again"
        self._opsd("restore", "latest", "--from", "elsewhere", "--to", str(again))
        first, second = (folder / "www" / self._data.relative_to("/") for folder in (self._folder / "back", again))
        found = dict(_fingerprints(second / "www"))
        _compare("files", dict(_fingerprints(first / "www")), found)
        click.secho(f"same: {len(found):,} names, from the copy alone", fg="green")


def _fingerprints(root: Path) -> Iterator[tuple[str, Any]]:
    """Every name below a root with what it is."""
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        content = (
            os.readlink(path)
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else ""
        )
        yield (
            str(path.relative_to(root)),
            (found.st_mode, found.st_mtime_ns, found.st_nlink if path.is_file() else 0, content),
        )


def _customers(path: Path) -> tuple[int, str]:
    """Rows of the SQLite database, counted and hashed."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM customer ORDER BY id").fetchall()
    connection.close()
    return len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()


def _compare(what: str, wanted: Any, found: Any) -> None:
    if wanted != found:
        extra = ""
        if isinstance(wanted, dict):
            extra = ": " + ", ".join(
                sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))[:5]
            )
        raise DemoFailed(f"{what} did not come back as they were{extra}", hint="please report this")


@contextmanager
def _cluster(folder: Path) -> Iterator[_Server | None]:
    """A PostgreSQL cluster in a folder, where the programs are installed; as root it runs as `postgres` or `nobody`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    programs = found[-1].parent if found else None
    if programs is None:
        yield None
        return
    folder.mkdir()
    user = _server_user() if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    run = partial(
        subprocess.run, check=True, capture_output=True, cwd="/", user=user, extra_groups=[] if user else None
    )
    run([programs / "initdb", "-D", folder / "data", "-U", "opsd", "--auth=trust", "--no-sync", "-E", "UTF8"])
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c port=54329 -c fsync=off"
    run([programs / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start"])
    try:
        yield _Server(programs=programs, socket=folder, user="opsd")
    finally:
        run([programs / "pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "stop"])


def _server_user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the temporary folder, to look around in it.")
def command(*, keep: bool) -> int:
    r"""Back up real files and databases, lose them, give them back, and compare; all in a temporary folder.

    \b
    Example:
      opsd demo
    """
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opsd-demo-")).resolve()
        folder.chmod(0o755)
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        click.echo(f"in {folder} (shown as ~demo)")
        (folder / "passphrase").write_text("correct horse battery staple\n")
        (folder / "passphrase").chmod(0o600)
        server = stack.enter_context(_cluster(folder / "cluster"))
        line = _POSTGRESQL.format(socket=server.socket, user=server.user) if server else ""
        (folder / "opsd.yaml").write_text(_CONFIGURATION.format(folder=folder, postgresql=line))
        _Demo(folder, server).run()
        click.secho(f"\nall came back as it was, in {duration(time.monotonic() - began)}", fg="green", bold=True)
        if keep:
            click.echo(f"kept: {folder}")
    return 0
