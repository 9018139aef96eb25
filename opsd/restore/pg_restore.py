"""Run pg_restore: for all that a dump holds, for some of it, or to be told what it holds.

Promise: a dump is a stream that is read from its beginning, as far as the program reads; nothing is staged on disk, here or where
`via` leads.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from opsd.errors import ProgramFailed
from opsd.events import Reporter
from opsd.process import Completed, ending, feed, said
from opsd.restore.dump_contents import Item, parse
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.tools import Tools
from opsd.values import dataclass

#: A stream of a snapshot, in pieces that are valid until the next one.
Content = Callable[[], Iterable[bytes | memoryview]]

_NEEDS: Final = "nothing was changed; if a type, a function or another table is missing, restore the whole database under another name"
_IGNORED: Final = re.compile(r"errors ignored on restore: (\d+)")
_MESSAGE: Final = re.compile(r"^pg_restore: (?:error|warning): ", re.MULTILINE)
#: The server's own word for an error may be of any language.
_REFUSED: Final = re.compile(r"could not execute query: [^:\n]+: +(.*?)\n.*?Command was: (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PgRestore:
    """The program that fits a server."""

    server: Server
    tools: Tools
    reporter: Reporter

    def fill(self, database: str, content: Content, ownership: Sequence[str]) -> None:
        """Restore all of a dump; raises ProgramFailed at the first error."""
        command = [*self.tools.command("pg_restore"), "--exit-on-error", *ownership, *self._address(database)]
        self._run(command, self._counted(content()))

    def fill_some(self, database: str, content: Content, items: Sequence[Item], ownership: Sequence[str]) -> None:
        """Restore these entries, or none of them: raises ProgramFailed at the first error."""
        command = [*self._some(items), "--single-transaction", *ownership, *self._address(database)]
        self._run(command, self._counted(content()), _NEEDS)

    def try_some(
        self, database: str, content: Content, items: Sequence[Item], ownership: Sequence[str]
    ) -> dict[str, str]:
        """Restore these entries; one that the server refuses stops no other. Returns the reasons by what was refused."""
        command = [*self._some(items), *ownership, *self._address(database)]
        done = feed(command, content(), environment=self.server.environment())
        return _refused(done, items) if done.status else {}

    def items(self, content: Content) -> list[Item]:
        """What a dump holds; raises ProgramFailed."""
        command = self.tools.command("pg_restore")
        listed = self._run([*command, "--list"], content())
        text = self._run([*command, "--verbose", "--schema-only", "--file=-"], content())
        return parse(*(each.decode("utf-8", "surrogateescape") for each in (listed, text)))

    def _run(self, command: Sequence[str], pieces: Iterable[bytes | memoryview], hint: str | None = None) -> bytes:
        done = feed(command, pieces, environment=self.server.environment())
        if done.status:
            raise _failure(done, hint)
        return done.output

    def _some(self, items: Sequence[Item]) -> list[str]:
        listed = "\n".join(f"{item.id};" for item in items)
        return [*self.tools.command_with_list("pg_restore", listed), "--use-list=/dev/fd/3"]

    def _address(self, database: str) -> list[str]:
        return ["--no-password", f"--dbname={self.server.address(database)}"]

    def _counted(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            yield piece
            self.reporter.advance(size=len(piece))


def _refused(done: Completed, items: Sequence[Item]) -> dict[str, str]:
    """What pg_restore said that it could not do; raises ProgramFailed where that was not all."""
    text = done.error_text.decode(errors="replace")
    ignored = _IGNORED.search(text)
    if not ignored:
        raise _failure(done, "the tables are there without all that belongs to them: drop them, and restore them again")
    errors = [error.groups() for part in _MESSAGE.split(text) if (error := _REFUSED.match(part))]
    found: dict[str, str] = {}
    refused: set[int] = set()
    for reason, command in errors:
        item = next((item for item in items if command.strip() in item.sql), None)
        if item is None or not item.needs & refused:  # A comment goes with what it is about.
            found[item.title if item else command.partition("\n")[0]] = reason
            refused.update({item.id} if item else ())
    if unnamed := int(ignored[1]) - len(errors):
        found[f"{unnamed} more"] = "see the server's log"
    return found


def _failure(done: Completed, hint: str | None) -> ProgramFailed:
    text = f"pg_restore {ending(done.status)}{said(done.error_text)}"
    return ProgramFailed(text, hint=hint, status=done.status)
