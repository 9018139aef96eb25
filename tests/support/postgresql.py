"""Real PostgreSQL servers to test on: throwaway clusters in a temporary folder, reached by a Unix socket alone."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

#: The superuser of every cluster; trusted on the socket. All other roles need their password, except `peer_only` and `nobody`, who must be such a user.
SUPERUSER = "postgres"

_ACCESS = """
local all postgres trust
local all peer_only peer
local all nobody peer
local all all scram-sha-256
"""
_SETTINGS = """
listen_addresses = ''
fsync = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 40
autovacuum = off
timezone = 'Asia/Tokyo'
"""


def programs() -> Path | None:
    """The folder of the newest server's programs, or None where no server is installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running server: the folder of its socket, and its programs."""

    folder: Path
    programs: Path

    @property
    def host(self) -> str:
        return str(self.folder)

    def connect(self, database: str = "postgres", user: str = SUPERUSER, **more: Any) -> "psycopg.Connection[Any]":
        parts = make_conninfo("", host=self.host, dbname=database, user=user, **more)
        return psycopg.connect(parts, autocommit=True)

    def execute(self, statements: str, database: str = "postgres") -> None:
        with self.connect(database) as connection:
            connection.execute(statements.encode())

    def rows(self, statement: str, database: str = "postgres") -> list[Any]:
        with self.connect(database) as connection:
            return connection.execute(statement.encode()).fetchall()

    def create(self, database: str, statements: str = "", *, template: str = "template0") -> None:
        """Make a database, with these statements run in it."""
        make = sql.SQL("create database {} template {}").format(sql.Identifier(database), sql.Identifier(template))
        with self.connect() as connection:
            connection.execute(make)
        if statements:
            self.execute(statements, database)

    def drop(self, *databases: str) -> None:
        with self.connect() as connection:
            for database in databases:
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))

    def clear(self) -> None:
        """Drop all databases and roles that tests made."""
        names = self.rows("select datname from pg_database where not datistemplate and datname <> 'postgres'")
        self.drop(*(name for (name,) in names))
        for (role,) in self.rows("select rolname from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'"):
            with self.connect() as connection:
                connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))

    def control(self, *arguments: str) -> None:
        as_server([str(self.programs / "pg_ctl"), "-D", str(self.folder / "main"), "-w", "-s", *arguments])

    def start(self) -> None:
        self.control("-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self.control("-m", "immediate", "stop")


def as_server(command: Sequence[str]) -> None:
    """Run a program as an ordinary user: a server refuses to run as root."""
    account = _account()
    ids: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **ids)


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _quick_folder() -> str:
    """Memory where there is plenty: CREATE and DROP DATABASE are all about small files."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3
    return str(memory) if plenty else "/tmp"


@contextmanager
def running_cluster(settings: str = "", found: Path | None = None) -> Iterator[Cluster]:
    """A new cluster for the time of the context, by default of the newest programs that are installed."""
    found = found or programs()
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    # Not below pytest's folder: only root could enter that, and a socket's path has 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="opsd-pg-", dir=_quick_folder()))
    try:
        if account := _account():
            os.chown(folder, account.pw_uid, account.pw_gid)
        folder.chmod(0o755)
        main = folder / "main"
        encoding = ["-E", "UTF8", "--locale=C.UTF-8"]
        as_server([str(found / "initdb"), "-D", str(main), "-N", "-U", SUPERUSER, "-A", "trust", *encoding])
        (main / "pg_hba.conf").write_text(_ACCESS)
        with (main / "postgresql.conf").open("a") as configuration:
            configuration.write(f"{_SETTINGS}unix_socket_directories = '{folder}'\n{settings}\n")
        cluster = Cluster(folder=folder, programs=found)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
