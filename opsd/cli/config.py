"""`opsd config`: make, check and show the configuration."""

import json
from typing import Any

import click

from opsd.app.configuration import shown, shown_with_origins
from opsd.app.session import find_settings
from opsd.cli import output
from opsd.cli.main import HELP
from opsd.cli.options import configuration_path, described
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
    "Read the configuration and tell every mistake with file, line and column; exits with 2 if there is one. Opens nothing it names.",
    """{"valid": true, "sources": [{"name", "domain"}]}, or {"error": {…, "mistakes": [text]}}""",
    "opsd -c opsd.yaml config validate",
)
def validate(**given: Any) -> None:
    """Check the configuration."""
    settings = find_settings(configuration_path())
    if given["as_json"]:
        names = [{"name": source.label, "domain": source.domain} for source in settings.sources]
        output.emit({"valid": True, "sources": names})
    else:
        where = f", repository {settings.repository}" if settings.repository else ", no repository"
        pulls = f", {output.count(len(settings.pulls), 'pull')}" if settings.pulls else ""
        output.line(f"valid: {output.count(len(settings.sources), 'source')}{where}{pulls}")


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


for each in (generate, validate, show, schema_):
    command.add_command(each)
