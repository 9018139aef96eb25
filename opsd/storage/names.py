"""What an object may be called, and what a store keeps for itself.

Promise: a name that passes can't leave a store's root, on any kind of store.
"""

import re
from functools import lru_cache

#: First parts of names that belong to the store itself: unfinished writes, and packs being filled.
RESERVED = frozenset({"tmp", "spool"})

_PART = re.compile(r"[A-Za-z0-9._-]{1,255}")


def is_part(text: str) -> bool:
    """Whether this may stand between two slashes of a name."""
    return _PART.fullmatch(text) is not None and text not in {".", ".."}


@lru_cache(maxsize=4096)
def checked(name: str) -> str:
    """The name itself, if it is one; a ValueError else, since only a bug of the caller can make it."""
    parts = name.split("/")
    if not all(map(is_part, parts)) or parts[0] in RESERVED:
        raise ValueError(f"not an object's name: {name!r}")
    return name
