"""What to do about a damaged object, said to somebody who has just run a check.

Pure. Promise: no advice leads back to the command that gave it, and each says the same as docs/runbook.md.
"""

from typing import Final

from opsd.errors import RUN_CHECK, OpsdError

COPY_BACK: Final = "copy it back from another copy of the repository"
_BY_KIND: Final = {
    "settings": COPY_BACK,
    "keys": f"{COPY_BACK}; else open with the kit or another passphrase, and run 'opsd key add'",
    "runs": "'opsd check --repair' removes it once nothing is at work; where several hosts write, move the file out then",
    "marks": f"{COPY_BACK}, or move the file out: prune makes the mark again, and stops until then",
    "notes": f"{COPY_BACK}, or move the file out and give the holds again; prune stops until then",
    "index": "nothing is lost by it: 'opsd check --repair' writes it anew",
    "snapshots": f"this snapshot can't be restored from here; {COPY_BACK}",
    "packs": f"{COPY_BACK}, or run 'opsd check --repair', so that the next backup stores anew what it held",
}


def hint_of(error: OpsdError, name: str) -> str | None:
    """The next step about an object that could not be read: what the error knows, if it knows more than to run a check."""
    return advice(name) if error.hint == RUN_CHECK else error.hint


def advice(name: str) -> str:
    """The next step about a damaged object of that name."""
    return _BY_KIND.get(name.partition("/")[0], COPY_BACK)


def advice_for_copy(hint: str | None, copy: str) -> str | None:
    """The next step about a copy that nobody has tried to heal yet: that goes before copying by hand."""
    can_heal = hint and (COPY_BACK in hint or "--repair'" in hint)
    return f"'opsd check --copy {copy} --repair' takes it from whoever has it whole" if can_heal else hint


def pack_advice(*, marked: bool, needed: bool) -> str:
    """The next step about a damaged pack that was marked as such or not, and that a snapshot needs or not."""
    if marked and needed:
        return f"it is marked: 'opsd backup' stores anew what this host still has of it; for the rest, {COPY_BACK}"
    if marked:
        return "no snapshot needs the damaged part, and it is marked: 'opsd prune' lets it go"
    return advice("packs/") if needed else f"no snapshot needs the damaged part; {advice('packs/')}"
