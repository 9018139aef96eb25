"""The section `drill`: how `opsd.verify.options` is written down.

Promise: a check is one question, asked where there is something to ask.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from opsd.settings.shapes import Converted, Key, ListOf, Record, Value
from opsd.settings.values import DURATION, LABEL, PATH, PROGRAM, SECRET, TEXT
from opsd.verify.options import TOLERANCE, DrillCheck, DrillSettings, tolerance


def _tolerance(content: str) -> str:
    tolerance(content)
    return content


APART: Final = Value(
    what="a number or a share", convert=_tolerance, json={"type": ["string", "integer"], "pattern": f"^{TOLERANCE}$"}
)


def _sense(check: DrillCheck) -> Iterator[str]:
    if bool(check.sql) == bool(check.command):
        yield "exactly one of sql and command is required"
    if check.sql and not check.source:
        yield "sql needs the source that it asks"
    for name, given in (("database", check.database), ("live", check.live)):
        if given and not check.sql:
            yield f"{name} goes with sql"


CHECK: Final = Record(
    build=DrillCheck,
    check=_sense,
    keys={
        "source": Key(LABEL, "The source that it asks."),
        "database": Key(TEXT, "The database, where the source has several."),
        "sql": Key(TEXT, "What must return true."),
        "command": Key(PROGRAM, "A program and its arguments that must exit with 0; docs/drill.md says what it finds."),
        "live": Key(APART, "Compare the number that sql gives with the live database: so far apart at most."),
        "timeout": Key(DURATION, "After this it is stopped, and has failed."),
    },
)

_CHECKS_SAMPLE: Final = [
    {"source": "shop", "database": "crm", "sql": "select count(*) from users", "live": "5%"},
    {"command": ["try-shop"], "timeout": "5m"},
]

DRILL: Final = Record(
    build=DrillSettings,
    keys={
        "scratch": Key(
            Converted(shape=PATH, make=Path, unmake=str),
            "Where a drill restores to, and cleans up. Default: scratch, in the state folder.",
            sample="/var/lib/opsd/scratch",
        ),
        "recovery_time": Key(DURATION, "How long a restore may take. Default: no target.", sample="4h"),
        "recovery_point": Key(DURATION, "How old the newest snapshot may be. Default: no target.", sample="25h"),
        "key": Key(
            SECRET,
            "The drill's own key file ('opsd key generate', 'opsd key add --recipient'). Default: the passphrase.",
            sample={"credential": "drill"},
        ),
        "checks": Key(
            ListOf(item=CHECK),
            "The site's own: sql that must return true, commands that must exit with 0. Default: none.",
            sample=_CHECKS_SAMPLE,
        ),
    },
)
