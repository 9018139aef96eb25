"""Options that many commands share, and the session that they lead to.

Promise: every command has `--json`; whoever reads a repository may name it and open it with the recovery kit alone.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from opsd.app.session import Access, Session
from opsd.app.times import parse_time
from opsd.cli.main import HELP, Invocation
from opsd.cli.progress import Listener, listening
from opsd.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
Given = Mapping[str, Any]
_REASON_LETTERS = 500

json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON on stdout; the shape stands above.")


def a_reason(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A reason as it was given; a line of the ledger holds no novels."""
    if value is not None and len(value) > _REASON_LETTERS:
        raise click.BadParameter(f"a reason has at most {_REASON_LETTERS} letters, this one has {len(value)}")
    return value


reason_option = click.option(
    "--reason", metavar="TEXT", callback=a_reason, help="Why; it is kept in the ledger, readable for whoever sees that."
)

_ACCESS = (
    click.option(
        "--repository", metavar="URL", help="The repository; no configuration is read then, no state is needed."
    ),
    click.option("--kit", is_flag=True, help="Open with the recovery kit: asked for, or in OPSD_KIT_FILE."),
    click.option("--kit-file", metavar="FILE", type=click.Path(), help="Open with the recovery kit in a file."),
    click.option(
        "--key-file", metavar="FILE", type=click.Path(), help="Open with a recipient's key file ('opsd key generate')."
    ),
)

from_option = click.option(
    "--from", "copy", metavar="NAME", help="Read this copy of 'copies:' or 'pulls:' instead of the repository."
)

snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT")


def described(name: str, text: str, shape: str, *examples: str) -> Callable[[Command], click.Command]:
    """A command with its help: what it does, the shape of its JSON, examples that a test runs."""
    shown = "\n".join(f"  {example}" for example in examples)
    help_text = f"{text}\n\n\b\nExamples:\n{shown}\n\n\b\nJSON:\n{_indented(shape)}"

    def decorate(function: Command) -> click.Command:
        return click.command(name, help=help_text, context_settings=HELP)(json_option(function))

    return decorate


def _indented(shape: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in shape.strip().splitlines())


def access_options(function: Command) -> Command:
    """Add the options that say which repository, and how to open it."""
    for option in reversed(_ACCESS):
        function = option(function)
    return function


def reading_options(function: Command) -> Command:
    """The same for commands that may read a copy instead."""
    return access_options(from_option(function))


def ask(prompt: str) -> str:
    """Ask for a secret on the terminal."""
    return answer(prompt, hide_input=True)


def answer(prompt: str, *, hide_input: bool = False) -> str:
    """What a person types.

    Raises:
        KeyboardInterrupt: Ctrl-C, and the end of input, which click makes one of its own: it is to be recorded as what it was.
    """
    try:
        typed: str = click.prompt(prompt, hide_input=hide_input, err=True, prompt_suffix=": ")
    except click.Abort as error:
        came = error.__context__
        raise came if isinstance(came, KeyboardInterrupt) else KeyboardInterrupt from None
    return typed


def asker() -> Callable[[str], str] | None:
    """How to ask the person, or None where there is no terminal."""
    return ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def confirm(opened: Session, show: Callable[[], None], *, unasked: bool) -> None:
    """Show a plan and have the person type the host's name, which nobody types by habit.

    Raises:
        UsageError: nobody is there to type it, or it is another.
    """
    if unasked:
        return
    if asker() is None:
        raise UsageError(
            "a restore in place must be confirmed, and nobody is here to ask", hint="look at --plan, then give --yes"
        )
    show()
    typed = answer(f"To write over this, type the name of this host ({opened.settings.host})")
    if typed != opened.settings.host:
        raise UsageError("that is another name: nothing was changed", hint="give --yes to go on without being asked")


def moment(opened: Session, text: str | None) -> int | None:
    """A time as it was typed, in ns UTC; None where none was."""
    return parse_time(text, opened.settings.zone, opened.clock.now()) if text else None


def configuration_path() -> str | None:
    """What `-c` named."""
    found = click.get_current_context().find_object(Invocation)
    return found.configuration if found else None


def access_of(given: Given) -> Access:
    """How this command reaches its repository."""
    if given.get("copy") and given.get("repository"):
        raise UsageError(
            "give either --from or --repository, not both", hint="a copy's own place may be a --repository too"
        )
    return Access(
        configuration=configuration_path(),
        repository=given.get("repository"),
        copy=given.get("copy"),
        kit=bool(given.get("kit")),
        kit_file=given.get("kit_file"),
        key_file=given.get("key_file"),
        ask=asker(),
    )


@contextmanager
def session(given: Given) -> Iterator[tuple[Session, Listener]]:
    """The session of a command, and its listener."""
    with listening(quiet=given["as_json"]) as listener, Session(access_of(given), listener) as opened:
        yield opened, listener
        if opened.is_doubtful:
            click.get_current_context().ensure_object(Invocation).is_doubtful = True
