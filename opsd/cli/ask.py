"""`opsd ask`: have a service do a job, as the daemon does; for whoever looks into one."""

from typing import Any

import click

from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import configuration_path
from opsd.control import SERVICES, Line
from opsd.daemon.asking import ask_and_ping
from opsd.errors import UsageError


@click.command("ask", hidden=True, context_settings=HELP)
@click.argument("job", metavar="JOB")
@click.argument("values", metavar="[KEY=VALUE]...", nargs=-1)
def command(**given: Any) -> int:
    """Ask the service that does JOB, show the end of what the job said, and end as it did.

    Example: opsd ask restore snapshot=latest to=/root/back
    """
    job = given["job"]
    if job not in SERVICES:
        raise UsageError(f"there is no job {job!r}", hint=f"there are {', '.join(SERVICES)}")
    pairs = [value.partition("=") for value in given["values"]]
    if any(not separator for _, separator, _ in pairs):
        raise UsageError("expected KEY=VALUE", hint="for example: opsd ask restore snapshot=latest to=/root/back")

    def heard(line: Line) -> None:
        if "started" in line:
            output.note(f"{job} runs as process {line['started']}")

    request = {"job": job, **{key: value for key, _, value in pairs}}
    ended = ask_and_ping(configuration_path(), request, heard)
    click.echo(ended.tail, nl=not ended.tail.endswith("\n"))
    return ended.exit_code if ended.exit_code >= 0 else 128 - ended.exit_code
