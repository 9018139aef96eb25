"""What every test gets: repeatable examples, and no configuration of the machine that runs it.

Fixtures of one area stand in that folder's own conftest; what several areas share stands in tests/support.
"""

import os
import signal

import pytest
from hypothesis import settings

from tests.support.passphrases import make_passphrases_cheap

make_passphrases_cheap()
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
# A shell starts what runs in its background with Ctrl-C ignored, and so it would be for every program under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide settings of the person at the keyboard, for opsd and for PostgreSQL's clients."""
    for name in os.environ:
        if name.startswith(("OPSD_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
