"""What scripts/torture asks of a test: more rounds than in scripts/test, and other dice in each."""

import os
import random

#: The round's seed; without one the tests take their quick form, whose dice fall alike each time.
SEED = os.environ.get("OPSD_TORTURE")
TORTURE = SEED is not None


def dice(quick: int) -> random.Random:
    """Dice for one test, with the seed of its quick form."""
    return random.Random(SEED or quick)
