"""What this process has open, for tests of what must leave nothing open."""

import gc
import os


def settled_descriptors() -> list[str]:
    """The numbers of all open descriptors; what an earlier test left to the collector of garbage is closed first: it would go later, in the midst."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))
