"""The command `opsd`: finds the command's module, runs it, and turns whatever goes wrong into a few lines and an exit code.

Promise: nothing heavy is imported before a command runs; no traceback for anything foreseeable. Exit codes: 0 done, 1 failed, 2
usage or configuration, 3 done with warnings, 4 integrity, 5 overdue, 75 try later; 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads our
output any more.
"""

import errno
import gc
import importlib
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import Any, NoReturn

import click

from opsd.errors import ConfigurationError, OpsdError, UsageError
from opsd.values import dataclass

#: Each command: its module, its function's name there, and its line in the list of commands.
COMMANDS = {
    "init": ("init", "Create the repository and print its recovery kit."),
    "backup": ("backup", "Take a snapshot of the sources, or of PATHs."),
    "snapshots": ("snapshots", "List the snapshots."),
    "ls": ("ls", "List what a snapshot holds."),
    "find": ("find", "Find names in snapshots."),
    "diff": ("diff", "Tell what changed between two snapshots."),
    "cat": ("cat", "Print a file of a snapshot."),
    "export": ("export", "Write a snapshot, or a part of it, as a tar file."),
    "restore": ("restore", "Give files and databases back."),
    "check": ("check", "Verify the repository and name what is damaged."),
    "copy": ("copy", "Bring the copies on other servers up to date."),
    "drill": ("drill", "Restore all of a copy and prove that it is as it was."),
    "prune": ("prune", "Remove the snapshots that no rule keeps."),
    "hold": ("hold", "Keep a snapshot whatever the rules say."),
    "daemon": ("opsd.daemon.command", "Keep the schedule, for years."),
    "run": ("run", "Do a job of the schedule now."),
    "pause": ("pause", "Keep the daemon from starting jobs for a while."),
    "status": ("status", "Tell whether the promise is kept."),
    "alerts": ("alerts", "Who is told when something is wrong, and what is open."),
    "ack": ("ack", "Say that you take care of what is open."),
    "setup": ("setup", "Find what lives here, and prove a first restore."),
    "doctor": ("doctor", "Test before the night what a night needs."),
    "stats": ("stats", "Tell how much is stored."),
    "key": ("key", "Who can open the repository."),
    "config": ("config", "Make, check and show the configuration."),
    "ledger": ("ledger", "Tell what was done, and prove it."),
    "demo": ("demo", "See the main job done on data of its own."),
}
#: What units and tests call, and no list shows: its module.
HIDDEN = {"serve": "serve", "ask": "ask", "self-check": "self_check"}
#: Objects made and not freed before garbage is looked for, at most; Python's own 700 cost a backup a tenth of its time.
_OBJECTS_BEFORE_GARBAGE = 10_000
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Terminated(KeyboardInterrupt):
    """SIGTERM came: everything ends as it does after Ctrl-C."""

    exit_code = 143


