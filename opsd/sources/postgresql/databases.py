"""Which databases a server has, what each is made of outside itself, and which of them are wanted.

Promise: templates and databases that allow no connections are left out, a name that was asked for and is not there is
never passed over in silence, and the order is that of the names.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from opsd.sources.postgresql.session import Session, literal
from opsd.values import dataclass

#: One JSON document a database: what `CREATE DATABASE` and its properties need. Columns that only some versions have
#: come through to_jsonb. A size needs CONNECT. Shared dependencies name all roles that its objects speak of, except
#: the bootstrap superuser (10), which is always named.
_DATABASES = """
select json_build_object(
  'name', d.datname, 'valid', d.datconnlimit <> -2, 'owner', pg_get_userbyid(d.datdba),
  'size', case when has_database_privilege(d.oid, 'CONNECT') then pg_database_size(d.oid) end,
  'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
  'provider', coalesce(to_jsonb(d)->>'datlocprovider', 'c'),
  'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
  'connection_limit', d.datconnlimit, 'comment', shobj_description(d.oid, 'pg_database'),
  'tablespace', (select spcname from pg_tablespace where oid = d.dattablespace),
  'acl', (select json_agg(json_build_array(
      case a.grantee when 0 then '' else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable))
    from aclexplode(d.datacl) a),
  'settings', (select coalesce(json_agg(json_build_array(
      case s.setrole when 0 then '' else pg_get_userbyid(s.setrole) end, s.setconfig)), '[]')
    from pg_db_role_setting s where s.setdatabase = d.oid),
  'roles', (select json_agg(distinct r.name) from (
      select pg_get_userbyid(refobjid) as name from pg_shdepend where dbid = d.oid and refclassid = 'pg_authid'::regclass
      union all select pg_get_userbyid(10) union all select pg_get_userbyid(d.datdba)) r)
)::text
from pg_database d where d.datallowconn and not d.datistemplate order by d.datname collate "C"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database as the server's catalog shows it: size in bytes, and `properties` as facts keep them.

    `valid` is False where a DROP DATABASE was interrupted: nobody can connect to it any more.
    """

    name: str
    size: int
    valid: bool
    properties: Mapping[str, Any]


def list_databases(session: Session) -> list[Database]:
    """All databases that allow connections, in order of name, except templates."""
    return [_database(json.loads(text or "{}")) for (text,) in session.rows(_DATABASES)]


def database_exists(session: Session, name: str) -> bool:
    """Whether there is a database of that name."""
    return bool(session.rows(f"select '' from pg_catalog.pg_database where datname = {literal(name)}"))  # noqa: S608 - quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is wanted of a server: databases in order of name; names that are not there; patterns that match nothing."""

    databases: tuple[Database, ...]
    absent: tuple[str, ...]
    idle: tuple[str, ...]


def choose(found: Sequence[Database], allow: Iterable[str], deny: Iterable[str]) -> Choice:
    """Apply the patterns, as in a shell and with regard to case: any of `allow`, none of `deny`."""
    allow, deny = tuple(allow), tuple(deny)
    names = [database.name for database in found]
    idle = [pattern for pattern in allow if not any(_matches(name, pattern) for name in names)]
    return Choice(
        databases=tuple(d for d in found if _any(d.name, allow) and not _any(d.name, deny)),
        absent=tuple(pattern for pattern in idle if not _is_pattern(pattern)),
        idle=tuple(pattern for pattern in idle if _is_pattern(pattern)),
    )


def file_name(database: str) -> str:
    """The database's name as a file name, such that no two paths of a snapshot meet.

    `/`, `%`, control characters, a leading dot and the dot before a final `dump` or `sql` are percent-encoded.
    """
    safe = "".join(f"%{ord(c):02X}" if c in "/%\x7f" or c < " " else c for c in database)
    if safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    for ending in (".dump", ".sql"):
        if safe.endswith(ending):
            safe = f"{safe.removesuffix(ending)}%2E{ending[1:]}"
    return safe


def _database(found: dict[str, Any]) -> Database:
    name, valid = found.pop("name"), found.pop("valid")
    found["size"] = found["size"] or 0
    return Database(name=name, size=found["size"], valid=valid, properties=found)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(_matches(name, pattern) for pattern in patterns)


def _is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")
