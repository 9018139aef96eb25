"""Which opsd this is.

Promise: importlib.metadata, which takes longer to import than a list of snapshots to print, is imported by nobody else.
"""

import importlib.metadata
from functools import cache


@cache
def version() -> str:
    """The version of this opsd."""
    try:
        return importlib.metadata.version("opsd")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"
