"""The services as their units start them: real processes, with few rights, asked over their sockets."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from opsd.daemon.services import about_of, command_of
from opsd.errors import OpsdError
from tests.support.command_line import Desk
from tests.support.services import SERVICE_USER, as_user, serving

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.at(tmp_path / "desk")
    root = desk.tree()
    return desk.configured(f"data: {{files: {{paths: [{root}]}}}}")


class TestCommands:
    @pytest.mark.parametrize(
        ("service", "request_", "command"),
        [
            ("worker", {"job": "backup"}, ("run", "backup")),
            ("upkeep", {"job": "copy"}, ("run", "copy")),
            ("upkeep", {"job": "prune"}, ("run", "prune")),
            ("upkeep", {"job": "check", "copy": "--repair"}, ("run", "check")),
            ("drill", {"job": "drill"}, ("run", "drill")),
            (
                "restore",
                {"job": "restore", "snapshot": "latest", "to": "/root/back"},
                ("restore", "--to=/root/back", "latest"),
            ),
        ],
    )
    def test_each_job_is_one_command(self, service: str, request_: dict[str, object], command: tuple[str, ...]) -> None:
        assert command_of(service, request_) == command

    @pytest.mark.parametrize(
        ("service", "request_"),
        [
            ("worker", {}),
            ("worker", {"job": "copy"}),
            ("worker", {"job": ["backup"]}),
            ("worker", {"job": "backup --help"}),
            ("upkeep", {"job": "backup"}),
            ("restore", {"job": "restore", "snapshot": "--in-place", "to": "/x"}),
            ("restore", {"job": "restore", "snapshot": "latest:/etc", "to": "/x"}),
            ("restore", {"job": "restore", "snapshot": "latest", "to": "x"}),
            ("restore", {"job": "restore", "snapshot": "latest"}),
        ],
    )
    def test_what_is_not_in_the_table_is_refused(self, service: str, request_: dict[str, object]) -> None:
        with pytest.raises(OpsdError):
            command_of(service, request_)

    def test_a_run_learns_what_the_daemon_calls_it(self) -> None:
        told = about_of({"run": "20261126T040000.000000000Z-1a", "slot": 5, "attempt": 2, "PATH": "/x"})
        assert told == {
            "OPSD_RUN_ID": "20261126T040000.000000000Z-1a",
            "OPSD_RUN_SLOT": "5",
            "OPSD_RUN_ATTEMPT": "2",
        }

    @pytest.mark.parametrize(
        "request_",
        [
            {"run": "a\nb"},
            {"run": ""},
            {"slot": "x"},
            {"attempt": -1},
            {"run": {}},
            {"slot": True},
            {"slot": 2**63},
            {"run": 5},
        ],
    )
    def test_what_a_run_is_told_has_its_form(self, request_: dict[str, object]) -> None:
        with pytest.raises(OpsdError, match="has another form"):
            about_of(request_)


def test_a_job_is_a_child_and_one_that_fails_ends_nothing(desk: Desk) -> None:
    with serving(desk, "worker") as service:
        ended = service.ask({"job": "backup"})
        assert ended.exit_code == 1
        assert "repository" in ended.tail
        assert b'"refused"' in service.said_to(b"garbage\n")
        desk.ok("init")
        host = Desk(folder=desk.folder, environment={**desk.environment, "OPSD_RUN_FOLDER": str(service.path.parent)})
        ran = host.run("ask", "backup", "run=tonight")
        assert ran.code == 0, ran.err
        assert "snapshot" in ran.text
        assert "opsd-upkeep.socket" in host.run("ask", "check").err
    assert len(snapshots(desk)) == 1


def held_up(desk: Desk) -> tuple[Desk, Path]:
    """A desk whose backup waits until something is written into a pipe."""
    pipe = desk.folder / "pipe"
    os.mkfifo(pipe)
    return desk.configured(f"slow: {{command: {{run: [cat, {pipe}], name: x}}}}"), pipe


def test_a_second_job_is_told_to_try_later_and_a_client_that_leaves_stops_nothing(desk: Desk) -> None:
    desk.ok("init")
    slow, pipe = held_up(desk)
    with serving(slow, "worker") as service:
        connection = service.connect()
        connection.sendall(b'{"job": "backup"}\n')
        with connection, connection.makefile("rb") as lines:
            assert json.loads(lines.readline())["started"]
        assert b'"code": 75' in service.said_to(b'{"job": "backup"}\n')
        with pipe.open("w") as writing:
            writing.write("the content")
        assert any(snapshots(desk) for _ in range(100))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    (snapshot,) = snapshots(desk)
    assert snapshot["complete"]


def snapshots(desk: Desk) -> list[dict[str, Any]]:
    """What there is, as often as it takes a process to look."""
    found: list[dict[str, Any]] = desk.ok("snapshots", "--json").json
    return found


def test_sigterm_stops_the_job_at_a_safe_point_and_who_asked_hears_it(desk: Desk) -> None:
    desk.ok("init")
    slow, pipe = held_up(desk)
    with serving(slow, "worker") as service, service.connect() as connection:
        connection.sendall(b'{"job": "backup"}\n')
        with connection.makefile("rb") as lines:
            assert json.loads(lines.readline())["started"]
            with pipe.open("w"):  # Now the child is at work.
                service.process.send_signal(signal.SIGTERM)
                ended = json.loads(lines.readline())
        assert service.process.wait(30) == 0
    assert ended["exit"] == 143
    assert "stopped by SIGTERM" in ended["tail"]


def test_a_service_without_a_passed_socket_says_who_starts_it(desk: Desk) -> None:
    ran = desk.run("serve", "worker")
    assert ran.code == 2
    assert "systemctl start opsd-worker.socket" in ran.err
    assert desk.run("serve", "nothing").code == 2


#: Stand-ins for LVM's tools: a volume "group/root" that is all there is, and snapshots of it that hold a copy of the data.
LVM = {
    "lvs": """
