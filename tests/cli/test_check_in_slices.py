"""`opsd check --due`: a slice each night, of the repository and of copies; what was read is kept and shown."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Desk
from tests.support.s3 import KEY, SECRET, S3Server

pytest_plugins = ["tests.support.stores"]
pytestmark = pytest.mark.slow


def host(desk: Desk, copies: str) -> Desk:
    root = desk.tree()
    desk = desk.configured(f"www: {{files: {{paths: [{root}]}}}}", f"copies: {{{copies}}}")
    desk.ok("init")
    (root / "more").write_bytes(os.urandom(200_000))
    desk.ok("backup")
    desk.ok("copy")
    return desk


def place(desk: Desk, name: str, more: str = "") -> str:
    return f"{name}: {{folder: {desk.folder}/{name}{more}}}"


def coverage(desk: Desk, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = desk.ok("check", *arguments, "--json").json["coverage"]
    return found


def spoil(folder: Path) -> Path:
    path = max((folder / "packs").glob("*/*"), key=lambda each: each.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def test_slices_of_the_repository_read_all_of_it_in_the_end_and_say_how_far_they_are(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk"))
    before = coverage(desk)["read_share"]
    packs = len(list((desk.folder / "repository" / "packs").glob("*/*")))
    shares = [coverage(desk, "--due")["read_share"] for _ in range(packs)]  # Each reads one at least.
    assert before < shares[0] <= shares[-1] == 1
    assert "read in the last 30 days: 100 %" in desk.ok("check").text
    (file,) = (desk.folder / "state" / "checked" / "repositories").iterdir()
    file.write_bytes(b"rubbish")
    assert coverage(desk)["read_share"] == before


def test_a_slice_of_a_copy_reads_only_what_is_due_and_a_full_check_counts(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk"))
    assert desk.ok("copy", "--json").json["copies"][0]["coverage"]["read_share"] == 0
    first = desk.ok("check", "--copy", "disk", "--due", "--json").json
    assert 0 < first["coverage"]["read_share"] < 1
    desk.ok("check", "--copy", "disk")
    assert desk.ok("copy", "--json").json["copies"][0]["coverage"]["read_share"] == 1
    assert "100 %" in desk.ok("copy").text


def test_damage_that_a_slice_finds_is_treated_as_a_check_treats_it(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk"))
    name = str(spoil(desk.folder / "disk").relative_to(desk.folder / "disk"))
    codes = []
    for _ in range(40):
        ran = desk.run("check", "--copy", "disk", "--due", "--json")
        codes.append(ran.code)
        if ran.code:
            break
    assert codes[-1] == 4
    [problem] = ran.json["problems"]
    assert problem["object"] == name
    assert problem["hint"]
    done = desk.ok("check", "--copy", "disk", "--due", "--repair", "--json").json
    assert done["healed"] == {name: "the repository"}
    spoil(desk.folder / "repository")
    for _ in range(40):
        ran = desk.run("check", "--due", "--repair", "--json")
        if ran.json["healed"]:
            break
    assert ran.json["healed"] == {name: "disk"}


def test_off_is_off_and_shown_as_such(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk", ", verify: off"))
    spoil(desk.folder / "disk")
    ran = desk.ok("check", "--copy", "disk", "--due")
    assert "verify is off for copy disk" in ran.text
    assert "off" in desk.ok("copy").text
    assert desk.run("check", "--copy", "disk").code == 4


def test_a_budget_that_does_not_suffice_is_told(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk", ", verify_budget: 100 KiB"))
    found = desk.ok("check", "--copy", "disk", "--due", "--json").json
    assert "the budget lets" in found["notices"][0]
    assert found["bytes_read"] <= 100 << 10


def test_options_that_do_not_go_together_are_refused(desk: Desk) -> None:
    desk = host(desk, place(desk, "disk"))
    for arguments in (["--due", "--read-data"], ["--due", "--read-data-subset", "5%"], ["--due", "--from", "disk"]):
        assert desk.run("check", *arguments).code == 2


def test_checksums_are_asked_of_s3_only(desk: Desk) -> None:
    root = desk.tree()
    desk = desk.configured(
        f"www: {{files: {{paths: [{root}]}}}}", f"copies: {{{place(desk, 'disk', ', verify: checksum')}}}"
    )
    ran = desk.run("config", "validate")
    assert ran.code == 2
    assert "copies.disk.verify: only an s3 store has checksums of its own" in ran.err


def test_a_bucket_vouches_for_its_bytes_and_they_do_not_count_as_read(desk: Desk, checking_moto: S3Server) -> None:
    for name, secret in (("key", KEY), ("secret", SECRET)):
        (desk.folder / name).write_text(secret)
        (desk.folder / name).chmod(0o600)
    bucket = checking_moto.new_bucket()
    at = f"http://127.0.0.1:{checking_moto.port}"
    keys = f"access_key: {{file: {desk.folder}/key}}, secret_key: {{file: {desk.folder}/secret}}"
    desk = host(desk, f"cold: {{s3: {{endpoint: '{at}', bucket: {bucket}, {keys}}}, verify: checksum}}")
    found = coverage(desk, "--copy", "cold", "--due")
    assert found["verify"] == "checksum"
    assert found["read_share"] == 0 < found["vouched_share"]
    assert "only vouched for by the store" in desk.ok("copy").text
    client = checking_moto.client()
    keys_there = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    for name in keys_there:
        if name.startswith(("index/", "keys/", "packs/")):
            client.put_object(Bucket=bucket, Key=name, Body=b"rotten", ChecksumAlgorithm="SHA256")
    # Each slice looks at one object or more of those that were not looked at yet.
    slices = (desk.run("check", "--copy", "cold", "--due") for _ in keys_there)
    ran = next(each for each in slices if each.code)
    assert ran.code == 4
    assert "the store's checksum of it is of other bytes" in ran.text
