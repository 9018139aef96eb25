"""How this process takes memory from the system.

Promise: threads share one heap, so that buffers freed by one serve another. Measured on a first backup of 1.7 GiB with four threads:
131 MiB at the peak instead of 152, and no slower (glibc's mallopt(3)). Elsewhere than glibc nothing happens.
"""

import ctypes
from contextlib import suppress
from functools import cache
from typing import Final

_M_ARENA_MAX: Final = -8


@cache
def share_one_heap() -> None:
    """Let later threads use the main heap. Call before they start."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
