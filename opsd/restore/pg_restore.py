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
#: What a pg_restore of 17 or newer says first, and an older server does not know; without harm.
_UNKNOWN: Final = frozenset({"SET transaction_timeout = 0;"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PgRestore:
    """The program that fits a server.

    One that is newer than the server goes on after an error, since the server may not know a setting that it begins with; any other error
    is found in what it said.
    """

    server: Server
    tools: Tools
    reporter: Reporter

    @property
    def is_atomic(self) -> bool:
        """Whether an error ends it at once and undoes what was to be in one transaction."""
        return not self.tools.newer

    def fill(self, database: str, content: Content, ownership: Sequence[str]) -> None:
        """Restore all of a dump; raises ProgramFailed at an error."""
        strictly = ["--exit-on-error"] if self.is_atomic else []
        command = [*self.tools.command("pg_restore"), *strictly, *ownership, *self._address(database)]
        self._run(command, self._counted(content()))

    def fill_some(self, database: str, content: Content, items: Sequence[Item], ownership: Sequence[str]) -> None:
        """Restore these entries, or none of them, if this is atomic; raises ProgramFailed at an error."""
        at_once = ["--single-transaction"] if self.is_atomic else []
        command = [*self._some(items), *at_once, *ownership, *self._address(database)]
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
        failure = (_failure if self.is_atomic else _failure_after_all)(done, hint) if done.status else None
        if failure:
            raise failure
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
    errors, unnamed = _errors(text, int(ignored[1]))
    found: dict[str, str] = {}
    refused: set[int] = set()
    for reason, command in errors:
        item = next((item for item in items if command in item.sql), None)
        if item is None or not item.needs & refused:  # A comment goes with what it is about.
            found[item.title if item else command.partition("\n")[0]] = reason
            refused.update({item.id} if item else ())
    if unnamed:
        found[f"{unnamed} more"] = "see the server's log"
    return found


def _errors(text: str, count: int) -> tuple[list[tuple[str, str]], int]:
    """Of `count` errors that pg_restore went on after: reason and command of those that matter, and how many it said otherwise."""
    refused = [(error[1], error[2].strip()) for part in _MESSAGE.split(text) if (error := _REFUSED.match(part))]
    return [(reason, command) for reason, command in refused if command not in _UNKNOWN], count - len(refused)


def _failure(done: Completed, hint: str | None) -> ProgramFailed:
    text = f"pg_restore {ending(done.status)}{said(done.error_text)}"
    return ProgramFailed(text, hint=hint, status=done.status)


def _failure_after_all(done: Completed, hint: str | None) -> ProgramFailed | None:
    """Why a program failed that went on after errors: the first of them; None if none matters."""
    text = done.error_text.decode(errors="replace")
    ignored = _IGNORED.search(text)
    errors, unnamed = _errors(text, int(ignored[1])) if ignored else ([], 1)
    if errors:
        return ProgramFailed(f"pg_restore {ending(done.status)}: {errors[0][0]}", hint=hint, status=done.status)
    return _failure(done, hint) if unnamed else None
