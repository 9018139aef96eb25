"""What to run for each stream, and the running: a program's output is read while it is made, nothing is staged.

Promise: what was read is whole, or leaving raises: the program ended with 0 and its output was read to its end.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from opsd.errors import ProgramFailed
from opsd.process import Output, stream
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.postgresql.tables import Counted, Table
from opsd.values import dataclass

#: pg_dump gives up waiting for a lock after so many milliseconds: what it waits for may be waiting for our own session.
LOCK_WAIT = 10_000

#: So many of the largest tables are spread over the parts by name; the rest goes into the first part without being named.
NAMED_TABLES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One dump of a database: its file name, pg_dump's arguments and the tables whose rows it holds."""

    name: str
    arguments: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


def parts(tables: Sequence[Table], count: int) -> list[Part]:
    """Split a large database: pre-data, `count` parts of data of about equal size, post-data.

    The first part of data holds all that is not named in the others: small tables, sequences, large objects.
    """
    with_rows = sorted((table for table in tables if table.kind == "r"), key=lambda table: -table.size)
    bins = balanced(with_rows, count)
    elsewhere = tuple(f"--exclude-table-data={table.quoted}" for group in bins[1:] for table in group)
    materialized = [table for table in tables if table.kind == "m"]
    dumped = [Part(name="data-000.dump", arguments=("--section=data", *elsewhere), tables=(*bins[0], *materialized))]
    for number, group in enumerate(bins[1:], start=1):
        chosen = tuple(f"--table={table.quoted}" for table in group)
        name = f"data-{number:03}.dump"
        dumped.append(Part(name=name, arguments=("--section=data", "--strict-names", *chosen), tables=tuple(group)))
    first = Part(name="pre-data.dump", arguments=("--section=pre-data",))
    return [first, *dumped, Part(name="post-data.dump", arguments=("--section=post-data",))]


def balanced(tables: Sequence[Table], count: int) -> list[list[Table]]:
    """Tables, largest first, each into the group that is smallest so far; the first may be empty, others never."""
    groups: list[list[Table]] = [list(tables[NAMED_TABLES:])]
    groups += [[] for _ in range(count - 1)]
    weights = [sum(table.size for table in group) for group in groups]
    for table in tables[:NAMED_TABLES]:
        lightest = min(range(len(groups)), key=lambda number: (weights[number], -number))
        groups[lightest].append(table)
        weights[lightest] += table.size
    return [groups[0], *(group for group in groups[1:] if group)]


class Dump:
    """The output of a running program whose first bytes were read already, to see that it begins at all."""

    def __init__(self, output: Output, beginning: bytes) -> None:
        self._output = output
        self._beginning = beginning
        self.counted: Future[dict[Table, Counted]] | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end."""
        if not self._beginning:
            return self._output.readinto(buffer)
        count = min(len(buffer), len(self._beginning))
        buffer[:count] = self._beginning[:count]
        self._beginning = self._beginning[count:]
        return count

    def complaints(self) -> list[str]:
        """What pg_dump warned of, once it has ended."""
        return complaints(self._output.error_text().decode(errors="replace"))


@contextmanager
def dumping(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Dump]:
    """A program's output; entering waits until it begins. Leaving raises ServerProblem where it is not whole."""
    beginning = bytearray(4096)
    try:
        with stream(command, environment=environment) as output:
            size = output.readinto(memoryview(beginning))
            if size:
                yield Dump(output, bytes(beginning[:size]))
    except ProgramFailed as failure:
        raise ServerProblem(str(failure), hint=failure.hint) from failure
    if not size:
        raise ServerProblem(f"{Path(command[0]).name} wrote nothing")


def complaints(said: str) -> list[str]:
    """The warnings among what pg_dump said, each in one line with its details.

    Circular foreign keys matter only to who restores rows alone: here foreign keys come after all rows.
    """
    found: list[str] = []
    for line in said.splitlines():
        text = re.sub(r"^\w+: (warning: |detail: |hint: )?", "", line.strip())
        if ": warning: " in line:
            found.append(text)
        elif found and text:
            found[-1] += f" {text}"
    return [each for each in found if "circular foreign-key" not in each]
