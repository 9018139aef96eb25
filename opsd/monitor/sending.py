"""Send messages by apprise, the one module that imports it: to every address at the same time.

Promise: an address that is slow, down or wrong costs the others nothing, and a result for each comes within the time that was given. The text
of a failure holds nothing of the URL but the name of its server.
"""

import logging
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import apprise
from apprise import NotifyBase, NotifyType
from apprise.manager_plugins import NotificationManager

from opsd.errors import OpsdError
from opsd.monitor.alert_options import Address, url_of
from opsd.monitor.messages import Message, plain
from opsd.monitor.problems import Severity
from opsd.values import dataclass

#: A service without titles that takes no more than this at once, in characters, is one for SMS or the like: it gets the short text only.
_TERSE: Final = 1600
_TYPES: Final = {None: NotifyType.SUCCESS, Severity.WARNING: NotifyType.WARNING, Severity.CRITICAL: NotifyType.FAILURE}
_ASSET: Final = apprise.AppriseAsset(
    app_id="opsd", app_desc="opsd", app_url="", storage_mode=apprise.PersistentStoreMode.MEMORY, async_mode=False
)
_EXCEPTION: Final = "Socket Exception: "
_URL_AGAIN: Final = re.compile("Could not load|Unsupported|Unparseable")
_making = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A message and where it goes."""

    address: Address
    message: Message


class _Reasons(logging.Handler):
    """Keeps what apprise complains of in this thread: it returns no more than whether it worked."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep warnings, and of the rest only why a connection failed: that may hold the whole message."""
        text = record.getMessage()
        if _URL_AGAIN.match(text):  # With the first and the last letter of a password.
            return
        if record.thread == self._thread and (record.levelno >= logging.WARNING or text.startswith(_EXCEPTION)):
            self.texts.append(text.removeprefix(_EXCEPTION))


def send(parcels: Sequence[Parcel], seconds: float) -> Iterator[tuple[int, str]]:
    """Send all at once; yields each one's place in the list as it ends, and why it failed, empty if it arrived."""
    results: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    _logger()
    for number, parcel in enumerate(parcels):
        threading.Thread(target=_send, args=(number, parcel, results), daemon=True).start()
    waiting = set(range(len(parcels)))
    timer = threading.Timer(seconds, results.put, ((-1, ""),))
    timer.daemon = True
    timer.start()
    while waiting:
        number, error = results.get()
        if number < 0:
            yield from ((each, f"no answer within {seconds:g} s") for each in sorted(waiting))
            return
        waiting.discard(number)
        yield number, error
    timer.cancel()


def _send(number: int, parcel: Parcel, results: queue.SimpleQueue[tuple[int, str]]) -> None:
    """Whatever happens is a result."""
    reasons = _Reasons()
    logger = _logger()
    logger.addHandler(reasons)
    try:
        url = url_of(parcel.address)
        error = _redacted(_sent(url, parcel.message, reasons), url)
    except OpsdError as refused:
        error = str(refused)
    except Exception as failure:  # noqa: BLE001 - plugins are the work of many hands; one that breaks must not end the others
        error = f"{type(failure).__name__} in apprise"
    finally:
        logger.removeHandler(reasons)
    results.put((number, error))


def _logger() -> logging.Logger:
    """Where apprise complains; nobody else hears it."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    return logger


def _made(url: str) -> object:
    """The service of a URL; None where apprise can't read it."""
    with _making:
        return apprise.Apprise.instantiate(url, asset=_ASSET)


def _complaint(service: object, reasons: _Reasons) -> str:
    if isinstance(service, NotifyBase):
        return ""
    return plain("; ".join(["apprise can't read this URL", *reasons.texts]))


def _sent(url: str, message: Message, reasons: _Reasons) -> str:
    """Why it could not be sent; empty if it was."""
    service = _made(url)
    if not isinstance(service, NotifyBase):
        return _complaint(service, reasons)
    title, body = message.short, message.long
    if not service.title_maxlen and service.body_maxlen <= _TERSE:
        title, body = "", message.short
    is_sent = service.notify(
        title=title[: service.title_maxlen or None],
        body=body[: service.body_maxlen or None],
        notify_type=_TYPES[message.severity],
        body_format=apprise.NotifyFormat.TEXT,
    )
    return "" if is_sent else plain("; ".join(reasons.texts)) or "it was refused, and apprise does not say why"


def mistake_in(url: str) -> str:
    """Why apprise can't read a URL, empty if it can; nothing is sent and no server asked."""
    reasons = _Reasons()
    logger = _logger()
    logger.addHandler(reasons)
    try:
        return _redacted(_complaint(_made(url), reasons), url)
    finally:
        logger.removeHandler(reasons)


def schemes() -> list[str]:
    """All services that apprise knows, as a URL begins with them."""
    return sorted(NotificationManager().schemas())  # type: ignore[no-untyped-call] # apprise is typed in part


def _redacted(text: str, url: str) -> str:
    """The text without any part of the URL that may be a secret: all but the scheme and a server's name."""
    scheme, _, rest = url.partition("://")
    server = re.split(r"[/?]", rest)[0].rpartition("@")[2].partition(":")[0]
    keep = {scheme, server} if "." in server or server == "localhost" else {scheme}
    parts = {each for each in re.split(r"[/:@?&=,]", rest) if len(each) > 3} - keep
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
