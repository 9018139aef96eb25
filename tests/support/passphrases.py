"""Key slots of passphrases that cost next to nothing. As opsd writes them, each that is made or opened takes a seventh of a second of a
processor, a fifth of what the tests of commands took; what a slot really costs, opsd's own start proves (tests/cli/test_init.py).
"""

from opsd.repository.keys import ARGON2


def make_passphrases_cheap() -> None:
    """From now on slots that this process writes are the cheapest that Argon2 allows, and so cheap for whoever opens them."""
    ARGON2.update(memory_kib=8, iterations=1, lanes=1)
