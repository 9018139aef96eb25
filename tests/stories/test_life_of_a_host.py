"""A host's life through the command line: daily runs, a loss, a new machine, kills, and everything at once."""

import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests.support.command_line import Desk, contents

SOURCES = """
www:  {{files: {{paths: [{folder}/data], exclude: ["*.tmp"]}}}}
crm:  {{sqlite: {{path: {folder}/crm.db}}}}
mail: {{command: {{run: [seq, "1000"], name: mail.mbox}}}}
"""


def host(folder: Path) -> tuple[Desk, str]:
    """A configured host with a tree, a database and a repository; and its kit."""
    desk = Desk.at(folder)
    desk.tree()
    with closing(sqlite3.connect(folder / "crm.db")) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany(
            "INSERT INTO customers (name) VALUES (?)", ((f"name {number}",) for number in range(5000))
        )
        connection.commit()
    desk = desk.configured(SOURCES.format(folder=folder).strip())
    return desk, desk.ok("init", "--json").json["kit"]


def rows(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as connection:
        found: list[tuple[int, str]] = connection.execute("SELECT * FROM customers ORDER BY id").fetchall()
        return found


def test_what_was_lost_comes_back_whole_in_part_and_on_a_new_machine(tmp_path: Path) -> None:
    desk, kit = host(tmp_path)
    desk.ok("backup")
    (tmp_path / "data" / "hello.txt").write_text("hello again\n")
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection:
        connection.execute("UPDATE customers SET name = 'changed' WHERE id = 42")
        connection.commit()
    second = desk.ok("backup", "--json").json
    assert second["outcome"] == "complete"
    tree, table = contents(tmp_path / "data"), rows(tmp_path / "crm.db")

    shutil.rmtree(tmp_path / "data")
    (tmp_path / "crm.db").unlink()
    desk.ok("restore", "latest", "--to", "all")
    assert contents(tmp_path / "all" / "www" / str(tmp_path)[1:] / "data") == tree
    assert rows(tmp_path / "all" / "crm" / str(tmp_path)[1:] / "crm.db") == table
    assert (tmp_path / "all" / "mail" / "mail.mbox").read_text().splitlines()[-1] == "1000"

    desk.ok("restore", "latest", "--in-place", "--yes")
    assert contents(tmp_path / "data") == tree
    assert rows(tmp_path / "crm.db") == table

    shutil.rmtree(tmp_path / "state")
    (tmp_path / "opsd.yaml").unlink()
    (tmp_path / "kit").write_text(kit)
    desk.bare().ok("restore", "latest", "--repository", "repository", "--kit-file", "kit", "--to", "new")
    assert contents(tmp_path / "new" / "www" / str(tmp_path)[1:] / "data") == tree
    assert desk.bare().ok("check", "--read-data", "--repository", "repository", "--kit-file", "kit").code == 0


def test_a_run_that_is_killed_leaves_what_was_and_the_next_succeeds(tmp_path: Path) -> None:
    desk, _ = host(tmp_path)
    desk.ok("backup")
    (tmp_path / "data" / "more.bin").write_bytes(os.urandom(40_000_000))
    spool = tmp_path / "repository" / "spool"
    process = subprocess.Popen(
        desk.command("backup"), env=desk.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not any(path.stat().st_size for path in spool.iterdir()):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(desk.ok("snapshots", "--json").json) == 1
    desk.ok("backup")
    found = desk.ok("check", "--read-data", "--json").json
    assert (found["problems"], found["snapshots"]) == ([], 2)
    desk.ok("restore", "latest", "--to", "back")
    assert contents(tmp_path / "back" / "www" / str(tmp_path)[1:] / "data") == contents(tmp_path / "data")


def test_two_backups_and_a_prune_at_once_lose_nothing(tmp_path: Path) -> None:
    desk, _ = host(tmp_path)
    desk.ok("backup")
    commands = (["backup"], ["backup", "--source", "www"], ["prune", "--yes"])
    together = [
        subprocess.Popen(desk.command(*each), env=desk.variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for each in commands
    ]
    said = [process.communicate(timeout=120)[0].decode() for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], said
    assert desk.ok("check", "--read-data", "--json").json["problems"] == []
    listed = desk.ok("snapshots", "--all", "--json").json
    assert len(listed) == 3
    for snapshot in listed:
        desk.ok("restore", snapshot["id"], "--to", f"back-{snapshot['id']}")
        back = tmp_path / f"back-{snapshot['id']}" / "www" / str(tmp_path)[1:] / "data"
        assert contents(back) == contents(tmp_path / "data")


def test_without_the_cache_the_next_run_takes_the_same(tmp_path: Path) -> None:
    desk, _ = host(tmp_path)
    desk.ok("backup")
    shutil.rmtree(tmp_path / "state" / "cache")
    again = desk.ok("backup", "--json").json
    assert again["outcome"] == "complete"
    assert again["snapshot"]["added_bytes"] < 60_000
