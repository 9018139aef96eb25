"""The configuration: strict YAML, turned into each feature's own options.

Promise: every mistake at once, each with its file, line, column and a suggestion; secrets stay references.
"""

from opsd.settings.loading import (
    DEFAULT_FILE,
    default_paths,
    flattened,
    from_environment,
    load,
    salvaged,
    shown,
    with_passphrase,
)
from opsd.settings.model import KeyDomain, Settings
from opsd.settings.rendering import example, schema
from opsd.settings.schedule import Schedule

__all__ = [
    "DEFAULT_FILE",
    "KeyDomain",
    "Schedule",
    "Settings",
    "default_paths",
    "example",
    "flattened",
    "from_environment",
    "load",
    "salvaged",
    "schema",
    "shown",
    "with_passphrase",
]
