"""Copies on real servers, set up as docs/copies.md says, by the command line as a person would."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsd.storage.folder import FOLDERS
from tests.support.command_line import Desk, contents
from tests.support.places import sftp
from tests.support.s3 import KEY, SECRET, S3Server
from tests.support.sshd import running_server

pytest_plugins = ["tests.support.stores"]
pytestmark = pytest.mark.slow

READ_ONLY = "ChrootDirectory {jail}\nForceCommand internal-sftp -R\n"
APPEND_ONLY = (
    "ChrootDirectory {jail}\nForceCommand internal-sftp -u 0222 -p realpath,stat,lstat,fstat,opendir,readdir,open,read,"
    "write,close,rename,limits,fsync,statvfs\n"
)


@pytest.fixture
def jail() -> Iterator[Path]:
    """A folder that a login can be confined to: all above it belongs to root and only root may write there."""
    if os.geteuid() != 0:
        pytest.skip("only root can confine a login")
    folder = Path(tempfile.mkdtemp(prefix="opsd-jail-", dir="/run"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def host(folder: Path, copies: str) -> Desk:
    desk = Desk.at(folder)
    desk = desk.configured(f"www: {{files: {{paths: [{desk.tree()}]}}}}", f"copies: {{{copies}}}")
    desk.ok("init")
    desk.ok("backup")
    return desk


def require_restored(desk: Desk, name: str) -> None:
    """The newest snapshot comes back from that copy alone."""
    root = desk.folder / "data"
    shutil.move(desk.folder / "repository", desk.folder / "away")
    desk.ok("restore", "latest", "--from", name, "--to", "back")
    assert contents(desk.folder / "back" / "www" / str(root)[1:]) == contents(root)
    shutil.move(desk.folder / "away", desk.folder / "repository")


def objects(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_copy_pushed_to_an_account_that_may_only_add(tmp_path: Path, jail: Path) -> None:
    for name in FOLDERS:
        (jail / "web1" / name).mkdir(parents=True)
    with running_server(APPEND_ONLY.format(jail=jail)) as server:
        desk = host(tmp_path, f"paris: {{{sftp(server, '/web1')}, limits: {{00:00-00:00: 1 GiB/s}}}}")
        desk.ok("copy")
        desk.ok("copy")
        (tmp_path / "data" / "new.bin").write_bytes(os.urandom(3_000_000))
        desk.ok("backup")
        assert desk.ok("copy", "--json").json["copies"][0]["new_snapshots"] == 1
        desk.ok("check", "--copy", "paris")
        ran = desk.run("prune", "--copy", "paris")
        assert ran.code == 1
        assert "prune on the server itself" in ran.err
        assert not list((jail / "web1" / "marks").iterdir())
        require_restored(desk, "paris")
        pack = max((jail / "web1" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:-1])
        assert desk.run("check", "--copy", "paris").code == 4
        ran = desk.run("check", "--copy", "paris", "--repair")
        assert ran.code == 4
        assert "healing from the repository" in ran.err


def test_a_repository_pulled_by_a_login_that_may_only_read(tmp_path: Path, jail: Path) -> None:
    desk = host(tmp_path / "web1", "disk: {folder: /nowhere}")
    shutil.copytree(tmp_path / "web1" / "repository", jail / "repository")
    with running_server(READ_ONLY.format(jail=jail)) as server:
        folder = tmp_path / "puller"
        folder.mkdir()
        (folder / "opsd.yaml").write_text(
            f"state: {folder}/state\npulls: {{web1: {{from: {{{sftp(server, '/repository')}}}, to: {{folder: {folder}/web1}}}}}}\n"
        )
        puller = Desk(folder=folder, environment={"OPSD_CONFIG": str(folder / "opsd.yaml")})
        before = objects(jail / "repository")
        assert puller.ok("copy", "--json").json["copies"][0]["new_snapshots"] == 1
        assert objects(jail / "repository") == before
        travelling = {name for name in before if not name.startswith("runs/")}
        assert objects(folder / "web1") == travelling
        pack = max((folder / "web1" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
        pack.write_bytes(b"rotten")
        assert puller.run("check", "--copy", "web1").code == 4
        assert "healed from the source of web1" in puller.ok("check", "--copy", "web1", "--repair").text
        options = (f"--repository={folder}/web1", "--to", "back")
        restored = Desk(folder=folder, environment={"OPSD_PASSPHRASE_FILE": str(tmp_path / "web1" / "passphrase")})
        restored.ok("restore", "latest", *options)
        root = desk.folder / "data"
        assert contents(folder / "back" / "www" / str(root)[1:]) == contents(root)


def test_a_copy_in_a_bucket(tmp_path: Path, checking_moto: S3Server) -> None:
    bucket = checking_moto.new_bucket()
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    place = (
        f"s3: {{endpoint: 'http://127.0.0.1:{checking_moto.port}', bucket: {bucket}, prefix: web1, "
        f"access_key: {{file: {tmp_path}/key}}, secret_key: {{file: {tmp_path}/secret}}}}"
    )
    desk = host(tmp_path, f"cold: {{{place}}}")
    assert desk.ok("copy", "--json").json["copies"][0]["lacks"] == []
    assert desk.ok("copy", "--json").json["copies"][0]["lacks"] is None
    (tmp_path / "data" / "new.bin").write_bytes(os.urandom(3_000_000))
    desk.ok("backup")
    assert desk.ok("copy", "--json").json["copies"][0]["new_snapshots"] == 1
    desk.ok("check", "--copy", "cold")
    require_restored(desk, "cold")
    client = checking_moto.client()
    found = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert all(entry["Key"].startswith("web1/") for entry in found)
    pack = max((entry for entry in found if "/packs/" in entry["Key"]), key=lambda entry: entry["Size"])["Key"]
    client.put_object(Bucket=bucket, Key=pack, Body=b"rotten")
    assert desk.run("check", "--copy", "cold").code == 4
    assert desk.run("check", "--copy", "cold", "--repair").code == 0
    desk.ok("check", "--copy", "cold")
    assert client.head_object(Bucket=bucket, Key=pack)["ContentLength"] > 1000


def test_what_a_bucket_lacks_is_told_and_its_locks_are_lengthened(tmp_path: Path, moto: S3Server) -> None:
    bucket = moto.new_bucket(ObjectLockEnabledForBucket=True)
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    place = (
        f"s3: {{endpoint: 'http://127.0.0.1:{moto.port}', bucket: {bucket}, object_lock_days: 35, "
        f"access_key: {{file: {tmp_path}/key}}, secret_key: {{file: {tmp_path}/secret}}}}"
    )
    desk = host(tmp_path, f"cold: {{{place}}}")
    assert "cold: it checks no checksum: opsd reads back what it put" in desk.ok("copy").text
    path = desk.folder / "opsd.yaml"
    path.write_text(path.read_text().replace("object_lock_days: 35", "object_lock_days: 90"))
    [found] = desk.ok("copy", "--json").json["copies"]
    entries = moto.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert found["locks_extended"] == sum(not entry["Key"].startswith("runs/") for entry in entries) > 4
    assert desk.ok("copy", "--json").json["copies"][0]["locks_extended"] == 0
    pack = next(entry["Key"] for entry in entries if entry["Key"].startswith("packs/"))
    left = moto.client().head_object(Bucket=bucket, Key=pack)["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert 89 <= left.days <= 90
