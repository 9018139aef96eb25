"""`opsd daemon`: keep the schedule."""

import os

import click

from opsd.app.session import find_settings
from opsd.clock import SystemClock
from opsd.daemon import journal
from opsd.daemon.asking import AsConfigured
from opsd.daemon.service import Service
from opsd.daemon.watching import Watch

_HELP = """Keep the schedule: backup, copies, prune, check and drill at their times, for years. What was due while it was down is
caught up with once; a job that fails is tried again at growing pauses; 'opsd status' tells how it stands, and the metrics do.

SIGHUP takes a changed configuration (one with mistakes is told, and the one before stays); SIGTERM stops it, jobs at a safe point, which go
on at the next start. Runs in the foreground; systemd's unit is opsd-daemon.

\b
Examples:
  opsd daemon
  opsd -c /etc/opsd/opsd.yaml daemon

\b
JSON:
  one line for each thing that it says: {"event", "level", "timestamp", "opsd_run", "opsd_job", ...}
"""


@click.command("daemon", help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Log in JSON; the shape stands above.")
@click.pass_context
def command(ctx: click.Context, *, as_json: bool) -> int:
    """Be the daemon."""
    journal.configure(as_json=as_json)
    stated = getattr(ctx.obj, "configuration", None)
    configuration = os.path.abspath(stated) if stated else None  # Jobs work in another folder.
    clock = SystemClock()
    return Service(
        lambda: find_settings(configuration), AsConfigured(configuration), clock, [Watch(clock, configuration)]
    ).run()
