"""`opsd config`: make, check and show the configuration."""

import json
from pathlib import Path
from typing import Any

import click

from opsd.app import sandbox
from opsd.app.configuration import shown, shown_with_origins, validated
from opsd.app.planning import odd_times
from opsd.app.session import find_settings
from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import configuration_path, described
from opsd.clock import SystemClock
from opsd.settings import example, flattened, schema


@click.group(
    "config",
    context_settings=HELP,
    help="Make, check and show the configuration.\n\n"
    "\b\nExamples:\n  opsd config generate > /etc/opsd/opsd.yaml\n  opsd -c opsd.yaml config validate",
)
def command() -> None:
    """Make, check and show the configuration."""


@described(
    "generate", "Print an example with every key, commented.", """{"yaml": text}""", "opsd config generate > opsd.yaml"
)
def generate(**given: Any) -> None:
    """Print the example."""
    if given["as_json"]:
        output.emit({"yaml": example()})
    else:
        click.echo(example(), nl=False)


@described(
    "validate",
    "Read the configuration and tell every mistake with file, line and column; exits with 2 if there is one. Opens nothing it names. Warns, "
    "and exits with 3, of a scheduled time that the clock on the wall lacks on some day of the next year, or has twice.",
    """{"valid": true, "sources": [{"name", "domain"}], "warnings": [{"subject", "problem", "hint"}]}, or {"error": {…, "mistakes": [text]}}""",
    "opsd -c opsd.yaml config validate",
)
def validate(**given: Any) -> int:
    """Check the configuration."""
    settings = validated(find_settings(configuration_path()))
    odd = odd_times(settings, SystemClock().now())
    output.warnings(odd)
    if given["as_json"]:
        names = [{"name": source.label, "domain": source.domain} for source in settings.sources]
        output.emit({"valid": True, "sources": names, "warnings": [output.warning_json(each) for each in odd]})
    else:
        where = f", repository {settings.repository}" if settings.repository else ", no repository"
        pulls = f", {output.count(len(settings.pulls), 'pull')}" if settings.pulls else ""
        output.line(f"valid: {output.count(len(settings.sources), 'source')}{where}{pulls}")
    return 3 if odd else 0


@described(
    "show",
    "Print the configuration as opsd understands it, every default in place; secrets stay references. Every snapshot holds this text.",
    """{"yaml": text}; with --origin also "origins": {key: "FILE:LINE"|VARIABLE|"default"}, a key being its whole way""",
    "opsd config show",
    "opsd config show --origin",
)
@click.option("--origin", is_flag=True, help="A line for each key, with the file and line that set it.")
def show(**given: Any) -> None:
    """Print the settings in force."""
    settings = find_settings(configuration_path())
    if given["as_json"]:
        origins = {key: origin for key, (_, origin) in flattened(settings).items()}
        output.emit({"yaml": shown(settings)} | ({"origins": origins} if given["origin"] else {}))
    else:
        click.echo(shown_with_origins(settings) if given["origin"] else shown(settings), nl=False)


@described(
    "schema",
    "Print the JSON Schema of the configuration, for editors.",
    "the schema itself",
    "opsd config schema > schema.json",
)
def schema_(**given: Any) -> None:
    """Print the schema."""
    del given
    click.echo(json.dumps(schema(), indent=2))


@described(
    "units",
    "Print what the units of systemd must let opsd have, as the configuration names it: folders that it writes to, the network, secrets. "
    "With --write the files are written, and those that are needed no more removed. Run it after each change of the configuration.",
    """{"files": {path: text}, "changed": [path]}; a text is empty where there should be no such file""",
    "opsd config units",
    "opsd config units --write",
)
@click.option("--write", "is_written", is_flag=True, help="Write the files.")
@click.option(
    "--folder", default=str(sandbox.FOLDER), show_default=True, metavar="DIR", help="Where drop-ins of units stand."
)
def units(**given: Any) -> None:
    """Print or write the drop-ins."""
    settings, folder = find_settings(configuration_path()), Path(given["folder"])
    files = sandbox.files(settings, folder)
    changed = sandbox.write(settings, folder) if given["is_written"] else []
    if given["as_json"]:
        texts = {str(path): text for path, text in files.items()}
        output.emit({"files": texts, "changed": [str(path) for path in changed]})
    elif given["is_written"]:
        for path in changed:
            output.line(f"{'wrote' if files[path] else 'removed'} {path}")
        output.line("now run: systemctl daemon-reload" if changed else "all of them are as they should be")
        names = [path.parent.name.removesuffix(".service.d") for path in changed if "@" not in path.parent.name]
        if names:
            text = "What is at work keeps its old rights until it ends, or until (a job stops at a safe point, and goes on later):"
            output.lines(text)
            output.line(f"systemctl try-restart {' '.join(names)}")
    else:
        texts_shown = [f"# {path}\n{text}" for path, text in files.items() if text]
        click.echo("\n".join(texts_shown) or "# the units let opsd have all that this configuration names\n", nl=False)


for each in (generate, validate, show, schema_, units):
    command.add_command(each)
