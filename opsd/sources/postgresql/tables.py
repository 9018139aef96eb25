"""The tables of one database: what a role lacks to read them, their rows, and a digest that any order of rows gives.

Promise: a digest depends on the rows alone: not on their order, the server's version, its settings or the order in
which a child table got its columns. It is the sum, modulo 2^64, of the first eight bytes of SHA-256 of each row's text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from opsd.sources.postgresql.session import Session, quoted
from opsd.values import dataclass

#: Rows and digest; the digest is None where none was taken.
Counted = tuple[int, str | None]

#: So many tables are counted by one statement: a round trip each would cost more than small tables do.
STATEMENT_TABLES = 50

#: Own tables with rows: `r` tables and leaves, `m` materialized views that were filled, `p` partitioned (locked only).
#: The last two columns say whether the details below must be asked for: few databases need them, and thousands are listed.
_TABLES = """
select n.nspname::text, c.relname::text, c.relkind::text, {size}::text,
  case when c.relhassubclass or c.relispartition then 'yes' end,
  (select 'yes' from pg_catalog.pg_extension where oid >= 16384 limit 1)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (c.relkind <> 'm' or c.relispopulated)
"""

#: Children by inheritance may get their columns in another order from a restore, so theirs are read by name. What belongs
#: to an extension comes back with it. A sample is chosen by primary key.
_DETAILS = """
select n.nspname::text, c.relname::text,
  case when exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid) then
    (select string_agg('o.' || quote_ident(a.attname), ', ' order by a.attname) from pg_catalog.pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) end,
  (select string_agg('o.' || quote_ident(a.attname), ', ' order by a.attname)
    from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
    where i.indrelid = c.oid and i.indisprimary),
  (select 'yes' from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'p') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""

#: What the role lacks, as the statement that gives it.
_LACKING = """
select case
  when not pg_catalog.has_schema_privilege(n.oid, 'USAGE') then 'schema ' || quote_ident(n.nspname)
  when not pg_catalog.has_table_privilege(c.oid, 'SELECT') then
    case c.relkind when 'S' then 'sequence ' else 'table ' end || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  else 'rows of table ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) end,
case
  when not pg_catalog.has_schema_privilege(n.oid, 'USAGE') then format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user)
  when not pg_catalog.has_table_privilege(c.oid, 'SELECT') then
    format('GRANT SELECT ON %I.%I TO %I;', n.nspname, c.relname, current_user)
  else format('ALTER ROLE %I BYPASSRLS;', current_user) end
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'S', 'm') and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (not pg_catalog.has_schema_privilege(n.oid, 'USAGE') or not pg_catalog.has_table_privilege(c.oid, 'SELECT')
    or pg_catalog.row_security_active(c.oid))
order by 1 limit 100
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, a leaf, a partitioned table or a materialized view. `size` in bytes, 0 where nobody asked for it."""

    schema: str
    name: str
    kind: str
    size: int = 0
    columns: str | None = None
    key: str | None = None

    @property
    def quoted(self) -> str:
        """Its name as SQL, and as a pattern of pg_dump, that fits nothing else."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def title(self) -> str:
        """Its name for people and in facts: quoted only where needed, the same on every version."""
        return f"{_plain(self.schema)}.{_plain(self.name)}"


def list_tables(session: Session, *, sizes: bool = False, keys: bool = False) -> list[Table]:
    """The database's own tables in order of name; raises ServerProblem."""
    size = "pg_catalog.pg_total_relation_size(c.oid)" if sizes else "0"
    rows = session.rows(_TABLES.format(size=size))
    found = [
        Table(schema=schema or "", name=name or "", kind=kind or "", size=int(bytes_ or 0))
        for schema, name, kind, bytes_, _, _ in sorted(rows)
    ]
    if not keys and not any(inherited or extended for *_, inherited, extended in rows):
        return found
    details = {(schema, name): rest for schema, name, *rest in session.rows(_DETAILS)}
    return [detailed for table in found if (detailed := _detailed(table, details, keys=keys))]


def _detailed(
    table: Table, details: Mapping[tuple[str | None, str | None], list[str | None]], *, keys: bool
) -> Table | None:
    """The table with its columns and key; None where it is an extension's, or was dropped meanwhile."""
    columns, key, extended = details.get((table.schema, table.name), (None, None, "yes"))
    return None if extended else replace(table, columns=columns, key=key if keys else None)


def lacking(session: Session) -> list[tuple[str, str]]:
    """What the role may not read, at most 100 things: its name and the statement that would allow it."""
    return [(what or "", sql or "") for what, sql in session.rows(_LACKING)]


def lock(session: Session, tables: Sequence[Table]) -> None:
    """Keep the tables from being changed in shape, emptied or dropped until the transaction ends."""
    names = [f"only {table.quoted}" for table in tables if table.kind != "m"]
    if names:
        session.run(f"lock table {', '.join(names)} in access share mode")


def digest(session: Session, tables: Sequence[Table], share: float) -> Iterator[tuple[Table, Counted]]:
    """Rows of each table, and a digest over that share of them, 1 for all.

    Materialized views have no digest: a restore fills them anew.
    """
    with_rows = [table for table in tables if table.kind != "p"]
    for start in range(0, len(with_rows), STATEMENT_TABLES):
        some = with_rows[start : start + STATEMENT_TABLES]
        statement = " union all ".join(_count(number, table, share) for number, table in enumerate(some))
        for number, rows, total in session.rows(statement):
            table = some[int(number or 0)]
            yield table, (int(rows or 0), None if table.kind == "m" else _hexadecimal(total))


def share_of(option: str) -> float:
    """`full`, `off` or `10%` as a number from 0 to 1."""
    if option in {"full", "off"}:
        return 1.0 if option == "full" else 0.0
    return min(1.0, float(option.removesuffix("%")) / 100)


def merged(counted: Mapping[str, Counted]) -> dict[str, list[int | str | None]]:
    """As facts keep it: msgpack knows no tuples."""
    return {name: [rows, total] for name, (rows, total) in sorted(counted.items())}


def _count(number: int, table: Table, share: float) -> str:
    if table.kind == "m":
        return f"select '{number}', count(*)::text, null from {table.quoted}"  # noqa: S608 - quoted
    row = "(o.*)::text" if table.columns is None else f"row({table.columns})::text"
    total = f"sum({_hash(row, 8)}){_sample(table, row, share)}::text"
    return f"select '{number}', count(*)::text, {total} from only {table.quoted} o"  # noqa: S608 - quoted


def _hash(text: str, width: int) -> str:
    """So many first bytes of the SHA-256 of a text in UTF-8, as a number."""
    return f"('x' || encode(substr(sha256(textsend({text})), 1, {width}), 'hex'))::bit({8 * width})::{_INTEGER[width]}"


_INTEGER = {2: "int", 8: "bigint"}


def _sample(table: Table, row: str, share: float) -> str:
    """Which rows are digested: chosen by their primary key, or else by all of the row, so the same on every server."""
    if share == 1:
        return ""
    key = row if table.key is None else f"row({table.key})::text"
    return f" filter (where {_hash(key, 2)} < {round(share * 65536)})"


def _hexadecimal(total: str | None) -> str:
    return f"{int(total or 0) % 2**64:016x}"


def _plain(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else quoted(name)
