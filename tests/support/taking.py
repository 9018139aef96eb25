"""Take all streams of a server as the pipeline does, into memory; and databases that have one of everything."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opsd.clock import FixedClock
from opsd.errors import SourceError, StreamGone
from opsd.events import Recorder
from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.source import PostgresqlStreams
from opsd.sources.protocol import Readable, Stream
from tests.support.postgresql import SUPERUSER, Cluster


@dataclass(slots=True)
class Taken:
    """What a run gave: streams by path, facts, failures by path."""

    streams: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, SourceError] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    recorder: Recorder = field(default_factory=Recorder)
    warnings: int = 0

    def tables(self, database: str) -> dict[str, list[Any]]:
        return dict(self.facts["databases"][database]["tables"])


def source(cluster: Cluster, recorder: Recorder | None = None, **options: Any) -> PostgresqlStreams:
    password = options.pop("password_text", None)
    given = PostgresqlSource(**{"host": cluster.host, "user": SUPERUSER, **options})
    return PostgresqlStreams(
        "shop", given, reporter=recorder or Recorder(), clock=FixedClock(10**18), password=lambda: password
    )


def read_all(reader: Readable) -> bytes:
    whole = bytearray()
    buffer = memoryview(bytearray(256 * 1024))
    while count := reader.readinto(buffer):
        whole += buffer[:count]
    return bytes(whole)


def take(cluster: Cluster, **options: Any) -> Taken:
    """Read everything, by as many threads as the source allows."""
    taken = Taken()
    streams = source(cluster, taken.recorder, **options)
    lock = threading.Lock()
    with streams.streams() as found:
        threads = [threading.Thread(target=_work, args=(taken, found, lock)) for _ in range(streams.parallel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    taken.facts = dict(streams.facts())
    taken.warnings = streams.warnings
    return taken


def _work(taken: Taken, found: Iterator[Stream], lock: threading.Lock) -> None:
    while True:
        with lock:
            stream = next(found, None)
        if stream is None:
            return
        path = stream.path.decode()
        try:
            with stream.open() as reader:
                content = read_all(reader)
            taken.streams[path] = content
        except StreamGone:
            taken.gone.append(path)
        except SourceError as error:
            taken.failures[path] = error


#: One of everything whose rows a digest must see alike on both sides.
EXOTIC = """
create type mood as enum ('sad', 'ok', 'O''Brien "quoted"');
create type pair as (a int, b text);
create domain positive as numeric check (value > 0);
create table types (
  id bigint generated always as identity primary key, o int, t text, by bytea, f float8, r real, n numeric, tz timestamptz,
  ts timestamp, d date, i interval, j json, jb jsonb, u uuid, a int[], m mood, p pair, dm positive, x xml, rg int4range,
  mon money, net inet, pt point, tsv tsvector, bits bit varying, ok boolean, class regclass, gen int generated always as (1 + 1) stored);
insert into types (o, t, by, f, r, n, tz, ts, d, i, j, jb, u, a, m, p, dm, x, rg, mon, net, pt, tsv, bits, ok, class) values
  (1, E'tab\\t new\\nline \\\\ "q" ''s'' é 漢', '\\x00ff', 0.1, 1e-7, 1.00, '2024-02-29 23:59:59.999999+09', '0044-03-15 BC',
   'infinity', '1 mon 2 days 03:04:05.6', '{"a": 1.0,  "b":null}', '{"b": 1, "a": [1, 2]}',
   '00000000-0000-0000-0000-000000000001', '{1,NULL,3}', 'O''Brien "quoted"', row(1, 'x,"y'), 5, '<a>é</a>', '[1,5)', 12.34,
   '10.0.0.1/8', '(1.5,2)', 'a fat cat'::tsvector, b'101', true, 'types'),
  (2, null, null, 'NaN', 'Infinity', 'NaN', null, null, '0001-01-01 BC', '-1 year', null, null, null, '{}', null, null, null, null,
   'empty', null, null, null, null, null, null, null),
  (2, '', '', '-0', 0, 1.0, '1900-01-01', null, null, null, 'null', 'null', null, null, 'sad', row(null, null), null, null,
   null, null, null, null, '', '', false, null);
create table doubled (v text);
insert into doubled values ('a'), ('a'), ('b');
create table nothing ();
insert into nothing default values;
create table sales (id int, at date, primary key (id, at)) partition by range (at);
create table sales_2025 partition of sales for values from ('2025-01-01') to ('2026-01-01');
create table sales_2026 partition of sales for values from ('2026-01-01') to ('2027-01-01');
insert into sales select g, date '2025-07-01' + g from generate_series(1, 300) g;
create table parent (a int);
create table child (own text) inherits (parent);
alter table parent add column late text default 'late';
insert into parent values (1);
insert into child (a, own) values (2, 'two');
create sequence counter start 5;
select nextval('counter'), nextval('counter');
create unlogged table loose as select 1 as one;
create materialized view totals as select count(*) from sales;
create materialized view empty_view as select 1 as one with no data;
create view newest as select max(at) from sales;
create schema "Mixed.Case";
create table "Mixed.Case"."a ""table"", only" ("order" int primary key, o text);
insert into "Mixed.Case"."a ""table"", only" values (1, 'x');
alter table child add foreign key (a) references "Mixed.Case"."a ""table"", only" not valid;
create function doubled_count() returns bigint language sql as 'select count(*) from public.doubled';
comment on table doubled is 'it''s; a comment';
"""

#: A large object of a few pages; needs a superuser's read, or lo_compat_privileges.
LARGE_OBJECT = "select lo_from_bytea(4711, decode(repeat('00ff41', 5000), 'hex'))"

ODD_NAMES = (
    "my db",
    "a/b",
    "x'y",
    'quo"te',
    "Größe 漢字",
    ".hidden",
    "100%",
    "host=evil dbname=postgres",
    "a\\b",
    "a.dump",
    "-x",
)
