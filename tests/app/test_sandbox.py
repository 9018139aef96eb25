"""What the units must let opsd have follows from the configuration."""

import subprocess
from pathlib import Path

import pytest

from opsd.app.sandbox import drop_ins, write
from opsd.settings import Settings, load
from tests.support.command_line import Desk

LOCAL = """
version: 1
repository: /var/backups/opsd
sources: {www: {files: {paths: [/srv/www]}}, shop: {postgresql: {host: /var/run/postgresql}}}
"""
FAR = """
version: 1
repository: /srv/back up/100%
passphrase: {credential: passphrase}
sources:
  shop: {postgresql: {host: db.example, password: {credential: shop_password}}}
copies:
  paris: {sftp: {host: backup.example, user: opsd, path: /copy, key: {credential: paris_key}, known_hosts: /etc/opsd/known_hosts}}
  usb: {folder: /home/anna/usb}
alerts: {contacts: [{name: anna, urls: [{credential: anna_sms}, "mailto://a@b.example"]}]}
"""


@pytest.fixture
def read(tmp_path: Path) -> "Reader":
    return Reader(tmp_path / "opsd.yaml")


class Reader:
    """Settings of a text."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, text: str) -> Settings:
        self._path.write_text(text)
        return load(self._path)


def lines(settings: Settings, unit: str) -> set[str]:
    text = drop_ins(settings).get(f"opsd-{unit}.service", "")
    return {line for line in text.splitlines() if line and not line.startswith(("#", "["))}


def test_a_host_with_the_usual_folders_and_no_server_needs_nothing(read: Reader) -> None:
    assert drop_ins(read(LOCAL)) == {}


def test_each_unit_is_given_only_what_its_own_jobs_need(read: Reader) -> None:
    settings = read(FAR)
    network = {"PrivateNetwork=no", "IPAddressDeny=", "RestrictAddressFamilies=AF_INET AF_INET6"}
    repository = 'ReadWritePaths=-"/srv/back up/100%%"'
    assert lines(settings, "worker") == {repository, *network, "LoadCredentialEncrypted=shop_password"}
    assert lines(settings, "upkeep") == {
        repository,
        "ReadWritePaths=-/home/anna/usb",
        "ProtectHome=read-only",
        "LoadCredentialEncrypted=paris_key",
    }
    assert lines(settings, "drill") == {
        "ProtectHome=read-only",
        *network,
        "LoadCredentialEncrypted=paris_key",
        "LoadCredentialEncrypted=passphrase",
    }
    assert lines(settings, "daemon") == lines(settings, "failure@") == {"LoadCredentialEncrypted=anna_sms"}
    assert lines(settings, "restore") == {
        f"LoadCredentialEncrypted={name}" for name in ("passphrase", "paris_key", "shop_password")
    }


@pytest.mark.parametrize(
    "source",
    [
        "{command: {run: [dump], name: x}}",
        "{postgresql: {host: 10.0.0.1}}",
        "{postgresql: {via: [docker, exec, db]}}",
        "{postgresql: {password: {command: [vault, read]}}}",
    ],
)
def test_a_source_that_may_need_the_network_gives_it_to_the_worker(read: Reader, source: str) -> None:
    settings = read(f"version: 1\nrepository: /var/backups/opsd\nsources: {{x: {source}}}\n")
    assert "PrivateNetwork=no" in lines(settings, "worker")
    assert lines(settings, "drill") == set()


def test_a_drill_that_compares_with_a_live_server_reaches_it(read: Reader) -> None:
    checks = 'drill: {checks: [{source: shop, database: crm, sql: "select 1", live: "5%"}]}\n'
    settings = read(FAR.partition("copies:")[0] + checks)
    assert {"PrivateNetwork=no", "LoadCredentialEncrypted=shop_password"} <= lines(settings, "drill")


def test_a_drill_sees_the_slots_of_a_key_domain_where_a_home_is_hidden(read: Reader) -> None:
    settings = read(LOCAL + "key_domains: {staff: {slots: /root/keys}}\n")
    assert lines(settings, "drill") == {"ProtectHome=read-only"}
    assert lines(settings, "worker") == set()


def test_folders_below_others_are_named_once_and_private_ones_are_shown(read: Reader) -> None:
    settings = read(
        "version: 1\nrepository: /data/r\nstate: /tmp/state\ncache: /tmp/state/cache\nsources: {x: {files: {paths: [/srv]}}}"
    )
    assert lines(settings, "worker") == {"ReadWritePaths=-/data/r", "ReadWritePaths=-/tmp/state"}
    assert lines(settings, "daemon") == {"ReadWritePaths=-/tmp/state", "PrivateTmp=no"}


def test_files_are_written_once_and_removed_when_they_are_needed_no_more(read: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "system"
    assert len(write(read(FAR), folder)) == 6
    assert write(read(FAR), folder) == []
    assert (folder / "opsd-worker.service.d" / "opsd.conf").stat().st_mode & 0o777 == 0o644
    assert len(write(read(LOCAL), folder)) == 6
    assert not list(folder.glob("*/opsd.conf"))


def test_a_person_sees_them_writes_them_and_is_told_what_comes_next(tmp_path: Path) -> None:
    desk = Desk.at(tmp_path / "desk")
    desk = desk.configured("www: {files: {paths: [/srv]}}")
    assert f"ReadWritePaths=-{desk.folder}/repository" in desk.ok("config", "units").text
    ran = desk.ok("config", "units", "--write", "--folder", str(tmp_path / "system"))
    assert "now run: systemctl daemon-reload" in ran.text
    assert "keeps its old rights" in ran.text
    (told,) = [line for line in ran.text.splitlines() if "try-restart" in line]
    assert "opsd-upkeep" in ran.text
    assert "@" not in told
    ran = desk.ok("config", "units", "--write", "--folder", str(tmp_path / "system"), "--json")
    assert ran.json["changed"] == []
    assert len(ran.json["files"]) == 6
    assert subprocess.run(["ls", tmp_path / "system" / "opsd-worker.service.d"], check=True, capture_output=True).stdout
