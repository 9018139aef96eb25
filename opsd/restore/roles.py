"""Give roles and tablespaces back from what pg_dumpall wrote.

Promise: a role that exists is left as it is; no warning shows a password.
"""

import re
from collections.abc import Iterator

from opsd.errors import RestoreError
from opsd.events import Reporter, Warning
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem

#: Comments, strings, quoted names, psql's own commands, the end of a statement, everything else.
_PIECE = re.compile(
    r"""--[^\n]*|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\\[^\n]*|;|[^'"\\;eE-]+|.""", re.DOTALL
)
_NAME = r'("(?:[^"]|"")+"|[^\s;,"]+)'
_OF_ROLE = re.compile(rf"(?:CREATE|ALTER) ROLE {_NAME}|COMMENT ON ROLE {_NAME}|GRANT {_NAME} TO {_NAME}")
_OF_SPACE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) TABLESPACE {_NAME}|GRANT .* ON TABLESPACE {_NAME} TO", re.DOTALL)


def restore_roles(server: Server, sql: str, reporter: Reporter) -> list[str]:
    """Create the roles and tablespaces that are missing, with their memberships; returns the names of new roles.

    Raises:
        RestoreError: the server can't be asked.
    """
    try:
        with server.session() as session:
            roles = {name for (name,) in session.rows("select rolname::text from pg_catalog.pg_roles")}
            spaces = {name for (name,) in session.rows("select spcname::text from pg_catalog.pg_tablespace")}
    except ServerProblem as problem:
        raise RestoreError(f"roles can't be restored: {problem}", hint=problem.hint) from problem
    wanted = [each for each in statements(sql) if not each.startswith("SET ")]
    of_roles = [each for each in wanted if (name := _role(each)) and name not in roles]
    for statement in of_roles:
        _carry_out(server, statement, reporter)
    for statement in wanted:
        if (space := _space(statement)) and space not in spaces:
            _carry_out(server, statement, reporter)
    return sorted({_role(each) or "" for each in of_roles if each.startswith("CREATE ROLE")})


def roles_in(sql: str) -> list[str]:
    """The names of the roles that a script creates."""
    return [_role(each) or "" for each in statements(sql) if each.startswith("CREATE ROLE")]


def statements(sql: str) -> Iterator[str]:
    """The statements of a script, without comments and psql's own commands."""
    pieces: list[str] = []
    for piece in _PIECE.findall(sql):
        if piece == ";":
            yield "".join(pieces).strip()
            pieces = []
        elif not piece.startswith(("--", "\\")):
            pieces.append(piece)


def _carry_out(server: Server, statement: str, reporter: Reporter) -> None:
    try:
        with server.session() as session:
            session.run(statement)
    except ServerProblem as problem:
        # The message's later part may quote the statement, and with it a password.
        said = str(problem).split(" LINE ")[0]
        reporter.warn(Warning(subject=" ".join(statement.split()[:3]), problem=f"could not be restored: {said}"))


def _role(statement: str) -> str | None:
    """The role that a statement makes, changes or puts into another."""
    found = _OF_ROLE.match(statement)
    return _plain(next(name for name in reversed(found.groups()) if name)) if found else None


def _space(statement: str) -> str | None:
    found = _OF_SPACE.match(statement)
    return _plain(next(name for name in found.groups() if name)) if found else None


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
