"""What the units keep from opsd."""

from pathlib import Path

from opsd.verify.doctor_units import WORKER, installed, parsed, passes
from opsd.verify.findings import State

_UNIT = """
[Service]
PrivateTmp=disconnected
ProtectHome=yes
# InaccessiblePaths=/srv
InaccessiblePaths=-/var/secret
TemporaryFileSystem=/opt:ro
"""
_OWN = Path(__file__).parents[2] / "systemd"


def test_what_a_unit_hides_is_read_from_its_lines() -> None:
    assert parsed(WORKER, _UNIT).hidden == {
        "/tmp": "PrivateTmp=disconnected",
        "/var/tmp": "PrivateTmp=disconnected",
        "/home": "ProtectHome=yes",
        "/root": "ProtectHome=yes",
        "/run/user": "ProtectHome=yes",
        "/var/secret": "InaccessiblePaths=-/var/secret",
        "/opt": "TemporaryFileSystem=/opt:ro",
    }
    assert parsed(WORKER, "ProtectHome=read-only\nPrivateTmp=no\n").hidden == {}
    assert parsed(WORKER, "InaccessiblePaths=/srv\nInaccessiblePaths=\n").hidden == {}


def test_a_drop_in_of_the_administrator_comes_after_the_unit(tmp_path: Path) -> None:
    for name, text in (
        ("usr/lib/systemd/system/opsd-worker.service", "ProtectHome=yes\n"),
        ("etc/systemd/system/opsd-worker.service.d/homes.conf", "ProtectHome=read-only\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    found = installed(tmp_path)
    assert found
    assert found.hidden == {}
    assert installed(tmp_path, "opsd-drill.service") is None


def test_a_path_that_a_unit_hides_fails_with_the_line_that_shows_it() -> None:
    (found,) = parsed(WORKER, _UNIT).hides("homes", ["/home/anna", "/srv", "/homestead"])
    assert found.state is State.FAILED
    assert found.text == "/home/anna is hidden from opsd: ProtectHome=yes in opsd-worker.service"
    assert "ProtectHome=read-only" in (found.next_step or "")


def test_a_source_of_everything_is_told_what_of_it_is_hidden_but_for_what_passes() -> None:
    found = list(parsed(WORKER, "PrivateTmp=yes\nProtectHome=yes\n").hides("all", ["/"]))
    assert [each.state for each in found] == [State.WARNING] * 3
    assert not any("tmp" in each.text for each in found)


def test_a_repository_that_no_line_lets_the_unit_write_to_fails() -> None:
    box = parsed(WORKER, "ProtectSystem=strict\nStateDirectory=opsd\nReadWritePaths=-/var/backups/opsd\n")
    for path in ("/var/backups/opsd", "/var/lib/opsd", "/var/backups/opsd/deep"):
        assert list(box.refuses_to_write("repository", path)) == []
    assert [each.state for each in box.refuses_to_write("repository", "/mnt/backup")] == [State.FAILED]
    assert list(parsed(WORKER, "ProtectSystem=full\n").refuses_to_write("repository", "/mnt/backup")) == []


def test_a_server_elsewhere_needs_a_unit_with_a_network() -> None:
    for line in ("PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"):
        assert [each.state for each in parsed(WORKER, line).refuses_network("pg", "db")] == [State.FAILED]
    for line in ("PrivateNetwork=no", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", ""):
        assert list(parsed(WORKER, line).refuses_network("pg", "db")) == []


def test_a_secret_is_passed_by_the_unit_that_names_it() -> None:
    box = parsed(WORKER, "LoadCredentialEncrypted=shop:/etc/x\nImportCredential=opsd.*\n")
    assert [passes([box], name) for name in ("shop", "opsd.key", "other")] == [True, True, False]


def test_our_own_units_hide_nothing_that_is_backed_up() -> None:
    worker = parsed(WORKER, (_OWN / WORKER).read_text())
    assert worker.hidden == {}
    assert list(worker.refuses_to_write("repository", "/var/backups/opsd")) == []
    assert worker.has_network is False
