"""What a dump holds, as pg_restore lists it, and which of its entries make up a table.

Promise: pure. What comes of reading SQL is only a choice of entries, which pg_restore itself carries out: text that a hostile dump holds
in a comment or a function can spoil that choice, and nothing else.
https://www.postgresql.org/docs/current/app-pgrestore.html
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from opsd.values import dataclass

_IDENT: Final = r'(?:"(?:[^"]|"")+"|[^\s".,;()]+)'
_PATH: Final = rf"({_IDENT}\.{_IDENT})"

#: As `pg_restore --verbose --file=-` introduces the SQL of each entry.
_HEADER: Final = re.compile(
    r"^--\n-- TOC entry (\d+) \(class \d+ OID \d+\)\n(?:-- Dependencies:([ \d]*)\n)?"
    r"-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: (.*?)(?:; Tablespace: .*)?\n(?:-- Data Pos: .*\n)?--\n\n",
    re.MULTILINE,
)
#: As `pg_restore --list` shows one.
_LISTED: Final = re.compile(r"^(\d+); \d+ \d+ (.*)$", re.MULTILINE)

RELATIONS: Final = frozenset({"TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW"})
_ATTACH: Final = re.compile(rf"ALTER TABLE ONLY {_PATH} ATTACH PARTITION {_PATH} ")
_OWNED: Final = re.compile(rf"ALTER SEQUENCE {_PATH} OWNED BY {_PATH}\.")
_INDEX_ATTACH: Final = re.compile(rf"ALTER INDEX {_PATH} ATTACH PARTITION {_PATH};")
_CONSTRAINT: Final = re.compile(rf"ALTER TABLE [^\n]*\n    ADD CONSTRAINT ({_IDENT}) ")
_ALTER: Final = rf"ALTER (?:FOREIGN )?TABLE (?:ONLY )?{_PATH}\s"
#: How the SQL of what belongs to a table names that table.
_OF_TABLE: Final = {
    kind: re.compile(pattern, re.DOTALL)
    for kind, pattern in {
        "DEFAULT": _ALTER,
        "SEQUENCE": _ALTER,  # An identity column's; others are found by who owns them.
        "CONSTRAINT": _ALTER,
        "CHECK CONSTRAINT": _ALTER,
        "FK CONSTRAINT": _ALTER,
        "ROW SECURITY": _ALTER,
        "INDEX": rf"CREATE (?:UNIQUE )?INDEX {_IDENT} ON (?:ONLY )?{_PATH}\s",
        "STATISTICS": rf"CREATE STATISTICS .*? FROM {_PATH};",
        "TRIGGER": rf"(?:CREATE (?:CONSTRAINT )?TRIGGER .*? ON |ALTER TABLE ){_PATH}\s",
        "RULE": rf"CREATE RULE {_IDENT} AS\s+ON \w+ TO {_PATH}\s",
        "POLICY": rf"CREATE POLICY {_IDENT} ON {_PATH}[\s;]",
    }.items()
}
_WORDS: Final = {"FK CONSTRAINT": "foreign key"}
#: What speaks of another entry, and comes with it.
_DEPENDENT: Final = frozenset({"COMMENT", "ACL", "SECURITY LABEL"})


class Name(NamedTuple):
    """Schema and name of a table, an index or a sequence; line ends as blanks, which is how pg_restore shows them."""

    schema: str
    name: str


NO_NAME: Final = Name("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An entry of one dump. What only holds rows or a sequence's value has no `kind` and no SQL: it is known by its `line` alone."""

    id: int
    line: str
    kind: str = ""
    name: Name = NO_NAME
    owner: str = ""
    sql: str = ""
    needs: frozenset[int] = frozenset()

    @property
    def title(self) -> str:
        """For people."""
        table, kind = _table_of(self), _WORDS.get(self.kind, self.kind.lower())
        if table:
            return f"{kind} {self.name.name.removeprefix(f'{table.name} ')} of {table.schema}.{table.name}"
        return f"{kind} {self.name.name}" if kind else self.line


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What makes up tables and their partitions: `relations` are all names that must be free, sequences included.

    `rows` are the entries that define the tables and fill them, `rest` are all others, both by dump and in its order.
    """

    tables: frozenset[Name]
    relations: frozenset[Name]
    rows: Mapping[str, Sequence[Item]]
    rest: Mapping[str, Sequence[Item]]


def parse(listed: str, text: str) -> list[Item]:
    """The entries of a dump from what `--list` and `--verbose --schema-only --file=-` say of it."""
    lines = {int(each[1]): each[2] for each in _LISTED.finditer(listed)}
    found = {number: Item(id=number, line=line) for number, line in lines.items()}
    headers = list(_HEADER.finditer(text))
    ends = [*(header.start() for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=False):
        number = int(header[1])
        if number in found:
            found[number] = Item(
                id=number,
                line=lines[number],
                kind=header[4],
                name=Name(header[5], header[3]),
                owner=header[6],
                sql=text[header.end() : end],
                needs=frozenset(map(int, (header[2] or "").split())),
            )
    return list(found.values())


def relations(dumps: Mapping[str, Sequence[Item]]) -> list[Name]:
    """The tables and materialized views that dumps define."""
    return [item.name for items in dumps.values() for item in items if item.kind in RELATIONS]


def choose(dumps: Mapping[str, Sequence[Item]], wanted: Collection[Name]) -> Choice:
    """What of these dumps, by path in the order of their restore, makes up tables with all their partitions."""
    items = [item for each in dumps.values() for item in each]
    tables = _with_partitions(items, wanted)
    sequences = _sequences(items, tables)
    indexes = _indexes(items, tables)
    rows: dict[str, Sequence[Item]] = {}
    rest: dict[str, Sequence[Item]] = {}
    holding = _lines(items, "TABLE DATA", RELATIONS, tables)
    values = _lines(items, "SEQUENCE SET", {"SEQUENCE"}, sequences)
    for path, each in dumps.items():
        rows[path] = [item for item in each if item.line in holding or _defines(item, tables)]
        own = {item.id for item in each if item.line in values or _belongs(item, tables, sequences, indexes)}
        chosen = own | {item.id for item in rows[path]}
        rest[path] = [item for item in each if item.id in own or (item.kind in _DEPENDENT and item.needs & chosen)]
    return Choice(tables=tables, relations=tables | sequences, rows=rows, rest=rest)


def parse_path(path: str) -> Name | None:
    """Schema and name from how SQL writes them together: `public."Order lines"`; None where that is no such path."""
    parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', path)
    if len(parts) != 2:
        return None
    schema, name = (inside.replace('""', '"') or plain for inside, plain in parts)
    return Name(schema, name)


def _path(path: str) -> Name:
    schema, name = parse_path(path) or ("", "")
    return Name(re.sub(r"[\r\n]", " ", schema), re.sub(r"[\r\n]", " ", name))


def _with_partitions(items: Sequence[Item], wanted: Collection[Name]) -> frozenset[Name]:
    children: dict[Name, list[Name]] = {}
    for item in items:
        if item.kind == "TABLE ATTACH" and (found := _ATTACH.match(item.sql)):
            children.setdefault(_path(found[1]), []).append(_path(found[2]))
    tables, waiting = set[Name](), list(wanted)
    while waiting:
        table = waiting.pop()
        tables.add(table)
        waiting += [child for child in children.get(table, ()) if child not in tables]
    return frozenset(tables)


def _sequences(items: Sequence[Item], tables: Collection[Name]) -> frozenset[Name]:
    """Those that columns of the tables own: serial and identity."""
    found = {item.name for item in items if item.kind == "SEQUENCE" and _table_of(item) in tables}
    for item in items:
        if item.kind == "SEQUENCE OWNED BY" and (owned := _OWNED.match(item.sql)) and _path(owned[2]) in tables:
            found.add(item.name)
    return frozenset(found)


def _indexes(items: Sequence[Item], tables: Collection[Name]) -> frozenset[Name]:
    """The indexes of the tables, those of their constraints included."""
    found = set()
    for item in items:
        if item.kind in {"INDEX", "CONSTRAINT"} and _table_of(item) in tables:
            constraint = _CONSTRAINT.match(item.sql)
            found.add(_path(f'"{item.name.schema}".{constraint[1]}') if constraint else item.name)
    return frozenset(found)


def _lines(items: Sequence[Item], kind: str, of: Collection[str], names: Collection[Name]) -> frozenset[str]:
    """How entries that hold content are listed: by the name and owner of what they fill."""
    return frozenset(
        f"{kind} {' '.join(item.name)} {item.owner}" for item in items if item.kind in of and item.name in names
    )


def _defines(item: Item, tables: Collection[Name]) -> bool:
    if item.kind == "TABLE ATTACH" and (found := _ATTACH.match(item.sql)):
        return _path(found[1]) in tables
    return item.kind in RELATIONS and item.name in tables


def _belongs(item: Item, tables: Collection[Name], sequences: Collection[Name], indexes: Collection[Name]) -> bool:
    if item.kind in {"SEQUENCE", "SEQUENCE OWNED BY"}:
        return item.name in sequences
    if item.kind == "INDEX ATTACH" and (found := _INDEX_ATTACH.match(item.sql)):
        return _path(found[1]) in indexes
    return _table_of(item) in tables or (item.kind == "MATERIALIZED VIEW DATA" and item.name in tables)


def _table_of(item: Item) -> Name | None:
    pattern = _OF_TABLE.get(item.kind)
    found = pattern.match(item.sql) if pattern else None
    return _path(found[1]) if found else None
