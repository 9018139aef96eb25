"""Whether a PostgreSQL server can be dumped in full by the role that opsd uses, and the statements that it lacks.

Promise: reads catalogs only; each missing right comes with the exact statement that gives it.
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.databases import Database, choose, list_databases
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, Session, quoted
from opsd.sources.postgresql.tables import lacking
from opsd.sources.postgresql.tools import find_tools
from opsd.values import dataclass
from opsd.verify.doctor_host import postgresql_programs
from opsd.verify.findings import Finding, failure, fine, warning

#: `pg_read_all_data` is since PostgreSQL 14.
_ROLE = """
select current_user::text, r.rolsuper::text, r.rolbypassrls::text, current_setting('server_version_num'),
  coalesce((select pg_has_role(current_user, p.oid, 'USAGE') from pg_catalog.pg_roles p where p.rolname = 'pg_read_all_data'), false)::text
from pg_catalog.pg_roles r where r.rolname = current_user
"""
_MAY_CONNECT = "select datname::text from pg_catalog.pg_database where not has_database_privilege(oid, 'CONNECT')"
_LARGE_OBJECTS = """
select count(*)::text from pg_catalog.pg_largeobject_metadata
where current_setting('lo_compat_privileges') = 'off' and not pg_has_role(current_user, lomowner, 'USAGE')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """The role as which opsd logs in. `version`: the server's server_version_num."""

    name: str
    is_superuser: bool
    passes_row_security: bool
    version: int
    reads_everything: bool

    @property
    def is_safe(self) -> bool:
        """Whether it will read the tables of tomorrow too."""
        return self.is_superuser or (self.reads_everything and self.passes_row_security)

    @property
    def statement(self) -> str:
        """What makes it so; before PostgreSQL 14 no role reads every table."""
        row_security = f"ALTER ROLE {quoted(self.name)} BYPASSRLS;"
        reads = f"GRANT pg_read_all_data TO {quoted(self.name)}; " if self.version >= 140_000 else ""
        return reads + row_security


def server(label: str, options: PostgresqlSource, password: str | None) -> Iterator[Finding]:
    """Login, programs, rights in every database that is taken, and databases that no pattern names."""
    there = Server.of(options, password).within_reach()
    try:
        with there.session() as session:
            role = _role(session)
            choice = choose(list_databases(session), options.databases, options.exclude)
            closed = {row[0] for row in session.rows(_MAY_CONNECT)}
            every = list_databases(session)
        tools = find_tools(role.version, there)
    except ServerProblem as problem:
        yield failure(label, f"PostgreSQL: {problem}", problem.hint)
        return
    yield from postgresql_programs(label, tools.version)
    yield from _names(label, choice.absent, choice.idle)
    yield from _left_out(label, every, options)
    found = [each for database in choice.databases for each in _database(label, there, role, database, closed=closed)]
    yield from found
    if not found:
        yield from _login(label, role, len(choice.databases))


def _role(session: Session) -> Role:
    ((name, superuser, bypasses, version, reads),) = session.rows(_ROLE)
    return Role(
        name=name or "",
        is_superuser=superuser == "true",
        passes_row_security=bypasses == "true",
        version=int(version or 0),
        reads_everything=reads == "true",
    )


def _login(label: str, role: Role, databases: int) -> Iterator[Finding]:
    name = f"PostgreSQL: {role.name} reads {databases} database{'s' if databases != 1 else ''}"
    if role.is_safe:
        yield fine(label, name)
    else:
        yield warning(label, f"{name}, but tables of tomorrow perhaps not", role.statement)


def _names(label: str, absent: Sequence[str], idle: Sequence[str]) -> Iterator[Finding]:
    for name in absent:
        yield failure(label, f"there is no database {name}", "correct 'databases' of this source")
    for pattern in idle:
        yield warning(label, f"no database fits the pattern {pattern}", "correct 'databases' of this source")


def _left_out(label: str, found: Sequence[Database], options: PostgresqlSource) -> Iterator[Finding]:
    """Databases that no pattern takes and none leaves out on purpose."""
    named = (*options.databases, *options.exclude)
    missed = [each.name for each in found if not any(fnmatchcase(each.name, pattern) for pattern in named)]
    if missed and missed != ["postgres"]:
        text = f"nothing takes the database{'s' if len(missed) > 1 else ''} {', '.join(missed[:5])}"
        yield warning(label, text, "add to 'databases' of this source, or to 'exclude' if it may be lost")


def _database(
    label: str, there: Server, role: Role, database: Database, *, closed: set[str | None]
) -> Iterator[Finding]:
    """What of one database the role may not read."""
    name = database.name
    if not database.valid:
        yield warning(label, f"{name}: a DROP DATABASE of it was interrupted", f"DROP DATABASE {quoted(name)};")
        return
    if name in closed:
        yield failure(
            label,
            f"{name}: {role.name} may not connect",
            f"GRANT CONNECT ON DATABASE {quoted(name)} TO {quoted(role.name)};",
        )
        return
    if role.is_superuser:
        return
    try:
        with there.session(name) as session:
            missing = lacking(session)
            ((large,),) = session.rows(_LARGE_OBJECTS)
    except ServerProblem as problem:
        yield failure(label, f"{name}: {problem}", problem.hint)
        return
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        # In its own database, where the rights are those of tables.
        step = role.statement if role.version >= 140_000 else " ".join(dict.fromkeys(sql for _, sql in missing[:3]))
        yield failure(label, f"{name}: {role.name} may not read {missing[0][0]}{more}", step)
    if int(large or 0):
        step = f"as a superuser: ALTER ROLE {quoted(role.name)} SET lo_compat_privileges = on;"
        yield failure(label, f"{name}: {role.name} may not read {large} large objects", step)
