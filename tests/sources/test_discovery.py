"""What lives on a machine, made in a folder that stands in for it."""

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from opsd.sources.coverage import uncovered
from opsd.sources.discovery import (
    Discovery,
    Found,
    Kind,
    discover,
    folders,
    listening_ports,
    mariadb_servers,
    mounts,
    postgresql_servers,
    volumes,
)
from opsd.sources.options import (
    CommandSource,
    FilesSource,
    PostgresqlSource,
    SourceOptions,
    SourceSettings,
    SqliteSource,
)

_PORTS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:0CEA 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 1 1
"""


def listen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a socket there; its whole path may be too long for one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def database(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()


def ports(root: Path, text: str = _PORTS) -> None:
    (root / "proc/net").mkdir(parents=True)
    (root / "proc/net/tcp").write_text(text)


def sources(*options: SourceOptions) -> list[SourceSettings]:
    return [SourceSettings(label=f"s{number}", options=each) for number, each in enumerate(options)]


def missed(found: Found, *options: SourceOptions) -> bool:
    return bool(uncovered(sources(*options), [found]))


def test_a_running_postgresql_is_found_by_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen(tmp_path / "var/run/postgresql/.s.PGSQL.5433", monkeypatch)
    (tmp_path / "var/run/postgresql/.s.PGSQL.5433.lock").touch()
    assert postgresql_servers(tmp_path) == (Found(kind=Kind.POSTGRESQL, place="/var/run/postgresql", port=5433),)


def test_a_socket_that_shows_under_two_names_is_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen(tmp_path / "run/postgresql/.s.PGSQL.5432", monkeypatch)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("../run")
    assert len(postgresql_servers(tmp_path)) == 1


def test_a_cluster_that_is_stopped_is_found_by_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "etc/postgresql/15/main"
    folder.mkdir(parents=True)
    (folder / "postgresql.conf").write_text("data_directory = '/data/15'  # here\nport = 5444 # not 5432\n")
    (found,) = postgresql_servers(tmp_path)
    assert (found.port, found.runs, found.data) == (5444, False, "/data/15")


def test_a_cluster_without_configuration_is_found_by_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/pgsql/16/data"
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("16\n")
    assert [each.data for each in postgresql_servers(tmp_path)] == ["/var/lib/pgsql/16/data"]


def test_a_postgresql_in_a_container_is_found_by_its_port(tmp_path: Path) -> None:
    ports(tmp_path)
    assert listening_ports(tmp_path) == {5432}
    assert postgresql_servers(tmp_path) == (Found(kind=Kind.POSTGRESQL, place="", port=5432),)


def test_mariadb_is_found_by_socket_port_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mariadb_servers(tmp_path) == ()
    (tmp_path / "var/lib/mysql").mkdir(parents=True)
    (tmp_path / "var/lib/mysql/ibdata1").touch()
    assert [(each.runs, each.data) for each in mariadb_servers(tmp_path)] == [(False, "/var/lib/mysql")]
    ports(tmp_path, _PORTS.replace("1538 00000000:0000 0A", "0CEA 00000000:0000 0A"))
    assert [(each.runs, each.port) for each in mariadb_servers(tmp_path)] == [(True, 3306)]
    listen(tmp_path / "run/mysqld/mysqld.sock", monkeypatch)
    assert [each.place for each in mariadb_servers(tmp_path)] == ["/run/mysqld/mysqld.sock"]


def test_sqlite_files_are_found_by_their_header_alone(tmp_path: Path) -> None:
    database(tmp_path / "var/lib/crm/data")
    database(tmp_path / "srv/deep/er/app.db")
    (tmp_path / "srv/fake.sqlite").write_bytes(b"no database" * 100)
    (tmp_path / "srv/empty.db").touch()
    os.mkfifo(tmp_path / "srv/pipe.db")
    (tmp_path / "srv/link.db").symlink_to("deep/er/app.db")
    database(tmp_path / "srv/.git/index.db")
    database(tmp_path / "srv/tagged/cache.db")
    (tmp_path / "srv/tagged/CACHEDIR.TAG").touch()
    database(tmp_path / "var/lib/opsd/state.sqlite")
    found = discover(["/var/lib/opsd"], root=tmp_path).found
    assert [each.place for each in found if each.kind is Kind.SQLITE] == ["/var/lib/crm/data", "/srv/deep/er/app.db"]


def test_a_search_that_had_no_time_says_so(tmp_path: Path) -> None:
    database(tmp_path / "srv/app.db")
    assert discover(root=tmp_path, seconds=-1).complete is False
    assert discover(root=tmp_path).complete is True


def test_volumes_of_docker_and_podman_that_hold_something_are_found(tmp_path: Path) -> None:
    for place in ("docker/volumes/shop", "docker/volumes/void", "containers/storage/volumes/mail"):
        (tmp_path / "var/lib" / place / "_data").mkdir(parents=True)
    for place in ("docker/volumes/shop", "containers/storage/volumes/mail"):
        (tmp_path / "var/lib" / place / "_data/file").touch()
    assert [each.place for each in volumes(tmp_path)] == [
        "/var/lib/docker/volumes/shop/_data",
        "/var/lib/containers/storage/volumes/mail/_data",
    ]


def test_a_folder_with_nothing_but_the_repository_is_not_found(tmp_path: Path) -> None:
    for place in ("srv/opsd/packs", "opt/app", "home"):
        (tmp_path / place).mkdir(parents=True)
    assert [each.place for each in folders(tmp_path, ["/srv/opsd"])] == ["/opt"]
    assert [each.place for each in folders(tmp_path, ["/srv/opsd/packs", "/opt/app"])] == []
    (tmp_path / "srv/opsd/other").touch()
    assert [each.place for each in folders(tmp_path, ["/srv/opsd/packs", "/opt/app"])] == ["/srv"]
    assert [each.place for each in folders(tmp_path)] == ["/srv", "/opt"]


def test_folders_that_no_system_has_are_found_and_searched(tmp_path: Path) -> None:
    database(tmp_path / "data/shop/app.db")
    for place in ("var/vmail/anna", "mnt/old/x", "backup/opsd", "usr/share", "boot/grub", "var/log/x", "empty"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "linked").symlink_to("data")
    found = discover(["/backup/opsd"], root=tmp_path).found
    assert [each.place for each in found if each.kind is Kind.FOLDER] == ["/data", "/var/vmail", "/mnt/old"]
    assert [each.place for each in found if each.kind is Kind.SQLITE] == ["/data/shop/app.db"]


def test_file_systems_beside_the_usual_folders_are_found_and_not_proposed(tmp_path: Path) -> None:
    for place in ("mnt/nas/photos", "mnt/copy/opsd", "export/x", "srv/own/x", "mnt/memory/x", "media/a/usb/x"):
        (tmp_path / place).mkdir(parents=True)
    places = ("/", "/mnt/copy", "/srv/own", "/media/a/usb", "/boot/efi")
    lines = [f"1 1 8:1 / {place} rw - ext4 /dev/sda1 rw" for place in places]
    lines += ["1 1 0:9 / /mnt/nas rw - nfs4 nas:/x rw", "1 1 0:9 / /mnt/memory rw - tmpfs tmpfs rw"]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines))
    assert [each.place for each in mounts(tmp_path, ["/mnt/copy/opsd"])] == ["/media/a/usb", "/mnt/nas"]


def test_a_source_that_stays_on_its_file_system_takes_no_other() -> None:
    found = Found(kind=Kind.FOLDER, place="/proc/sys")
    assert not missed(found, FilesSource(paths=("/",)))
    assert missed(found, FilesSource(paths=("/",), one_file_system=True))
    assert not missed(Found(kind=Kind.FOLDER, place="/etc"), FilesSource(paths=("/",), one_file_system=True))


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (PostgresqlSource(), True),
        (PostgresqlSource(host="/var/run/postgresql", port=5432), True),
        (PostgresqlSource(host="localhost"), True),
        (PostgresqlSource(port=5433), False),
        (PostgresqlSource(host="db.example.org"), False),
        (PostgresqlSource(host="/tmp"), False),
        (PostgresqlSource(via=("docker", "exec", "db")), False),
        (FilesSource(paths=("/",)), False),
    ],
)
def test_a_server_is_taken_by_a_source_of_its_socket_and_port(options: SourceOptions, *, taken: bool) -> None:
    found = Found(kind=Kind.POSTGRESQL, place="/var/run/postgresql", port=5432)
    assert missed(found, options) is not taken


def test_a_server_in_a_container_is_taken_through_via() -> None:
    assert not missed(Found(kind=Kind.POSTGRESQL, place="", port=5432), PostgresqlSource(via=("docker", "exec", "db")))


def test_mariadb_is_taken_by_a_command_that_dumps_it() -> None:
    found = Found(kind=Kind.MARIADB, place="/run/mysqld/mysqld.sock")
    assert missed(found, CommandSource(run=("pg_dumpall",), name="x"))
    assert not missed(found, CommandSource(run=("/usr/bin/mariadb-dump", "--all-databases"), name="x"))


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (SqliteSource(path="/srv/app.db"), True),
        (FilesSource(paths=("/srv/",)), True),
        (FilesSource(paths=("/",)), True),
        (FilesSource(paths=("/srv/app",)), False),
        (FilesSource(paths=("/etc",)), False),
        (FilesSource(paths=("/etc",), exclude=("/srv",)), True),
        (FilesSource(paths=("/etc",), exclude=("/srv/cache",)), False),
    ],
)
def test_a_database_file_is_taken_by_itself_or_with_its_folder_or_left_out_on_purpose(
    options: SourceOptions, *, taken: bool
) -> None:
    assert missed(Found(kind=Kind.SQLITE, place="/srv/app.db"), options) is not taken


def test_a_folder_that_is_taken_in_part_says_which() -> None:
    found = Found(kind=Kind.FOLDER, place="/srv")
    (each,) = uncovered(sources(FilesSource(paths=("/srv/www", "/etc")), SqliteSource(path="/srv/a.db")), [found])
    assert each.partly == ("/srv/a.db", "/srv/www")


def test_data_that_is_left_out_on_purpose_is_not_missed() -> None:
    found = Found(kind=Kind.POSTGRESQL, place="", runs=False, data="/var/lib/postgresql/9.6/main")
    assert missed(found, FilesSource(paths=("/etc",)))
    assert not missed(found, FilesSource(paths=("/etc",), exclude=("/var/lib/postgresql/9.6",)))


def test_a_discovery_of_nothing_misses_nothing(tmp_path: Path) -> None:
    assert discover(root=tmp_path) == Discovery(found=())
