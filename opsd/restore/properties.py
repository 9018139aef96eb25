"""What a database is made of outside itself: encoding, locale, owner, rights and settings.

Promise: a property that can't be given back costs a Warning, not the restore; only encoding and locale are musts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from opsd.events import Warning
from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem, Session, literal, quoted

_PROVIDERS = {"i": ("icu", "icu_locale"), "b": ("builtin", "builtin_locale")}


def creation(session: Session, name: str, facts: Mapping[str, Any]) -> str:
    """The statement that makes an empty database of the same encoding and locale; its tablespace only if there is one."""
    words = [f"create database {quoted(name)} template template0 encoding {literal(facts['encoding'])}"]
    words += [f"lc_collate {literal(facts['collate'])} lc_ctype {literal(facts['ctype'])}"]
    if facts["provider"] in _PROVIDERS and facts["locale"]:
        provider, word = _PROVIDERS[facts["provider"]]
        words.append(f"locale_provider {provider} {word} {literal(facts['locale'])}")
    space = facts["tablespace"]
    if session.rows(f"select '' from pg_catalog.pg_tablespace where spcname = {literal(space)}"):  # noqa: S608 - quoted
        words.append(f"tablespace {quoted(space)}")
    return " ".join(words)


def complete(server: Server, name: str, facts: Mapping[str, Any]) -> Iterator[Warning]:
    """Give a database its owner, rights, settings and comment; yields what could not be given."""
    groups = {
        f"owner {facts['owner']}": [f"alter database {quoted(name)} owner to {quoted(facts['owner'])}"],
        "rights": list(_rights(name, facts["acl"])),
        "comment": [f"comment on database {quoted(name)} is {literal(facts['comment'])}"] if facts["comment"] else [],
        "connection limit": [f"alter database {quoted(name)} connection limit {int(facts['connection_limit'])}"],
    }
    for role, settings in facts["settings"]:
        for setting in settings:
            groups[f"setting {setting.partition('=')[0]} {role}".strip()] = _setting(name, role, setting)
    try:
        _carry_out(server, [statement for statements in groups.values() for statement in statements])
    except ServerProblem:
        # Something can't be had: which, shows one by one. All of these may be said twice.
        yield from _one_by_one(server, name, groups)


def _one_by_one(server: Server, name: str, groups: Mapping[str, list[str]]) -> Iterator[Warning]:
    for what, statements in groups.items():
        try:
            _carry_out(server, statements)
        except ServerProblem as problem:
            yield Warning(subject=f"database {name}", problem=f"its {what} could not be restored: {problem}")


def _carry_out(server: Server, statements: list[str]) -> None:
    with server.session() as session:
        for statement in statements:
            session.run(statement)


def _rights(name: str, acl: list[list[Any]] | None) -> Iterator[str]:
    if acl is None:
        return
    yield f"revoke all on database {quoted(name)} from public"
    for grantee, privilege, grantable in acl:
        who = quoted(grantee) if grantee else "public"
        # The privilege is one of the server's own words: CONNECT, CREATE, TEMPORARY.
        yield f"grant {privilege} on database {quoted(name)} to {who}{' with grant option' if grantable else ''}"


def _setting(name: str, role: str, setting: str) -> list[str]:
    """Set it in the session, then take it from there: so lists such as search_path need no quoting of ours."""
    key, _, value = setting.partition("=")
    whose = f"role {quoted(role)} in database {quoted(name)}" if role else f"database {quoted(name)}"
    parameter = ".".join(quoted(part) for part in key.split("."))
    return [
        f"select pg_catalog.set_config({literal(key)}, {literal(value)}, false)",
        f"alter {whose} set {parameter} from current",
    ]
