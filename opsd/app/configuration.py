"""The settings in force: checked beyond what reading does, and as text for people and for the snapshots.

Promise: what `shown` prints is accepted as a configuration; secrets stay references.
"""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from opsd import settings as model
from opsd.errors import ConfigurationError
from opsd.settings import Settings
from opsd.settings.shapes import suggestion


def validated(settings: Settings) -> Settings:
    """The same settings, once what reading them does not look at is found right: every URL of an alert that stands there is one that can be used.

    Raises:
        ConfigurationError: it is not.
    """
    plain = [
        (f"alerts.contacts[{number}].urls", place, url)
        for number, contact in enumerate(settings.alerts.contacts)
        for place, url in enumerate(contact.urls)
        if isinstance(url, str)
    ]
    if plain:
        mistakes = tuple(
            f"{settings.origin.get(key, '')} {key}[{place}]: {mistake}"
            for key, place, url in plain
            if (mistake := _mistake_in(url))
        )
        if mistakes:
            raise ConfigurationError(mistakes, hint="see docs/alerts.md, and https://github.com/caronc/apprise/wiki")
    return settings


def _mistake_in(url: str) -> str:
    from opsd.monitor.sending import mistake_in, schemes  # noqa: PLC0415 - apprise: half a second that only those with such addresses pay

    scheme, known = url.partition("://")[0].lower(), schemes()
    return mistake_in(url) if scheme in known else f"apprise knows no service {scheme}{suggestion(scheme, known)}"


def shown(settings: Settings) -> str:
    """The effective settings, every default in place."""
    return yaml.safe_dump(model.shown(settings), sort_keys=False, allow_unicode=True)


def shown_with_origins(settings: Settings) -> str:
    """Each key by its whole way on a line of its own, and where it was set."""
    lines = (f"{_one_line({key: value})}  # {origin}\n" for key, (value, origin) in model.flattened(settings).items())
    return "".join(lines)


def _one_line(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.strip()[1:-1]
