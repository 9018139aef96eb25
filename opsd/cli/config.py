"""`opsd config`: make, check and show the configuration."""

import json
from typing import Any

import click

from opsd.app.configuration import shown, validated
from opsd.app.planning import odd_times
from opsd.app.session import find_settings
from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import configuration_path, described
from opsd.clock import SystemClock
from opsd.settings import example, schema


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
    """{"yaml": text}""",
    "opsd config show",
)
def show(**given: Any) -> None:
    """Print the settings in force."""
    text = shown(find_settings(configuration_path()))
    if given["as_json"]:
        output.emit({"yaml": text})
    else:
        click.echo(text, nl=False)


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


for each in (generate, validate, show, schema_):
    command.add_command(each)
