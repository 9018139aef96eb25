"""Dead-man pings in the manner of healthchecks.io: a job has started, succeeded, or failed.

Promise: three tries of ten seconds at most, and a reason instead of an exception. No reason holds any of the URL, whoever knows which can
silence it. https://healthchecks.io/docs/http_api/
"""

import threading
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from enum import StrEnum
from http.client import HTTPException
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

SECONDS: Final = 10.0
TRIES: Final = 3
_PAUSE_SECONDS: Final = 1.0
#: A refusal that may pass (RFC 9110, RFC 6585); every other 4xx is the same a second later.
_PASSING: Final = frozenset({408, 425, 429})
#: Runs are named otherwise than the service wants it: their UUIDs follow from their names (RFC 9562, section 5.5).
_RUNS: Final = uuid.UUID("b5c1d1c0-6d5a-4e0e-9a4e-2f7c3a8d9e10")


class Phase(StrEnum):
    """What is told, as the end of the path."""

    START = "/start"
    SUCCESS = ""
    FAIL = "/fail"


def ping_url(url: str, phase: Phase, run: str) -> str:
    """Where to tell it: the URL of the job, the phase, and which run it is."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + phase
    query = "&".join(filter(None, (parts.query, f"rid={uuid.uuid5(_RUNS, run)}")))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def ping(url: str, body: str, stop: threading.Event | None = None) -> str:
    """Tell it; why that did not work, empty if it did. Once `stop` is set there is no further try.

    The URL is one of `ping_url`, over HTTP.
    """
    waiting = stop or threading.Event()
    error = ""
    for number in range(TRIES):
        if number and waiting.wait(_PAUSE_SECONDS):
            break
        error, may_pass = _try(url, body)
        if not may_pass:
            break
    return error


def _try(url: str, body: str) -> tuple[str, bool]:
    """Why it did not work, and whether another try may."""
    try:
        headers = {"User-Agent": "opsd", "Content-Type": "text/plain"}
        parts = urlsplit(url)
        login, at, server = parts.netloc.rpartition("@")
        if at:  # As RFC 7617 wants it; a server's name has none.
            headers["Authorization"] = "Basic " + b64encode(unquote(login).encode()).decode()
        plain = urlunsplit(parts._replace(netloc=server))
        request = urllib.request.Request(plain, body.encode(), headers)  # noqa: S310 - the configuration lets in http and https only
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 - likewise
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server answered {error.code}", error.code >= 500 or error.code in _PASSING
    except urllib.error.URLError as error:
        return _reason(error.reason), True
    except (OSError, HTTPException) as error:
        return _reason(error), True
    except ValueError:
        return "this is no URL", False


def _reason(error: object) -> str:
    """What the system says, which knows no URL; of others only the kind."""
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS:g} s"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