class PipeBroken(Exception):
    """Carries a BrokenPipeError past click, which would end with 1 and not say a word, whatever the pipe was."""

    def __init__(self, error: BrokenPipeError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class Invocation:
    """What was given before the command: the configuration's path. What its session learnt: whether a copy that was read is in doubt."""

    configuration: str | None = None
    is_doubtful: bool = False


class Commands(click.Group):
    """A group whose commands are imported when they are run; the list of commands needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a person meets them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        del ctx
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        place = HIDDEN.get(cmd_name) or COMMANDS[cmd_name][0]
        module = importlib.import_module(place if "." in place else f"opsd.cli.{place}")
        gc.freeze()  # What was imported stays: garbage is not looked for in it.
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeBroken(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table above."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; an unknown one gets the nearest names."""
        if args and args[0] not in {*COMMANDS, *HIDDEN} and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - needed only here, and not free

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else " 'opsd --help' lists them."
            ctx.fail(f"there is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if value and not ctx.resilient_parsing:
        about = importlib.import_module("opsd.app.version")
        click.echo(f"opsd {about.version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings=HELP,
    epilog="Example: opsd init && opsd backup && opsd restore latest --to /tmp/back. "
    'Completion for bash: eval "$(_OPSD_COMPLETE=bash_source opsd)" (zsh_source, fish_source likewise).',
)
@click.option(
    "-c",
    "--config",
    "configuration",
    metavar="FILE",
    type=click.Path(readable=False),
    help="The configuration; otherwise OPSD_CONFIG, else /etc/opsd/opsd.yaml.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context, configuration: str | None) -> None:
    """Take, keep, check and give back total snapshots of files and databases.

    Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 done with warnings, 4 integrity, 5 overdue, 75 try later.
    With --json, a failure prints {"error": {"kind", "text", "hint", "exit_code"}}.
    """
    ctx.ensure_object(Invocation).configuration = configuration


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(_OBJECTS_BEFORE_GARBAGE)
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given))


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _run(given: list[str]) -> int:
    as_json = "--json" in given
    invocation = Invocation()
    try:
        result = cli.main(args=given, prog_name="opsd", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        return _usage(error, as_json=as_json)
    except OpsdError as error:
        return _fail(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt) as error:
        return _stopped(error)
    except PipeBroken as error:
        return _system(error.error, as_json=as_json)
    except OSError as error:
        return _system(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last place that can say what happened
        return _bug(error, as_json=as_json)
    return (result if isinstance(result, int) else 0) or (3 if invocation.is_doubtful else 0)


def _usage(error: click.ClickException, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "opsd"
    text = error.format_message().rstrip(".")
    return _fail(UsageError(text[:1].lower() + text[1:], hint=f"'{command} --help' tells how"), as_json=as_json)


def _stopped(error: BaseException) -> int:
    if isinstance(error.__cause__ or error, Terminated):
        _output().note("opsd: stopped by SIGTERM")
        return Terminated.exit_code
    _output().note("opsd: stopped")
    return 130


def _output() -> ModuleType:
    """How answers look: help and completion need none of it."""
    return importlib.import_module("opsd.cli.output")


def _system(error: OSError, *, as_json: bool) -> int:
    """Something the operating system refused and no feature foresaw."""
    if isinstance(error, BrokenPipeError) and _reader_left():
        # As `head` does; nothing must be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    names = ", ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes)))
    reason = (error.strerror or str(error)).lower()
    hints = {
        errno.ENOSPC: "make room there, then run it again",
        errno.EACCES: "run as a user who may",
        errno.EPERM: "run as a user who may",
        errno.EROFS: "choose a place that can be written to",
        errno.EEXIST: "nothing is written over; name another file, or move that one away",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "check the path",
        errno.EISDIR: "it is a folder; name a file",
    }
    text = f"{names}: {reason}" if names else reason
    return _fail(OpsdError(text, hint=hints.get(error.errno or 0)), as_json=as_json)


def _reader_left() -> bool:
    """Whether our standard output is a pipe that nobody reads (poll(2))."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _fail(error: OpsdError, *, as_json: bool) -> int:
    output = _output()
    output.error(error)
    if as_json:
        value: dict[str, Any] = {
            "kind": type(error).__name__,
            "text": str(error),
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        if isinstance(error, ConfigurationError):
            value["mistakes"] = list(error.mistakes)
        output.emit({"error": value})
    return error.exit_code


def _bug(error: Exception, *, as_json: bool) -> int:
    """A defect of opsd: where it came from is written down for a report, not thrown at the person."""
    if os.environ.get("OPSD_DEBUG"):
        traceback.print_exception(error)
        where = "above"
    else:
        with tempfile.NamedTemporaryFile("w", prefix="opsd-bug-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        where = file.name
    hint = f"where it happened is written in {where}; nothing older than this run was touched"
    _fail(OpsdError(f"this is a bug in opsd: {type(error).__name__}: {error}", hint=hint), as_json=as_json)
    return 1
