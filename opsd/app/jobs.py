"""Which commands a job of the schedule comes to.

Promise: pure; each is a command line of opsd that a person could type.
"""

from collections.abc import Collection

from opsd.monitor.deadlines import JOBS
from opsd.settings import Settings

#: The worst exit code is what a job of several commands ends with.
WORST: tuple[int, ...] = (4, 1, 2, 75, 3, 0)


def commands(settings: Settings, job: str, filled: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """The commands of a job, in order; `filled` are the copies and pulls that have ever been filled.

    A copy is pruned only where it states which snapshots it keeps, since that needs the right to delete.

    Raises:
        KeyError: no job has that name.
    """
    if job not in JOBS:
        raise KeyError(job)
    known = {each.name: each for each in settings.copies} | dict(settings.pulls)
    stated = {name: each for name, each in known.items() if name in filled}
    own = [()] if settings.repository else []
    if job == "prune":
        others = [("--copy", name) for name, each in stated.items() if each.retention]
        return tuple(("prune", *arguments) for arguments in [*own, *others])
    if job == "check":
        others = [("--copy", name) for name, each in stated.items() if each.verify != "off"]
        return tuple(("check", "--due", *arguments) for arguments in [*own, *others])
    return ((job,),)


def worst(codes: list[int]) -> int:
    """What several commands come to together; one that a signal ended has failed."""
    return min((code if code in WORST else 1 for code in codes), key=WORST.index, default=0)
