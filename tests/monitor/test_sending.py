"""Messages reach real servers, and those that are down, slow or wrong hold up nobody."""

import time

import pytest

from opsd.monitor.messages import Message
from opsd.monitor.problems import Severity
from opsd.monitor.sending import Parcel, mistake_in, send
from tests.support.receivers import free_port, mail, web

MESSAGE = Message(short="opsd web1: backup is late. Next: run it", long="backup is late\n", severity=Severity.CRITICAL)


def sent(*addresses: str, seconds: float = 20.0) -> dict[int, str]:
    return dict(send([Parcel(address=each, message=MESSAGE) for each in addresses], seconds))


def test_a_mail_reaches_everybody_named_in_its_url() -> None:
    with mail() as server:
        assert sent(server.url("anna@example.org", "bob@example.org")) == {0: ""}
    assert sorted(each["To"] for each in server.messages) == ["anna@example.org", "bob@example.org"]
    assert {each["Subject"] for each in server.messages} == {MESSAGE.short}
    assert server.messages[0].get_content().strip() == "backup is late"


def test_a_chat_gets_both_texts_and_an_sms_gateway_the_short_one() -> None:
    with web() as server:
        assert sent(server.url("json")) == {0: ""}
        # The gateway's answer is not understood, but by then it has the message.
        assert "SMS" in sent(f"smseagle://token@127.0.0.1:{server.port}/+33600000000")[0]
    chat, sms = server.requests
    assert (chat.json["title"], chat.json["message"]) == (MESSAGE.short, "backup is late")
    assert MESSAGE.short in sms.body
    assert "\\n" not in sms.body


def test_servers_that_are_down_refuse_or_are_no_servers_at_all_cost_the_others_nothing() -> None:
    with web() as server, mail() as refusing, web() as broken:
        refusing.answer = "550 no such user"
        broken.answer = lambda _: 500
        found = sent(
            f"mailto://127.0.0.1:{free_port()}?from=a@example.org&to=b@example.org&mode=insecure",
            refusing.url("anna@example.org"),
            broken.url("json", "/hidden"),
            "nosuch://hidden",
            "mailto://hidden:hidden@",
            server.url("json"),
        )
    assert found[5] == ""
    assert len(server.requests) == 1
    assert "Connection refused" in found[0]
    assert found[1]
    assert "error=500" in found[2]
    assert "can't read this URL" in found[3]
    assert found[4]
    assert "hidden" not in "".join(found.values())


def test_a_url_that_cannot_be_used_is_found_before_anything_is_sent_and_no_letter_of_its_password_told() -> None:
    assert mistake_in("mailto://user:s3cr3tPW@example.org?to=anna@example.org") == ""
    told = mistake_in("mailto://user:s3cr3tPW@127.0.0.1?to=anna@example.org&from=nobody")
    assert told.startswith("apprise can't read this URL")
    assert "s...W" not in told
    assert mistake_in("slack://foo") != ""


def test_a_server_that_never_answers_has_failed_when_the_time_is_over() -> None:
    with web() as slow, web() as server:
        slow.answer = lambda _: None
        began = time.monotonic()
        found = sent(slow.url("json", "/?rto=60"), server.url("json"), seconds=1.0)
    assert time.monotonic() - began < 5
    assert found == {0: "no answer within 1 s", 1: ""}


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_message_is_cut_to_what_a_service_takes(length: int) -> None:
    long = Message(short="short", long="x" * length, severity=None)
    with web() as server:
        found = dict(send([Parcel(address=server.url("ntfy", "/topic"), message=long)], 20.0))
    assert found == {0: ""}
    assert server.requests[0].json["message"].count("x") == min(length, 7800)
