"""Pings as healthchecks.io wants them, to servers that answer, refuse, or are not there."""

import threading
import uuid
from urllib.parse import parse_qs, urlsplit

import pytest

from opsd.monitor.pings import Phase, ping, ping_url
from tests.support.receivers import free_port, web

RUN = "20261126T030000.000000000Z-1a2b"
HIDDEN = "5a1b7c9e-hidden"


@pytest.mark.parametrize(
    ("url", "phase", "told"),
    [
        ("https://hc.example.org/u", Phase.START, "https://hc.example.org/u/start?"),
        ("https://hc.example.org/u", Phase.SUCCESS, "https://hc.example.org/u?"),
        ("https://hc.example.org/u/", Phase.FAIL, "https://hc.example.org/u/fail?"),
        ("https://a:b@hc.example.org:8/u?x=1", Phase.FAIL, "https://a:b@hc.example.org:8/u/fail?x=1&"),
    ],
)
def test_the_phase_ends_the_path_and_the_run_goes_along(url: str, phase: Phase, told: str) -> None:
    found = ping_url(url, phase, RUN)
    assert found.startswith(f"{told}rid=")


def test_a_run_has_one_uuid_in_all_its_phases_and_another_than_other_runs() -> None:
    def rid(phase: Phase, run: str) -> uuid.UUID:
        (text,) = parse_qs(urlsplit(ping_url("https://hc.example.org/u", phase, run)).query)["rid"]
        return uuid.UUID(text)

    assert rid(Phase.START, RUN) == rid(Phase.FAIL, RUN) != rid(Phase.START, "another")


def test_a_ping_is_posted_with_its_body_and_asked_once() -> None:
    with web() as server:
        assert ping(server.url(path="/u/start"), "begun\n") == ""
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/u/start", "begun\n")


def test_a_login_in_the_url_is_shown_to_the_server_and_is_no_part_of_its_name() -> None:
    with web() as server:
        assert ping(f"http://opsd:p%40ss@127.0.0.1:{server.port}/u", "") == ""
    assert server.requests[0].authorization == "Basic b3BzZDpwQHNz"


def test_a_server_that_stumbles_is_asked_again() -> None:
    with web() as server:
        server.answer = lambda _: 503 if len(server.requests) < 2 else 200
        assert ping(server.url(path=f"/{HIDDEN}"), "") == ""
        assert len(server.requests) == 2


def test_a_refusal_is_final_and_its_reason_tells_nothing_of_the_url() -> None:
    with web() as server:
        server.answer = lambda _: 404
        assert ping(server.url(path=f"/{HIDDEN}"), "") == "the server answered 404"
        assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_not_tried_again_once_the_job_is_over() -> None:
    over = threading.Event()
    over.set()
    reason = ping(f"http://127.0.0.1:{free_port()}/{HIDDEN}", "", over)
    assert reason == "Connection refused"


@pytest.mark.parametrize("url", [f"http://[{HIDDEN}", f"http://{HIDDEN}:port/", f"http://127.0.0.1:1/\x01{HIDDEN}"])
def test_what_is_no_url_is_a_reason_too(url: str) -> None:
    over = threading.Event()
    over.set()
    reason = ping(url, "", over)
    assert reason
    assert HIDDEN not in reason
