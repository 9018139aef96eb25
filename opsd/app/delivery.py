"""Send what waits in the spool, and tests; for the process that does so and nothing else.

Promise: it ends within its time; one delivery is at work at a time, and a killed one leaves all that had not arrived.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from opsd.app.alerting import places
from opsd.app.incidents import Teller
from opsd.errors import ConfigurationError, StorageError, UsageError
from opsd.monitor import spool
from opsd.monitor.alert_options import address_text
from opsd.monitor.messages import Message, message
from opsd.monitor.sending import Parcel, send
from opsd.monitor.spool import Place
from opsd.settings.shapes import suggestion
from opsd.values import dataclass

#: For all addresses together, in seconds; another delivery is waited for as long.
SECONDS: Final = 60.0
_STEP_SECONDS: Final = 0.1
_HINT: Final = "see docs/alerts.md"
_LOCK: Final = "alerts.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a message to one address; `error` is empty if it arrived, `seconds` how long that took."""

    place: Place
    address: str
    error: str
    seconds: float


def deliver(session: Teller, seconds: float = SECONDS) -> list[Result]:
    """Send all that is due to be tried now.

    Raises:
        StorageError: the spool can't be read or written.
    """
    settings, now = session.settings, session.clock.now
    known = places(settings.alerts)
    if not (settings.state / spool.FILE).exists():
        return []
    with _alone(settings.state / _LOCK, seconds), spool.opened(settings.state, session.reporter.tell) as opened:
        opened.forget_others(known)
        letters = opened.letters(known, now())
        wanted = [(each.place, message(settings.host, each.notes, settings.zone)) for each in letters]
        results = []
        for number, result in _sent(session, wanted, seconds):
            results.append(result)
            if result.error:
                opened.failed(result.place, result.error, now())
            else:
                opened.arrived(result.place, letters[number].notes, now())
    return results


def send_test(session: Teller, contact: str | None, seconds: float = SECONDS) -> list[Result]:
    """Send a test message to every address of every contact, or of one; whatever waits for those that it reached is due at once.

    Raises:
        ConfigurationError: there are no contacts. UsageError: none of that name.
    """
    settings = session.settings
    names = [each.name for each in settings.alerts.contacts]
    if not names:
        raise ConfigurationError(("alerts.contacts: there are none, so nobody is told anything",), hint=_HINT)
    if contact is not None and contact not in names:
        raise UsageError(f"there is no contact {contact}{suggestion(contact, names)}")
    text = f"opsd {settings.host}: this is a test, nothing is wrong"
    test = Message(short=text, long=f"{text}.\nAlerts of this host reach you here.\n", severity=None)
    wanted = [(place, test) for place in places(settings.alerts) if contact in {None, place[0]}]
    results = [result for _, result in _sent(session, wanted, seconds)]
    if (settings.state / spool.FILE).exists():
        with suppress(StorageError), spool.opened(settings.state, session.reporter.tell) as opened:
            for each in results:
                if not each.error:
                    opened.arrived(each.place, (), session.clock.now())
    return sorted(results, key=lambda each: each.place)


def _sent(session: Teller, wanted: Sequence[tuple[Place, Message]], seconds: float) -> Iterator[tuple[int, Result]]:
    """Send each message; yields its place in the list and the result, as they come."""
    addresses = places(session.settings.alerts)
    began = time.monotonic()
    parcels = [Parcel(address=addresses[place], message=text) for place, text in wanted]
    for number, error in send(parcels, seconds):
        place = wanted[number][0]
        took = time.monotonic() - began
        yield number, Result(place=place, address=address_text(addresses[place]), error=error, seconds=took)


@contextmanager
def _alone(path: Path, seconds: float) -> Iterator[None]:
    """Wait until no other delivery is at work; one that hangs for longer is not waited for, since twice is better than never."""
    spool.create(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            threading.Event().wait(_STEP_SECONDS)
        yield
    finally:
        os.close(descriptor)
