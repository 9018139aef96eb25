"""One conversation with a server in SQL, through psycopg or through a psql that runs elsewhere.

Promise: both give the same rows, as text or None, and the same errors, with SQLSTATE where the server said one.
"""

import re
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Protocol, cast

import psycopg
from psycopg.conninfo import make_conninfo

Row = tuple[str | None, ...]

#: Pins the text form of every value, so that equal rows read equal on any server, of any version from 13 to 18.
TEXT_FORM = """
set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set bytea_output = 'hex';
set extra_float_digits = 3; set lc_monetary = 'C'; set xmlbinary = 'base64'; set client_encoding = 'UTF8';
set quote_all_identifiers = off; set standard_conforming_strings = on;
set search_path = ''; set row_security = off; set jit = off;
set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set lock_timeout = '{lock_seconds}s';
select case when current_setting('server_version_num')::int >= 170000 then set_config('transaction_timeout', '0', false) end
"""

_FIELD, _RECORD, _NULL = "\x1f", "\x1e", "\x1d"
_STATE = re.compile(r"(?:ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): (.*)", re.DOTALL)


class ServerProblem(Exception):
    """The server or one of its programs did not do what it was asked; `state` is the SQLSTATE where there is one.

    Sources and restores turn it into an error of their own.
    """

    def __init__(self, text: str, *, hint: str | None = None, state: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint
        self.state = state


class Session(Protocol):
    """A conversation, outside a transaction until one is begun; every method may raise ServerProblem."""

    def run(self, sql: str) -> None:
        """Carry out one or several statements."""
        ...

    def rows(self, sql: str) -> list[Row]:
        """The result of one statement whose columns are all text."""
        ...

    def cancel(self) -> None:
        """Break off what another thread runs in this session."""
        ...

    def close(self) -> None:
        """End the conversation; what was not committed is rolled back."""
        ...


def text_of(error: Exception) -> str:
    """A driver's or program's message in one line."""
    return " ".join(str(error).split())


class PsycopgSession:
    """A session through libpq in this process."""

    def __init__(self, connection_string: str, password: str | None, opening: str) -> None:
        try:
            address = connection_string if password is None else make_conninfo(connection_string, password=password)
            self._connection = psycopg.connect(address, autocommit=True)
        except psycopg.Error as error:
            raise ServerProblem(text_of(error), state=error.sqlstate) from error
        self.run(opening)

    def run(self, sql: str) -> None:
        """Carry out one or several statements."""
        self._execute(sql)

    def rows(self, sql: str) -> list[Row]:
        """The result of one statement whose columns are all text."""
        cursor = self._execute(sql)
        found = cast("list[Row]", cursor.fetchall()) if cursor.description else []
        if cursor.nextset():
            raise ServerProblem("several statements, where one is asked: the answers of the others would not count")
        return found

    def cancel(self) -> None:
        """Break off what another thread runs in this session."""
        self._connection.cancel()

    def close(self) -> None:
        """End the conversation."""
        self._connection.close()

    def _execute(self, sql: str) -> "psycopg.Cursor[tuple[object, ...]]":
        try:
            return self._connection.execute(sql.encode())
        except psycopg.Error as error:
            raise ServerProblem(text_of(error), state=error.sqlstate) from error


class PsqlSession:
    """A session through a psql started elsewhere, which reads statements from its standard input."""

    def __init__(
        self, command: Sequence[str], connection_string: str, environment: Mapping[str, str], opening: str
    ) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() ends it
        arguments = [*command, "-X", "-q", "-A", "-t", "-F", _FIELD, "-R", _RECORD, "-P", f"null={_NULL}"]
        arguments += ["-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-d", connection_string]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                arguments, stdin=pipe, stdout=pipe, stderr=self._errors, env=dict(environment)
            )
        except OSError as error:
            self._errors.close()
            raise ServerProblem(f"{command[0]} can't be started: {error.strerror}") from error
        try:
            self.run(opening)
        except ServerProblem:
            self.close()
            raise

    def run(self, sql: str) -> None:
        """Carry out one or several statements."""
        self._say(sql)

    def rows(self, sql: str) -> list[Row]:
        """The result of one statement whose columns are all text."""
        answer = self._say(sql)
        if not answer:
            return []
        records = answer.decode().removesuffix("\n").split(_RECORD)
        return [tuple(None if field == _NULL else field for field in record.split(_FIELD)) for record in records]

    def cancel(self) -> None:
        """Break off what another thread runs in this session."""
        self._process.terminate()

    def close(self) -> None:
        """End the conversation: psql leaves at the end of its input, and the server with it."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # It may have left already.
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _say(self, sql: str) -> bytes:
        """Send the statements, then have psql echo a mark; what comes before it is the answer."""
        assert self._process.stdin
        assert self._process.stdout
        mark = f"opsd {uuid.uuid4().hex}"
        with suppress(BrokenPipeError):  # It may have left, and has said why.
            self._process.stdin.write(f"{sql};\n\\echo {mark}\n".encode())
            self._process.stdin.flush()
        lines: list[bytes] = []
        for line in self._process.stdout:
            if line == f"{mark}\n".encode():
                return b"".join(lines)
            lines.append(line)
        raise self._problem()

    def _problem(self) -> ServerProblem:
        """What psql said before it left."""
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        found = _STATE.search(said)
        if found:
            return ServerProblem(" ".join(found[2].split("LOCATION:")[0].split()), state=found[1])
        return ServerProblem(" ".join(said.split()) or f"psql ended with exit code {self._process.returncode}")


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string, for sessions of this package: they keep standard_conforming_strings on."""
    return "'" + text.replace("'", "''") + "'"


def connection_string(database: str, **parts: str | int | None) -> str:
    """A libpq connection string; what is None comes from libpq's environment. Holds no password."""
    given = {name: value for name, value in parts.items() if value is not None}
    return make_conninfo("", dbname=database, application_name="opsd", connect_timeout=20, **given)
