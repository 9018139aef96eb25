#!/usr/bin/env python3
"""Write opsd(1) and a man page for each command into a folder, from the commands themselves: man_pages.py FOLDER.

Promise: what a page says is what `--help` says; two runs with the same SOURCE_DATE_EPOCH write the same bytes.
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from opsd.app.version import version
from opsd.cli.main import COMMANDS, HELP, cli

FILES = {
    "/etc/opsd/opsd.yaml": "The configuration, and what is in conf.d beside it. 'opsd setup' writes it; "
    "an example with every key is /usr/share/doc/opsd/examples/opsd.yaml.",
    "/var/lib/opsd": "State: keys of this host, ledger, history.",
    "/var/cache/opsd": "What only saves time, and may be lost.",
}


def escaped(text: str) -> str:
    """The text as roff prints it literally: groff_char(7), and no line that looks like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text; those that click is told to leave as they are begin with a heading."""
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.startswith("\b"):
            yield f".PP\n{escaped(paragraph)}"
            continue
        heading, _, rest = paragraph.removeprefix("\b\n").partition("\n")
        yield f".PP\n{escaped(heading)}\n.nf\n{escaped(rest)}\n.fi"


def options(context: click.Context) -> Iterator[str]:
    """Each option and what it does."""
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            yield f".TP\n.B {escaped(record[0])}\n{escaped(record[1])}"


def synopsis(context: click.Context) -> str:
    """How the command is called."""
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f".B {escaped(context.command_path)}\n{escaped(pieces)}"


def subcommands(group: click.Group, context: click.Context) -> Iterator[str]:
    """Each command of a group in full."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, **HELP)
        yield f".SS {escaped(name)}\n{synopsis(inner)}"
        yield from paragraphs(command.help or "")
        yield from options(inner)


def page(name: str, line: str, context: click.Context) -> Iterator[str]:
    """One page, as man(7) wants it."""
    moment = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    yield f'.TH "{name.upper()}" 1 "{moment:%Y-%m-%d}" "opsd {version()}" "opsd"'
    yield f".SH NAME\n{escaped(name)} \\- {escaped(line.rstrip('.'))}"
    yield f".SH SYNOPSIS\n{synopsis(context)}"
    yield ".SH DESCRIPTION"
    yield from paragraphs(context.command.help or "")
    yield ".SH OPTIONS"
    yield from options(context)
    if context.command is cli:
        yield ".SH COMMANDS"
        yield from (f".TP\n.BR opsd\\-{escaped(each)} (1)\n{escaped(text)}" for each, (_, text) in COMMANDS.items())
        yield ".SH FILES"
        yield from (f".TP\n.I {path}\n{escaped(text)}" for path, text in FILES.items())
        return
    if isinstance(context.command, click.Group):
        yield ".SH COMMANDS"
        yield from subcommands(context.command, context)
    yield ".SH SEE ALSO\n.BR opsd (1)"


def write(folder: Path, name: str, line: str, context: click.Context) -> None:
    """Write one page."""
    text = "\n".join(page(name, line, context))
    folder.joinpath(f"{name}.1").write_text(f"{text}\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Write all pages."""
    root = click.Context(cli, info_name="opsd", **HELP)
    write(folder, "opsd", "total snapshots of files and databases that prove that they come back", root)
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(root, name)
        assert command is not None
        write(folder, f"opsd-{name}", line, click.Context(command, info_name=name, parent=root, **HELP))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