case $3 in
vg_name,lv_name) echo group root;;
pool_lv) echo pool;;
lv_snapshot_invalid) ;;
lv_name) cat "$names";;
esac
""",
    "lvcreate": """while [ "$1" != --name ]; do shift; done; echo "$2" >"$names"; echo made >>"$names.log" """,
    "lvremove": """: >"$names"; echo removed >>"$names.log" """,
    "mount": """/bin/mount -t tmpfs none "$4" && cp -a --parents "$data" "$4" && echo mounted >>"$names.log" """,
}


@root_only
class TestLeastPower:
    """A worker that is nobody but for reading, and the services that do the rest for it."""

    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Desk:
        """A host whose state and repository are the service's, and whose files are root's and others'."""
        desk = Desk.at(tmp_path / "desk")
        data = desk.tree()
        (data / "secret").write_text("x")
        (data / "secret").chmod(0)
        database = data / "theirs" / "app.db"
        database.parent.mkdir(mode=0o700)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t(x)")
        for path in (database.parent, database):
            os.chown(path, 4242, 4242)
        for name in ("repository", "state"):
            (desk.folder / name).mkdir()
            os.chown(desk.folder / name, SERVICE_USER, SERVICE_USER)
        notes = desk.folder / "notes"
        hook = f"{{run: [sh, -c, 'echo $OPSD_HOOK $OPSD_SOURCE $OPSD_OUTCOME $(id -u) >> {notes}']}}"
        hooks = f"{{before: [{hook}], after: [{hook}]}}"
        return desk.configured(f"data: {{files: {{paths: [{data}]}}, hooks: {hooks}}}")

    def test_a_backup_by_a_worker_that_may_only_read_is_complete(self, theirs: Desk) -> None:
        worker = as_user(SERVICE_USER, "dac_read_search")
        owner = as_user(SERVICE_USER, "dac_read_search", "setuid", "setgid")
        theirs.ok("init")
        with (
            serving(theirs, "owner", owner),
            serving(theirs, "hooks"),
            serving(theirs, "worker", worker) as service,
        ):
            ended = service.ask({"job": "backup"})
        assert ended.exit_code == 0, ended.tail
        assert (theirs.folder / "notes").read_text() == "before data 0\nafter data complete 0\n"
        theirs.ok("restore", "latest", "--to", str(theirs.folder / "back"))
        back = theirs.folder / "back" / "data" / str(theirs.folder / "data")[1:]
        assert (back / "secret").read_text() == "x"
        with closing(sqlite3.connect(back / "theirs" / "app.db")) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)

    def test_what_root_did_by_hand_the_worker_goes_on_with(self, theirs: Desk) -> None:
        theirs.ok("init")
        theirs.ok("backup")
        (theirs.folder / "data" / "new").write_text("new")
        with serving(theirs, "hooks"), serving(theirs, "worker", as_user(SERVICE_USER, "dac_read_search")) as service:
            ended = service.ask({"job": "backup"})
        assert ended.exit_code == 0, ended.tail
        alien = [
            path
            for place in ("repository", "state")
            for path in (theirs.folder / place).rglob("*")
            if path.stat().st_uid != SERVICE_USER
        ]
        assert alien == []

    def test_a_snapshot_of_the_file_system_is_made_and_removed_by_the_service(self, theirs: Desk) -> None:
        tools, names, data = (theirs.folder / name for name in ("tools", "names", "data"))
        tools.mkdir()
        names.touch()
        for name, script in LVM.items():
            (tools / name).write_text(f"#!/bin/sh\nnames={names} data={data}\n{script}")
            (tools / name).chmod(0o755)
        theirs = theirs.configured(f"data: {{files: {{paths: [{data}], snapshot: lvm}}}}")
        rich = Desk(folder=theirs.folder, environment={**theirs.environment, "PATH": f"{tools}:{os.environ['PATH']}"})
        owner = as_user(SERVICE_USER, "dac_read_search", "setuid", "setgid")
        theirs.ok("init")
        with (
            serving(theirs, "owner", owner),
            serving(rich, "hooks"),
            serving(theirs, "worker", as_user(SERVICE_USER, "dac_read_search")) as service,
        ):
            ended = service.ask({"job": "backup"})
        log = (theirs.folder / "names.log").read_text().splitlines()
        if not any(line.startswith("mounted") for line in log):
            pytest.skip("nothing can be mounted here")
        assert ended.exit_code == 0, ended.tail
        assert [line.split()[0] for line in log] == ["made", "mounted", "removed"]
        assert names.read_text() == ""
        assert list((theirs.folder / "run" / "frozen").iterdir()) == []

    def test_the_owner_service_opens_only_what_a_source_covers(self, theirs: Desk) -> None:
        elsewhere = theirs.folder / "elsewhere.db"
        with closing(sqlite3.connect(elsewhere)) as connection, connection:
            connection.execute("CREATE TABLE t(x)")
        care = {"busy_seconds": 1.0, "check_bytes": 1, "count_bytes": 1, "frozen": False}
        inside = str(theirs.folder / "data" / "theirs" / "app.db")
        with serving(theirs, "owner") as service:
            for path in (str(elsewhere), f"{theirs.folder}/data/../elsewhere.db", "app.db", 7):
                request = json.dumps({"job": "image", "path": path, "care": care}).encode()
                assert b'"refused"' in service.said_to(request + b"\n")
            request = json.dumps({"job": "image", "path": inside, "care": care}).encode()
            answer = service.said_to(request + b"\n")
        head, _, rest = answer.partition(b"\n")
        assert len(rest) == json.loads(head)["answer"]["size"] + len(b'{"answer": "whole"}\n')

    def test_the_owner_service_opens_the_very_file_that_is_asked_for(self, theirs: Desk) -> None:
        data = theirs.folder / "data"
        roots = theirs.folder / "roots.db"
        with closing(sqlite3.connect(roots)) as connection, connection:
            connection.execute("CREATE TABLE t(x)")
        (data / "theirs/link.db").symlink_to(roots)
        (data / "way").symlink_to(data / "theirs")
        care = {"busy_seconds": 1.0, "check_bytes": 1, "count_bytes": 1, "frozen": False}
        there = (data / "theirs/app.db").stat()
        with serving(theirs, "owner") as service:

            def answer(path: str, file: object) -> bytes:
                request = {"job": "image", "path": f"{data}/{path}", "care": care, "file": file}
                return service.said_to(json.dumps(request).encode() + b"\n").partition(b"\n")[0]

            assert b'"size"' in answer("theirs/app.db", [there.st_dev, there.st_ino])
            assert b"another file took its place" in answer("theirs/app.db", [there.st_dev, there.st_ino + 1])
            for path in ("theirs/link.db", "way/app.db"):
                assert b"another file took its place" in answer(path, None)
            assert b'"refused"' in answer("theirs/app.db", ["x"])

    def test_hooks_run_for_nobody_where_others_may_write_the_configuration(self, theirs: Desk) -> None:
        (theirs.folder / "opsd.yaml").chmod(0o666)
        occasion = {"run": "r", "job": "all", "source": "data", "outcome": "", "error": ""}
        request = json.dumps({"job": "hooks", "when": "before", "occasion": occasion}).encode() + b"\n"
        with serving(theirs, "hooks") as service:
            assert b"others may write" in service.said_to(request)
            (theirs.folder / "opsd.yaml").chmod(0o644)
            assert b'{"answer": []}' in service.said_to(request)
            for key, value in (("when", "never"), ("occasion", {}), ("job", "shell")):
                changed = json.dumps({**json.loads(request), key: value}).encode() + b"\n"
                assert b'"refused"' in service.said_to(changed)
            other = json.dumps({**json.loads(request), "occasion": {**occasion, "source": "no"}}).encode() + b"\n"
            assert b"there is no source" in service.said_to(other)


def test_a_failing_hook_of_the_service_fails_its_source_as_it_would_here(desk: Desk) -> None:
    desk.ok("init")
    program = (
        "import os, sys; from pathlib import Path; from opsd.backup.hooks import *; from opsd.sources.options import *\n"
        "from opsd.events import Recorder\n"
        "os.geteuid = lambda: 1\n"
        "heard = Recorder()\n"
        "hooks = Hooks(before=(Hook(run=('true',)),))\n"
        "try:\n"
        "    with around(hooks, Occasion(run='r', job='all', source='data'), Path(sys.argv[1]), heard): print('inside')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    root = desk.folder / "data"
    failing = desk.configured(f"data: {{files: {{paths: [{root}]}}, hooks: {{before: [{{run: ['false']}}]}}}}")
    with serving(failing, "hooks") as service:
        environment = {**failing.variables(), "OPSD_RUN_FOLDER": str(service.path.parent)}
        command = [sys.executable, "-c", program, str(desk.folder / "state")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "SourceError source data: before hook false exited with 1\n", done.stderr
