"""Give PostgreSQL databases back to a server: which are meant, where the server is, one after the other.

Promise: a database that fails does not stop the others; the server is the configured one of that source, else libpq's environment says
which.
"""

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from opsd.app.session import Session
from opsd.backup.hooks import Occasion, around, run_pending
from opsd.credentials import resolve
from opsd.errors import OpsdError, SnapshotUnknown, UsageError
from opsd.events import Total
from opsd.model import Outcome, SourceTree
from opsd.repository.reader import SnapshotReader
from opsd.restore.browsing import Item, content, look_up, unknown, walk
from opsd.restore.databases import DatabaseRestore, DatabaseRestorer
from opsd.restore.pg_restore import Content
from opsd.restore.roles import restore_roles
from opsd.sources.options import PostgresqlSource
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.source import GLOBALS
from opsd.values import dataclass

_KIND = "postgresql"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """What a person asked for. `names` may be patterns as in a shell; `target` renames the only one.

    `roles`: create missing roles and tablespaces first. `drop_old`: in place, do not keep the database that stood there.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...] = ()
    target: str | None = None
    tables: tuple[str, ...] = ()
    roles: bool = False
    in_place: bool = False
    drop_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A database of a snapshot that will be restored, under which name, and the bytes of its dumps."""

    tree: SourceTree
    name: str
    target: str
    bytes: int
    contents: Mapping[str, Content]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRestored:
    """How the restore of one database ended; `error` is None where its rows are those of the snapshot."""

    chosen: Chosen
    seconds: float
    error: OpsdError | None = None


def choose(reader: SnapshotReader, options: DatabaseOptions) -> tuple[Chosen, ...]:
    """The databases that are meant, in order of sources and names.

    Raises:
        SnapshotUnknown: a name fits none. UsageError: `target` for several, or one name in several sources.
    """
    trees = [reader.tree(label) for label in options.sources] if options.sources else list(reader.trees())
    trees = [tree for tree in trees if tree.kind == _KIND]
    found = [(tree, name) for tree in trees for name in _databases(tree) if _fits(name, options.names)]
    for pattern in options.names:
        if not any(fnmatchcase(name, pattern) for _, name in found):
            known = ", ".join(sorted({name for tree in trees for name in _databases(tree)})[:10])
            raise unknown(reader, f"database {pattern}", f"it has {known}" if known else "it has none at all")
    names = [name for _, name in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        labels = ", ".join(tree.label for tree, name in found if name == twice[0])
        raise UsageError(f"several sources have a database {twice[0]}: {labels}", hint="choose one with --source")
    if (options.target or options.tables) and len(found) > 1:
        raise UsageError(f"--as and --table are for one database, and {len(found)} are meant", hint="name one of them")
    contents = {tree.label: _contents(reader, tree) for tree in trees}
    return tuple(_chosen(tree, name, options.target or name, contents[tree.label]) for tree, name in found)


def _databases(tree: SourceTree) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tree.facts.get("databases", {})
    return found


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _contents(reader: SnapshotReader, tree: SourceTree) -> dict[str, tuple[Item, Content]]:
    return {os.fsdecode(item.path): (item, partial(content, reader, item)) for item in walk(reader, tree)}


def _chosen(tree: SourceTree, name: str, target: str, contents: Mapping[str, tuple[Item, Content]]) -> Chosen:
    streams = [path for path in _databases(tree)[name]["streams"] if path in contents]
    return Chosen(
        tree=tree,
        name=name,
        target=target,
        bytes=sum(contents[path][0].entry.size for path in streams),
        contents={path: contents[path][1] for path in streams},
    )


def restore_databases(
    session: Session, reader: SnapshotReader, chosen: Sequence[Chosen], options: DatabaseOptions
) -> Iterator[DatabaseRestored]:
    """Restore one after the other, within the hooks of restores; the outcome of each as it ends."""
    settings = session.settings
    run_pending(settings.state, session.reporter)
    occasion = Occasion(run=secrets.token_hex(8), job="restore")
    with around(settings.restore_hooks, occasion, settings.state, session.reporter) as course:
        for label in dict.fromkeys(each.tree.label for each in chosen) if options.roles else ():
            _restore_roles(session, reader, reader.tree(label))
        for each in chosen:
            session.reporter.stage(f"restore {each.target}", Total(size=each.bytes))
            done = _restore(session, each, options)
            if done.error:
                course.outcome, course.error = Outcome.FAILED, str(done.error)
            yield done


def _restore(session: Session, chosen: Chosen, options: DatabaseOptions) -> DatabaseRestored:
    began = time.monotonic()
    error: OpsdError | None = None
    try:
        restorer = DatabaseRestorer(server_of(session, chosen.tree.label), session.reporter, session.clock)
        request = DatabaseRestore(
            target=chosen.target,
            facts=_databases(chosen.tree)[chosen.name],
            digest=str(chosen.tree.facts.get("digest", "off")),
            in_place=options.in_place,
            drop_old=options.drop_old,
        )
        if options.tables:
            restorer.tables(request, options.tables, chosen.contents)
        else:
            restorer.database(request, chosen.contents)
    except OpsdError as problem:
        error = problem
    return DatabaseRestored(chosen=chosen, seconds=time.monotonic() - began, error=error)


def _restore_roles(session: Session, reader: SnapshotReader, tree: SourceTree) -> None:
    item = look_up(reader, tree, GLOBALS.encode())
    if item is None:
        raise SnapshotUnknown(f"source {tree.label} of this snapshot holds no roles", hint="restore without --roles")
    sql = b"".join(bytes(piece) for piece in content(reader, item)).decode("utf-8", "surrogateescape")
    made = restore_roles(server_of(session, tree.label), sql, session.reporter)
    session.reporter.tell(
        f"{tree.label}: created roles {', '.join(made)}" if made else f"{tree.label}: all roles were there"
    )


def server_of(session: Session, label: str) -> Server:
    """The configured server of a source, or the one that libpq's environment names."""
    configured = (source.options for source in session.settings.sources if source.label == label)
    options = next((each for each in configured if isinstance(each, PostgresqlSource)), PostgresqlSource())
    password = resolve(options.password, session.reporter).decode() if options.password else None
    server = Server.of(options, password).for_restores()
    if server.user != options.user:
        session.reporter.tell(f"{label}: as {server.user}, for {options.user} may make no database")
    return server
