"""`alerts:` becomes the options of alerts, and what can't be right about it is a mistake with its line."""

from pathlib import Path

import pytest

from opsd.errors import ConfigurationError
from opsd.monitor.alert_options import AlertSettings, Contact, address_text, url_of
from opsd.settings import load, shown

LEAST = "repository: /r\nsources: {www: {files: {paths: [/w]}}}\n"
FACE = (
    LEAST
    + """\
alerts: {repeat: 20m, contacts: [{name: anna, urls: [{credential: anna_sms}, "mailto://user:hidden@example.org"]}],
  pings: {backup: {env: PING_URL}, drill: "https://hc.example.org/7"}}
"""
)
HIDDEN = "mailto://user:hidden@example.org"


def read(tmp_path: Path, text: str) -> AlertSettings:
    path = tmp_path / "opsd.yaml"
    path.write_text(text)
    return load(path).alerts


def test_all_that_can_be_said_of_alerts_reaches_them(tmp_path: Path) -> None:
    assert read(tmp_path, FACE) == AlertSettings(
        repeat=1200.0,
        contacts=(Contact(name="anna", urls=({"credential": "anna_sms"}, HIDDEN)),),
        pings={"backup": {"env": "PING_URL"}, "drill": "https://hc.example.org/7"},
    )


def test_nobody_is_told_where_nobody_is_named(tmp_path: Path) -> None:
    assert read(tmp_path, LEAST) == AlertSettings(repeat=900.0, contacts=(), pings={})


def test_alerts_are_shown_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "opsd.yaml"
    path.write_text(FACE)
    found = shown(load(path))["alerts"]
    assert found["contacts"] == [{"name": "anna", "urls": [{"credential": "anna_sms"}, HIDDEN]}]
    assert found["pings"]["backup"] == {"env": "PING_URL"}


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{repeat: soon}", "alerts.repeat: expected a duration"),
        ("{repeat: 0s}", "alerts: repeat must be at least 1s"),
        ("{contacts: [{name: anna, urls: []}]}", "contacts[0].urls: at least one is required"),
        ("{contacts: [{name: anna}]}", "contacts[0].urls: this key is required"),
        ("{contacts: [{name: anna, urls: [hidden]}]}", "contacts[0].urls[0]: expected a URL such as mailto://…"),
        ("{contacts: [{name: anna, urls: ['mailto:hidden@b']}]}", "contacts[0].urls[0]: expected a URL"),
        (
            "{contacts: [{name: anna, urls: [{fiel: /hidden}]}]}",
            "urls[0]: unknown kind of reference, did you mean",
        ),
        ("{contacts: [{name: a, urls: ['x://y']}, {name: a, urls: ['x://y']}]}", "two contacts are called a"),
        ("{pings: {bakup: 'https://hidden'}}", "pings.bakup: no such job, did you mean backup?"),
        ("{pings: {backup: 'file:///hidden'}}", "pings.backup: expected a URL such as https://…"),
    ],
)
def test_what_can_reach_nobody_is_a_mistake_that_repeats_no_address(text: str, mistake: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, f"{LEAST}alerts: {text}\n")
    assert any(mistake in line for line in caught.value.mistakes), caught.value.mistakes
    assert "hidden" not in str(caught.value)


def test_an_address_is_shown_without_what_may_be_a_secret(tmp_path: Path) -> None:
    (anna,) = read(tmp_path, FACE).contacts
    assert [address_text(each) for each in anna.urls] == ["{credential: anna_sms}", "mailto://…"]


def test_a_reference_that_leads_to_no_url_is_refused_without_telling_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("json://localhost/x\n")
    secret.chmod(0o600)
    assert url_of({"file": str(secret)}) == "json://localhost/x"
    secret.write_text("hidden\n")
    with pytest.raises(ConfigurationError) as caught:
        url_of({"file": str(secret)})
    assert "hidden" not in str(caught.value)
