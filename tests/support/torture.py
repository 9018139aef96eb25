"""What scripts/torture asks of a test: more rounds than in scripts/test, and other dice in each."""

import os
import random

#: The round's seed; without one the tests take their quick form, and the dice fall alike each time.
SEED = os.environ.get("OPSD_TORTURE")
TORTURE = SEED is not None


def dice(number: int) -> random.Random:
    """Dice for one place in one test, which bears this number there."""
    return random.Random(number if SEED is None else f"{SEED}-{number}")
