"""`opsd serve`: be the service behind a socket; started by its unit, not by people."""

import signal
import threading
from typing import Any

import click

from opsd.cli.main import HELP
from opsd.cli.options import configuration_path
from opsd.daemon import journal
from opsd.daemon.services import serve


@click.command("serve", hidden=True, context_settings=HELP)
@click.argument("service", metavar="SERVICE")
def command(**given: Any) -> None:
    """Do what is asked for on the socket that systemd passes: worker, upkeep, drill, restore, hooks or owner."""
    journal.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(given["service"], configuration_path(), stop)
