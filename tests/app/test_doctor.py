"""What is asked for a configuration, on real places."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.app.backups import BackupRequest, back_up
from opsd.app.creating import initialise
from opsd.app.doctor import count_uncovered, examined
from opsd.app.session import Access, Session
from opsd.clock import DAY, Clock, FixedClock, SystemClock
from opsd.credentials import references
from opsd.events import Recorder
from opsd.sources.discovery import Discovery, Found, Kind
from opsd.storage.folder import FOLDERS
from opsd.verify.findings import Finding, State
from tests.support.command_line import Desk
from tests.support.s3 import KEY, SECRET, S3Server
from tests.support.sshd import Server, running_server

pytest_plugins = ["tests.support.stores"]

_APPEND_ONLY = (
    "ChrootDirectory {jail}\nForceCommand internal-sftp -u 0222 -p realpath,stat,lstat,fstat,opendir,readdir,open,read,"
    "write,close,rename,limits,fsync,statvfs\n"
)


def opened(desk: Desk, clock: Clock | None = None) -> Session:
    return Session(Access(configuration=str(desk.folder / "opsd.yaml")), Recorder(), clock or SystemClock())


def host(folder: Path, more: str = "", *, taken: bool = True) -> Desk:
    """A host with a tree and one snapshot of it."""
    desk = Desk.at(folder)
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", more)
    if taken:
        with opened(desk) as session:
            initialise(session)
            back_up(session, BackupRequest())
    return desk


def look(desk: Desk, group: str, *found: Found, clock: Clock | None = None) -> list[Finding]:
    """The findings of one group."""
    with opened(desk, clock) as session:
        diagnosis = examined(session, discovery=Discovery(found=found))
    return [each for each in diagnosis.findings if each.group == group]


def worries(found: list[Finding]) -> list[tuple[State, str, str]]:
    return [(each.state, each.subject, each.text) for each in found if each.state is not State.OK]


def sftp(server: Server, path: str) -> str:
    options = server.options(path)
    return (
        f"sftp: {{host: {options.host}, port: {options.port}, user: {options.user}, path: {path}, "
        f"key: {{file: {options.key}}}, known_hosts: {options.known_hosts}}}"
    )


def test_a_host_with_all_it_needs_has_no_worries_about_itself(tmp_path: Path) -> None:
    desk = host(tmp_path)
    for group in ("credentials", "repository", "sources"):
        found = look(desk, group)
        assert found
        assert worries(found) == []


def test_a_repository_without_a_copy_and_alerts_to_nobody_are_warnings(tmp_path: Path) -> None:
    found = worries(look(host(tmp_path, taken=False), "configuration"))
    assert [(state, subject) for state, subject, _ in found] == [
        (State.WARNING, "copies"),
        (State.WARNING, "alerts"),
    ]


def test_before_init_the_repository_fails_and_the_next_step_is_init(tmp_path: Path) -> None:
    found = look(host(tmp_path, taken=False), "repository")
    assert [(each.state, "opsd init" in (each.next_step or "")) for each in found] == [(State.FAILED, True)] * 2


def test_a_host_whose_keys_are_lost_is_told(tmp_path: Path) -> None:
    desk = host(tmp_path)
    shutil.rmtree(tmp_path / "state/keys")
    ((state, _, text),) = worries(look(desk, "repository"))
    assert (state, text) == (State.FAILED, "this host holds no writer's key for it")


def test_a_passphrase_that_opens_nothing_fails(tmp_path: Path) -> None:
    desk = host(tmp_path)
    (tmp_path / "passphrase").write_text("another one\n")
    ((state, subject, text),) = worries(look(desk, "repository"))
    assert (state, subject) == (State.FAILED, "passphrase")
    assert "opens no slot" in text


def test_nobody_is_told_to_make_a_repository_where_one_stood_or_whose_state_is_lost(tmp_path: Path) -> None:
    desk = host(tmp_path)
    (tmp_path / "state").rename(tmp_path / "aside")
    assert "opsd init" not in "".join(each.next_step or "" for each in look(desk, "repository"))
    (tmp_path / "aside").rename(tmp_path / "state")
    shutil.rmtree(tmp_path / "repository")
    (found,) = [each for each in look(desk, "repository") if each.state is State.FAILED]
    assert "this host put 1 snapshot" in found.text
    assert "opsd init" not in (found.next_step or "")


def test_a_clock_that_went_back_fails_the_night(tmp_path: Path) -> None:
    desk = host(tmp_path)
    ((state, subject, _),) = worries(look(desk, "repository", clock=FixedClock(SystemClock().now() - DAY)))
    assert (state, subject) == (State.FAILED, "clock")


def test_secrets_that_lead_nowhere_are_empty_or_open_to_others_are_told(tmp_path: Path) -> None:
    desk = host(tmp_path, taken=False)
    secret = tmp_path / "passphrase"
    secret.chmod(0o644)
    (found,) = look(desk, "credentials")
    assert (found.state, found.next_step) == (State.WARNING, f"chmod 600 {secret}")
    secret.chmod(0o600)
    secret.write_text("\n")
    assert [each.state for each in look(desk, "credentials")] == [State.FAILED]
    secret.unlink()
    assert [each.state for each in look(desk, "credentials")] == [State.FAILED]


def test_every_reference_is_found_however_deep() -> None:
    value = {
        "alerts": [{"urls": ({"credential": "sms"}, "mailto:x")}],
        "pings": {"backup": {"env": "URL"}},
        "file": "no",
    }
    assert list(references(value)) == [{"credential": "sms"}, {"env": "URL"}]


def test_a_copy_that_was_never_filled_is_a_warning_and_a_filled_one_on_the_same_disk_too(tmp_path: Path) -> None:
    desk = host(tmp_path, f"copies: {{disk: {{folder: {tmp_path}/disk}}}}")
    assert [text for _, _, text in worries(look(desk, "copies"))] == [
        "it lies on the disk of the repository, and dies with it",
        "it was never filled",
    ]
    assert not (tmp_path / "disk").exists()
    desk.ok("copy")
    assert [text for _, _, text in worries(look(desk, "copies"))] == [
        "it lies on the disk of the repository, and dies with it",
        "this account may delete all of it: so may whoever breaks in here",
    ]


def test_a_copy_that_was_filled_and_is_gone_fails(tmp_path: Path) -> None:
    desk = host(tmp_path, f"copies: {{disk: {{folder: {tmp_path}/disk}}}}")
    desk.ok("copy")
    shutil.rmtree(tmp_path / "disk")
    ((state, subject, text),) = worries(look(desk, "copies"))
    assert (state, subject) == (State.FAILED, "disk")
    assert "was filled before" in text


def test_a_server_whose_host_key_is_unknown_fails_with_the_command(tmp_path: Path, sftp_server: Server) -> None:
    place = sftp(sftp_server, f"{tmp_path}/far").replace(str(sftp_server.known_hosts), f"{tmp_path}/known")
    (tmp_path / "known").touch()
    (found,) = look(host(tmp_path, f"copies: {{paris: {{{place}}}}}", taken=False), "copies")
    assert found.state is State.FAILED
    assert "ssh-keyscan" in (found.next_step or "")


def test_a_login_that_may_do_all_is_a_warning(tmp_path: Path, sftp_server: Server) -> None:
    desk = host(tmp_path, f"copies: {{paris: {{{sftp(sftp_server, f'{tmp_path}/far')}}}}}")
    desk.ok("copy")
    found = look(desk, "copies")
    assert [each.state for each in found] == [State.OK, State.WARNING]
    assert "may delete" in found[1].text


@pytest.fixture
def jail() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can confine a login")
    folder = Path(tempfile.mkdtemp(prefix="opsd-jail-", dir="/run"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_login_that_may_only_add_is_well(tmp_path: Path, jail: Path) -> None:
    for name in FOLDERS:
        (jail / "web1" / name).mkdir(parents=True)
    with running_server(_APPEND_ONLY.format(jail=jail)) as server:
        desk = host(tmp_path, f"copies: {{paris: {{{sftp(server, '/web1')}}}}}", taken=False)
        found = look(desk, "copies")
    assert worries(found) == [(State.WARNING, "paris", "it was never filled")]
    assert any("may add and not delete" in each.text for each in found)


def test_a_bucket_with_object_lock_is_well(tmp_path: Path, checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket(ObjectLockEnabledForBucket=True)
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    place = (
        f"s3: {{endpoint: 'http://127.0.0.1:{checking_moto.port}', bucket: {bucket}, object_lock_days: 35, "
        f"access_key: {{file: {tmp_path}/key}}, secret_key: {{file: {tmp_path}/secret}}}}"
    )
    desk = host(tmp_path, f"copies: {{cold: {{{place}}}}}", taken=False)
    assert worries(look(desk, "copies")) == [(State.WARNING, "cold", "it was never filled")]


def test_a_kit_that_nobody_has_shown_is_a_warning_until_a_drill_used_it(tmp_path: Path) -> None:
    desk = Desk.at(tmp_path)
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}")
    (tmp_path / "kit").write_text(desk.ok("init", "--json").json["kit"])
    desk.ok("backup")
    assert [each.state for each in look(desk, "recovery kit")] == [State.WARNING]
    desk.run("drill", "--kit-file", str(tmp_path / "kit"))
    assert [each.state for each in look(desk, "recovery kit")] == [State.OK]
    later = FixedClock(SystemClock().now() + 400 * DAY)
    assert [each.state for each in look(desk, "recovery kit", clock=later)] == [State.WARNING]


def test_what_nothing_takes_comes_with_the_source_that_would(tmp_path: Path) -> None:
    found = look(
        host(tmp_path, taken=False),
        "not covered",
        Found(kind=Kind.MARIADB, place="/run/mysqld/mysqld.sock"),
        Found(kind=Kind.SQLITE, place="/var/lib/crm/crm.db"),
        Found(kind=Kind.POSTGRESQL, place="/run/postgresql", port=5433),
        Found(kind=Kind.FOLDER, place="/opt"),
        Found(kind=Kind.FOLDER, place="/srv"),
    )
    assert [each.state for each in found] == [State.WARNING] * 4
    steps = "\n".join(each.next_step or "" for each in found)
    assert "mariadb-dump" in steps
    assert "crm: {sqlite: {path: /var/lib/crm/crm.db}}" in steps
    assert "port: 5433" in steps
    assert found[3].text == "nothing takes /opt, /srv"


def test_what_nothing_takes_is_counted_for_metrics(tmp_path: Path) -> None:
    desk = host(tmp_path, taken=False)
    there = (Found(kind=Kind.SQLITE, place="/x/a.db"), Found(kind=Kind.FOLDER, place="/x"))
    with opened(desk) as session:
        diagnosis = examined(session, discovery=Discovery(found=there))
    assert count_uncovered(diagnosis.uncovered) == {"databases": 1, "folders": 1}


def test_a_source_that_is_there_but_broken_fails_beside_one_that_is_well(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "crm.db").close()
    desk = Desk.at(tmp_path).configured(
        f"www: {{files: {{paths: [{tmp_path}]}}}}\n"
        f"crm: {{sqlite: {{path: {tmp_path}/gone.db}}}}\n"
        "mail: {command: {run: [/no/dump-mail], name: x}}"
    )
    found = look(desk, "sources")
    assert [(each.subject, each.state) for each in found] == [
        ("www", State.OK),
        ("crm", State.FAILED),
        ("mail", State.FAILED),
    ]
