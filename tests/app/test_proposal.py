"""What is proposed for what was found, and how little of it proves a restore."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from opsd.app.proposal import (
    SAMPLE_BYTES,
    SAMPLE_FILES,
    Answers,
    configuration,
    mariadb_source,
    sample,
    sftp_of,
    text_of,
)
from opsd.settings.loading import parsed
from opsd.sources.coverage import uncovered
from opsd.sources.discovery import Found, Kind
from opsd.sources.options import FilesSource, PostgresqlSource

_FOLDERS = [Found(kind=Kind.FOLDER, place=each) for each in ("/etc", "/var/lib")]
_SERVER = Found(kind=Kind.POSTGRESQL, place="/run/postgresql", port=5432)
_SERVERS = {"postgresql": {"postgresql": {"host": "/run/postgresql", "port": 5432, "user": "opsd"}}}


def answers(**more: Any) -> Answers:
    given = {"file": Path("/etc/opsd/opsd.yaml"), "repository": "/var/backups/opsd", "zone": "Europe/Paris"}
    return Answers(**{**given, "time": "14:00", **more})


def test_the_proposal_is_a_configuration_with_what_was_decided() -> None:
    settings = parsed({"f": text_of(configuration(answers(), [*_FOLDERS, _SERVER], _SERVERS)).encode()})
    assert (settings.timezone, settings.schedule.backup) == ("Europe/Paris", "14:00")
    assert settings.passphrase == {"file": "/etc/opsd/passphrase"}
    files, server = (source.options for source in settings.sources)
    assert isinstance(files, FilesSource)
    assert files.paths == ("/etc", "/var/lib")
    assert server == PostgresqlSource(host="/run/postgresql", port=5432, user="opsd")


def test_a_servers_own_files_are_left_out_only_where_it_is_dumped() -> None:
    def excluded(servers: dict[str, Any], *found: Found) -> list[str]:
        return list(configuration(answers(), [*_FOLDERS, *found], servers)["sources"]["system"]["files"]["exclude"])

    assert "/var/lib/postgresql/" in excluded(_SERVERS, _SERVER)
    assert not any("postgresql" in each for each in excluded({}))
    known = Found(kind=Kind.POSTGRESQL, place="/run/postgresql", port=5432, data="/var/lib/postgresql/15/main")
    assert "/var/lib/postgresql/15/main/" in excluded(_SERVERS, known)
    elsewhere = Found(kind=Kind.POSTGRESQL, place="/run/postgresql", port=5432, data="/data/15")
    assert not any("15" in each for each in excluded(_SERVERS, elsewhere))


def test_volumes_of_containers_are_taken_also_those_of_tomorrow_and_their_images_are_not() -> None:
    files = configuration(answers(), _FOLDERS, {})["sources"]["system"]["files"]
    assert "/var/lib/docker/" in files["exclude"]
    assert "/var/lib/docker/volumes/" in files["include"]


def test_what_is_proposed_covers_all_that_was_found_and_runs() -> None:
    found = [*_FOLDERS, _SERVER, Found(kind=Kind.SQLITE, place="/var/lib/crm/crm.db")]
    settings = parsed({"f": text_of(configuration(answers(), found, _SERVERS)).encode()})
    assert uncovered(settings.sources, found) == ()


def test_a_copy_is_a_folder_or_a_login_on_a_server() -> None:
    assert configuration(answers(copy="/mnt/nas"), _FOLDERS, {})["copies"] == {"elsewhere": {"folder": "/mnt/nas"}}
    assert sftp_of("/mnt/a@b:c") is None
    proposed = configuration(answers(copy="opsd@nas:/srv/x"), _FOLDERS, {})
    (copy,) = parsed({"f": text_of(proposed).encode()}).copies
    assert str(copy.place) == "opsd@nas:/srv/x"


def test_whoever_is_told_is_named_by_address_or_url() -> None:
    for contact, url in (("ntfy://topic", "ntfy://topic"), ("anna@example.org", "mailto://localhost:25?from=opsd@")):
        proposed = configuration(answers(contact=contact), _FOLDERS, {})
        (found,) = parsed({"f": text_of(proposed).encode()}).alerts.contacts
        assert str(found.urls[0]).startswith(url)


def test_mariadb_is_proposed_as_a_command_where_its_client_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*_FOLDERS, Found(kind=Kind.MARIADB, place="/run/mysqld/mysqld.sock")]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mariadb_source(found) == {}
    (tmp_path / "mariadb-dump").touch(mode=0o755)
    proposed = configuration(answers(), found, mariadb_source(found))
    assert "/var/lib/mysql/" in proposed["sources"]["system"]["files"]["exclude"]
    assert uncovered(parsed({"f": text_of(proposed).encode()}).sources, found) == ()
    assert mariadb_source(_FOLDERS) == {}


def tree(root: Path) -> dict[str, Any]:
    """Two folders with files, one database."""
    for name, size in (("a/small", 10), ("a/large", 1000), ("b/deep/other", 10), ("b/skipped/x", 10)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(size))
    (root / "b/dangling").symlink_to("nowhere")
    os.mkfifo(root / "b/pipe")
    with sqlite3.connect(root / "b/crm.db") as connection:
        connection.execute("create table t (a)")
    connection.close()
    files = {"paths": [f"{root}/a", f"{root}/b"], "exclude": [f"{root}/b/skipped/"]}
    return {"sources": {"system": {"files": files}, **_SERVERS}, "copies": {"x": {"folder": "/x"}}, "version": 1}


def test_a_sample_has_files_of_every_folder_the_smallest_databases_and_no_copies(tmp_path: Path) -> None:
    found = [Found(kind=Kind.SQLITE, place=f"{tmp_path}/b/crm.db")]
    small = sample(tree(tmp_path), found, {"postgresql": "shop"})
    names = [path.removeprefix(f"{tmp_path}/") for path in small["sources"]["system"]["files"]["paths"]]
    assert names == ["a/large", "a/small", "b/crm.db", "b/deep/other"]
    assert small["sources"]["postgresql"]["postgresql"]["databases"] == ["shop"]
    assert set(small) == {"version", "sources"}


def test_a_server_that_can_not_be_tried_is_not_in_the_sample(tmp_path: Path) -> None:
    assert set(sample(tree(tmp_path), [], {})["sources"]) == {"system"}


def test_a_sample_is_small(tmp_path: Path) -> None:
    proposed = tree(tmp_path)
    for number in range(SAMPLE_FILES):
        (tmp_path / "b" / f"{number}").touch()
    os.truncate(tmp_path / "a/large", SAMPLE_BYTES + 1)
    paths = sample(proposed, [], {})["sources"]["system"]["files"]["paths"]
    assert len(paths) == SAMPLE_FILES
    assert f"{tmp_path}/a/small" in paths
    assert f"{tmp_path}/a/large" not in paths
