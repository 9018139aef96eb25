"""A program's output as a source, for whatever else people have.

Promise: the output is stored only if the program ended with 0 and in time; nothing of it is staged, however long it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import fsencode
from typing import Any

from opsd.errors import ProgramFailed, SourceError
from opsd.process import stream
from opsd.sources.options import CommandSource
from opsd.sources.protocol import Readable, Stream


class CommandOutput:
    """A source of one stream, `/NAME`: what the program writes to its standard output."""

    kind = "command"
    parallel = 1
    warnings = 0

    def __init__(self, label: str, options: CommandSource) -> None:
        self.label = label
        self._options = options

    @contextmanager
    def streams(self) -> Iterator[Iterator[Stream]]:
        """The output; the program starts when it is opened."""
        yield iter((Stream(path=b"/" + fsencode(self._options.name.lstrip("/")), open=self._open),))

    @contextmanager
    def _open(self) -> Iterator[Readable]:
        try:
            with stream(self._options.run, timeout=self._options.timeout) as output:
                yield output
        except ProgramFailed as error:
            hint = error.hint or "run the command by hand, as the user that opsd runs as"
            raise SourceError(self.label, str(error), hint=hint) from error

    def facts(self) -> Mapping[str, Any]:
        """Nothing that a drill could compare."""
        return {}
