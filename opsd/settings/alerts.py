"""The section `alerts`: how `opsd.monitor.alert_options` is written down.

Promise: a mistake never repeats an address, which may hold a password.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from opsd.monitor.alert_options import URL, AlertSettings, Contact
from opsd.monitor.deadlines import JOBS
from opsd.settings.nodes import Items, Node, Pairs, Reading
from opsd.settings.shapes import WRONG, Key, ListOf, MapOf, Record, Schema, Value, suggestion
from opsd.settings.values import DURATION, LABEL, SECRET
from opsd.values import dataclass

_WEB: Final = r"https?://\S+"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    """A URL in plain, or a reference to a secret that is one."""

    plain: Value

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The text, or the reference, or WRONG."""
        return (SECRET if isinstance(node, Pairs) else self.plain).read(node, key, reading)

    def schema(self) -> Schema:
        """One of the two."""
        return {"oneOf": [self.plain.schema(), SECRET.schema()]}

    def shown(self, value: Any) -> Any:
        """As it stands."""
        return value if isinstance(value, str) else SECRET.shown(value)


def _url(pattern: str, what: str) -> Value:
    def convert(content: str) -> str:
        if not re.fullmatch(pattern, content):
            raise ValueError(f"expected {what}, or a reference such as {{credential: NAME}}")
        return content

    return Value(what=what, convert=convert, json={"type": "string", "pattern": f"^{pattern}$"})


def _job(content: str) -> str:
    if content not in JOBS:
        raise ValueError(f"no such job{suggestion(content, JOBS)}")
    return content


JOB: Final = Value(what="a job", convert=_job, json={"type": "string", "pattern": f"^({'|'.join(JOBS)})$"})

CONTACT: Final = Record(
    build=Contact,
    keys={
        "name": Key(LABEL, "What the person is called in lists.", required=True),
        "urls": Key(
            ListOf(item=_Address(plain=_url(URL, "a URL such as mailto://…")), least=1),
            "Where they are reached, as apprise writes it; a URL with a password is best a reference to a secret.",
            required=True,
        ),
    },
)


def _sense(alerts: AlertSettings) -> Iterator[str]:
    if alerts.repeat < 1:
        yield "repeat must be at least 1s"
    names = [contact.name for contact in alerts.contacts]
    yield from (f"two contacts are called {name}" for name in sorted({name for name in names if names.count(name) > 1}))


ALERTS: Final = Record(
    build=AlertSettings,
    check=_sense,
    keys={
        "repeat": Key(DURATION, "How long until an incident is told again; 'opsd ack' ends that."),
        "contacts": Key(
            ListOf(item=CONTACT),
            "Who is told, and how: see docs/alerts.md. Default: nobody.",
            sample=[{"name": "anna", "urls": [{"credential": "anna_sms"}, "mailto://example.org?to=anna@example.org"]}],
        ),
        "pings": Key(
            MapOf(name=JOB, value=_Address(plain=_url(_WEB, "a URL such as https://…"))),
            "The URL of each job's dead-man switch, such as healthchecks.io. Default: none.",
            sample={"backup": {"env": "PING_URL"}},
        ),
    },
)


def salvaged_contacts(node: Node, reading: Reading) -> AlertSettings:
    """Of a section with mistakes the contacts that have none: a slip in one must not silence the others."""
    listed = node.pairs.get("contacts") if isinstance(node, Pairs) else None
    items = listed[1].items if listed and isinstance(listed[1], Items) else ()
    found = [CONTACT.read(each, "alerts.contacts", reading) for each in items]
    return AlertSettings(contacts=tuple(each for each in found if each is not WRONG))
