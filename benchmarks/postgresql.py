"""Dump a thousand small databases as opsd does, with digests, beside two bare `pg_dump` loops that run side by side.

Three rounds in turn on one server, the best of each compared: `python -m benchmarks.postgresql [DATABASES]`. The goal is a ratio of
at most 1.2 for the source alone; the line after it adds cutting, compressing, encrypting and storing.
"""

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opsd.backup.snapshot import Planned
from opsd.backup.streams import StreamBackup
from opsd.backup.work import Job, Result
from opsd.clock import SystemClock
from opsd.events import Recorder
from opsd.repository.settings import Parameters
from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.source import PostgresqlStreams
from opsd.storage.folder import FolderStore
from tests.support.engine import World
from tests.support.postgresql import SUPERUSER, Cluster, running_cluster

SIDE_BY_SIDE = 2
ROUNDS = 3

#: What a small shop's database looks like: some tables, keys, indexes, a view, a function; a few hundred rows.
SHOP = """
create table customers (id serial primary key, name text not null, mail text unique, since timestamptz default now());
create table products (id serial primary key, title text not null, price numeric(10,2) not null, facts jsonb);
create table orders (id serial primary key, customer int references customers, at timestamptz, state text check (state <> ''));
create table lines (order_id int references orders, product int references products, count int, primary key (order_id, product));
create table notes (id bigserial primary key, customer int references customers, body text);
create index on orders (customer); create index on notes (customer); create index on orders (at);
create view open_orders as select * from orders where state = 'open';
create function total(o int) returns numeric language sql as
  'select sum(count * price) from lines join products on products.id = product where order_id = o';
insert into customers (name, mail) select 'customer ' || g, g || '@example.org' from generate_series(1, 100) g;
insert into products (title, price, facts) select 'product ' || g, g * 1.1, '{"color": "red"}' from generate_series(1, 50) g;
insert into orders (customer, at, state) select g % 100 + 1, now(), 'open' from generate_series(1, 300) g;
insert into lines select g, g % 50 + 1, g % 7 from generate_series(1, 300) g;
insert into notes (customer, body) select g % 100 + 1, repeat(md5(g::text), 5) from generate_series(1, 100) g;
analyze
"""


def make(cluster: Cluster, count: int) -> list[str]:
    """So many databases alike, each with a few rows of its own."""
    cluster.create("model", SHOP)
    names = [f"shop_{number:04}" for number in range(count)]
    for name in names:
        cluster.create(name, f"insert into notes (body) values ('{name}')", template="model")  # noqa: S608 - our own names
    cluster.drop("model")
    return names


def loops(cluster: Cluster, names: list[str]) -> None:
    """Two shells, each dumping every other database; the real program, not a distribution's wrapper around it."""
    program = shlex.quote(str(cluster.programs / "pg_dump"))
    command = (
        f'for name in "$@"; do {program} -Fc -Z0 -h {cluster.host} -U {SUPERUSER} "$name" > /dev/null || exit 1; done'
    )

    def loop(part: int) -> None:
        subprocess.run(["sh", "-c", command, "sh", *names[part::SIDE_BY_SIDE]], check=True)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(loop, range(SIDE_BY_SIDE)))


def source(cluster: Cluster, digest: str = "full") -> PostgresqlStreams:
    """The source as a run makes it."""
    options = PostgresqlSource(
        host=cluster.host, user=SUPERUSER, databases=("shop_*",), parallel=SIDE_BY_SIDE, digest=digest
    )
    return PostgresqlStreams("shop", options, reporter=Recorder(), clock=SystemClock())


def read_streams(cluster: Cluster, names: list[str], digest: str = "full") -> None:
    """Read all streams to nowhere, as many at a time as the source allows."""
    streams = source(cluster, digest)
    with streams.streams() as found, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        every = [stream for stream in found if stream.path != b"/globals.sql"]

        def read(number: int) -> None:
            buffer = memoryview(bytearray(1 << 20))
            with every[number].open() as reader:
                while reader.readinto(buffer):
                    pass

        list(pool.map(read, range(len(every))))
    if len(streams.facts()["databases"]) != len(names):
        raise SystemExit("not all databases were taken: this run is invalid")


def back_up(cluster: Cluster, names: list[str]) -> None:
    """A whole backup into a repository in a folder, as a first run."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore.create(Path(folder) / "repository")
        world = World.new(Path(folder), store=store, clock=SystemClock(), parameters=Parameters())

        def work(job: Job) -> Result:
            return StreamBackup(job, source(cluster), "postgresql").back_up()

        report = world.backup(Planned(label="shop", kind="postgresql", work=work))
    if report.failures:
        raise SystemExit(f"the backup of {len(names)} databases is not complete: this run is invalid")


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Make, measure in turn, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with running_cluster("shared_buffers = 256MB") as cluster:
        names = make(cluster, count)
        steps: dict[str, Callable[[], None]] = {
            "two pg_dump loops": lambda: loops(cluster, names),
            "opsd, streams with digests": lambda: read_streams(cluster, names),
            "opsd, streams without": lambda: read_streams(cluster, names, "off"),
            "opsd, a whole first backup": lambda: back_up(cluster, names),
        }
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(ROUNDS):
            for name, step in steps.items():
                best[name] = min(best[name], seconds(step))
    bare = best["two pg_dump loops"]
    for name, took in best.items():
        print(f"{name:30} {took:7.1f} s  {took / bare:5.2f}  {took / count * 1000:6.1f} ms a database")


if __name__ == "__main__":
    main()
