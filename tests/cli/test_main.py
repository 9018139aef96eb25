"""The command line's frame: help, speed, exit codes, errors in words and in JSON."""

import os
import re
import shlex
import signal
import subprocess
import sys

import click
import pytest

from opsd.cli.main import COMMANDS, cli
from tests.support.command_line import Desk

HEAVY = ("cryptography", "boto3", "paramiko", "rich", "yaml", "psycopg", "sqlite3", "opsd.repository")


def walk(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)] if path else []
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += walk(below, (*path, name))
    return found


ALL = walk(cli)


def examples(command: click.Command) -> list[str]:
    text = command.help or ""
    block = text.partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines() if line.strip()]


def test_help_imports_nothing_heavy(desk: Desk) -> None:
    code = f"""
import sys
from opsd.cli.main import cli
try:
    cli.main(["--help"], prog_name="opsd")
except SystemExit as leaving:
    assert leaving.code == 0
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], env=desk.variables(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert all(name in done.stdout.decode() for name in COMMANDS)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_an_example_that_parses_and_a_shape_for_its_json(
    path: tuple[str, ...], command: click.Command
) -> None:
    if path == ("demo",):
        pytest.skip("its example is the command itself")
    found = examples(command)
    assert found
    if not isinstance(command, click.Group):
        assert "JSON:" in (command.help or "")
        assert any("--json" in each.opts for each in command.params)
    for example in found:
        words = shlex.split(example.split(" | ")[0].split(" > ")[0])
        while re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        assert words[0] == "opsd"
        parse(words[1:])


def parse(words: list[str]) -> None:
    """Parse as the command line does, down to the last command, without running anything."""
    command: click.Command = cli
    context = command.make_context("opsd", list(words), resilient_parsing=False)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None
        command, context = below, below.make_context(name, rest, parent=context)


def test_the_version_is_printed(desk: Desk) -> None:
    assert desk.ok("--version").text.startswith("opsd ")


def test_an_unknown_command_gets_the_nearest_name_and_exits_with_2(desk: Desk) -> None:
    ran = desk.run("bakup")
    assert ran.code == 2
    assert "did you mean backup" in ran.err.lower()


def test_an_unknown_option_exits_with_2_and_names_the_help(desk: Desk) -> None:
    ran = desk.run("snapshots", "--bogus")
    assert ran.code == 2
    assert ran.err.startswith("opsd: no such option")
    assert "opsd snapshots --help" in ran.err


def test_without_any_configuration_the_error_says_what_suffices(desk: Desk) -> None:
    ran = desk.bare().run("snapshots")
    assert ran.code == 2
    assert "OPSD_REPOSITORY" in ran.err


def test_a_missing_repository_is_one_error_with_a_hint(desk: Desk) -> None:
    ran = desk.run("snapshots")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "opsd init" in ran.err


def test_with_json_an_error_is_an_object_on_stdout_too(desk: Desk) -> None:
    ran = desk.run("snapshots", "--json")
    error = ran.json["error"]
    assert set(error) == {"kind", "text", "hint", "exit_code"}
    assert error["exit_code"] == ran.code == 1


def test_a_wrong_passphrase_is_refused_in_words(taken: Desk) -> None:
    wrong = taken.folder / "wrong"
    wrong.write_text("incorrect\n")
    wrong.chmod(0o600)
    stranger = Desk(
        folder=taken.folder,
        environment={"OPSD_REPOSITORY": f"{taken.folder}/repository", "OPSD_PASSPHRASE_FILE": str(wrong)},
    )
    ran = stranger.run("ls", "latest")
    assert ran.code == 1
    assert "wrong passphrase" in ran.err


def test_a_passphrase_that_nobody_can_type_is_an_error_and_no_prompt(taken: Desk) -> None:
    ran = taken.bare().run("ls", "latest", "--repository", f"{taken.folder}/repository")
    assert ran.code == 1
    assert "passphrase" in ran.err


def test_an_unknown_snapshot_is_named(taken: Desk) -> None:
    ran = taken.run("ls", "0123")
    assert ran.code == 1
    assert "no snapshot 0123" in ran.err


@pytest.mark.parametrize("arguments", [["find", "*", "--all"], ["export", "latest"], ["snapshots", "--json"]])
def test_a_reader_that_leaves_early_is_no_failure_and_gets_no_word(taken: Desk, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        taken.command(*arguments), env=taken.variables(), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [[], ["config"], ["ledger"]])
def test_without_a_command_the_help_is_shown_as_it_is(desk: Desk, arguments: list[str]) -> None:
    done = subprocess.run(desk.command(*arguments), env=desk.variables(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: opsd")
    assert "\nCommands:\n" in done.stderr


def test_a_job_whose_daemon_was_killed_does_its_work_to_the_end(taken: Desk) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        taken.command("snapshots"),
        env={**taken.variables(), "OPSD_RUN_ID": "r"},
        stdout=writing,
        stderr=writing,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0


def test_nothing_fails_because_what_is_said_on_the_way_is_not_heard() -> None:
    code = """
from opsd.cli.progress import Lines
lines = Lines()
for _ in range(2):
    lines.tell("on the way")
print("done")
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_broken_pipe_that_is_not_our_output_is_told(desk: Desk) -> None:
    code = """
import opsd.app.session, opsd.cli.main
def broken(*_): raise BrokenPipeError(32, "Broken pipe")
opsd.app.session.find_settings = broken
opsd.cli.main.main(["snapshots"])
"""
    done = subprocess.run([sys.executable, "-c", code], env=desk.variables(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"opsd: broken pipe\n")


def interrupted(desk: Desk, number: signal.Signals) -> tuple[int, str]:
    """Send a signal while a source is being read, and say how the run ended."""
    os.mkfifo(desk.folder / "slow")
    script = f"echo x > {desk.folder}/slow; sleep 100"
    configured = desk.configured(f"job: {{command: {{run: [bash, -c, '{script}'], name: out}}}}")
    configured.ok("init")
    process = subprocess.Popen(
        configured.command("backup"), env=configured.variables(), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with (desk.folder / "slow").open("rb") as pipe:
        assert pipe.read() == b"x\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_at_once_with_one_line(desk: Desk, number: signal.Signals, code: int) -> None:
    ended, err = interrupted(desk, number)
    assert ended == code
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("opsd: stopped")
    assert desk.ok("snapshots", "--json").json == []
    assert desk.ok("stats", "--json").json["objects"]["runs"]["count"] == 2


def test_what_nobody_foresaw_says_that_it_is_a_bug_and_where_it_is_written(desk: Desk) -> None:
    code = """
import opsd.app.session, opsd.cli.main
def broken(*_): raise ZeroDivisionError("planted")
opsd.app.session.find_settings = broken
opsd.cli.main.main(["snapshots"])
"""
    environment = {**desk.variables(), "TMPDIR": str(desk.folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "this is a bug in opsd: ZeroDivisionError: planted" in done.stderr
    written = list(desk.folder.glob("opsd-bug-*.txt"))
    assert len(written) == 1
    assert "Traceback" in written[0].read_text()
