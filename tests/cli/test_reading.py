"""Commands that only look: snapshots, ls, find, diff, cat, export, stats, check."""

import io
import os
import subprocess
import tarfile

from tests.support.command_line import Desk, contents

SNAPSHOT_KEYS = {"id", "time", "host", "job", "complete", "sources", "bytes", "added_bytes"}


def test_snapshots_are_an_array_oldest_first_with_the_fixed_keys(taken: Desk) -> None:
    found = taken.ok("snapshots", "--json").json
    assert len(found) == 2
    assert found[0]["time"] <= found[1]["time"]
    for each in found:
        assert set(each) >= SNAPSHOT_KEYS
        assert each["job"] == "part"
        assert each["complete"] is True
        assert each["sources"][0]["name"] == "files"
        assert each["sources"][0]["outcome"] == "complete"
        assert each["time"][-6] in "+-"


def test_the_table_fits_80_columns(taken: Desk) -> None:
    lines = taken.ok("snapshots").text.splitlines()
    assert lines[0].split() == ["SNAPSHOT", "TAKEN", "JOB", "RESULT", "SIZE", "ADDED", "SOURCES"]
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80


def test_ls_without_a_path_names_the_roots(taken: Desk) -> None:
    found = taken.ok("ls", "latest", "--json").json
    assert [(each["source"], each["path"], each["type"]) for each in found] == [
        ("files", f"{taken.folder}/data", "folder")
    ]


def test_ls_lists_a_folder_as_it_stood(taken: Desk) -> None:
    found = {
        each["path"].rpartition("/")[2]: each for each in taken.ok("ls", f"latest:{taken.folder}/data", "--json").json
    }
    assert set(found) == {"deep", "hello.txt", "link", "new.txt", "sparse"}
    assert found["hello.txt"]["mode"] == "0600"
    assert found["link"]["target"] == "hello.txt"
    assert found["sparse"]["bytes"] == 2_000_000


def test_ls_of_an_older_snapshot_lacks_what_came_later(taken: Desk) -> None:
    first = taken.ok("snapshots", "--json").json[0]["id"]
    names = taken.ok("ls", f"{first[:10]}:{taken.folder}/data").text
    assert "hello.txt" in names
    assert "new.txt" not in names


def test_find_tells_in_which_snapshots_a_name_stands(taken: Desk) -> None:
    assert len(taken.ok("find", "*.txt", "--all", "--json").json) == 3
    assert [each["path"] for each in taken.ok("find", "new.*", "--json").json] == [f"{taken.folder}/data/new.txt"]


def test_diff_tells_added_removed_changed_and_metadata(taken: Desk) -> None:
    first, second = (each["id"] for each in taken.ok("snapshots", "--json").json)
    found = taken.ok("diff", first, second, "--json").json
    kinds = {each["path"].removeprefix(f"{taken.folder}/data/"): each["change"] for each in found["changes"]}
    assert kinds["new.txt"] == "added"
    assert kinds["deep/er/empty"] == "removed"
    assert kinds["hello.txt"] == "metadata"
    assert "deep/large.bin" not in kinds
    back = taken.ok("diff", second, first, f"{taken.folder}/data/new.txt", "--json").json
    assert back["counts"] == {"added": 0, "removed": 1, "changed": 0, "metadata": 0}


def test_cat_gives_the_very_bytes_also_of_a_sparse_file(taken: Desk) -> None:
    for name in ("deep/large.bin", "sparse"):
        assert taken.ok("cat", f"latest:{taken.folder}/data/{name}").out == (taken.folder / "data" / name).read_bytes()


def test_cat_of_a_folder_says_what_to_use_instead(taken: Desk) -> None:
    ran = taken.run("cat", f"latest:{taken.folder}/data")
    assert ran.code == 2
    assert "opsd export" in ran.err


def test_every_snapshot_holds_the_configuration_and_the_rescue_script(taken: Desk) -> None:
    assert "repository:" in taken.ok("cat", "latest", "--about", "configuration").text
    script = taken.ok("cat", "latest", "--about", "rescue").text
    compile(script, "rescue.py", "exec")


def test_content_and_json_do_not_share_stdout(taken: Desk) -> None:
    ran = taken.run("cat", f"latest:{taken.folder}/data/hello.txt", "--json")
    assert ran.code == 2
    to_file = taken.ok("cat", f"latest:{taken.folder}/data/hello.txt", "--json", "-o", "hello-back")
    assert to_file.json["bytes"] == 6
    assert (taken.folder / "hello-back").read_text() == "hello\n"


def test_export_is_a_tar_that_tar_unpacks_to_the_same_tree(taken: Desk) -> None:
    archive = taken.ok("export", f"latest:{taken.folder}/data").out
    target = taken.folder / "untarred"
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xpf", "-"], input=archive, check=True)
    assert contents(target) == contents(taken.folder / "data")
    for path in (taken.folder / "data").rglob("*"):
        same = os.lstat(target / path.relative_to(taken.folder / "data"))
        if not path.is_symlink():
            assert same.st_mtime_ns == path.lstat().st_mtime_ns
    assert (target / "deep" / "hard").samefile(target / "hello.txt")


def test_a_whole_export_puts_each_source_in_a_folder(taken: Desk) -> None:
    with tarfile.open(fileobj=io.BytesIO(taken.ok("export", "latest").out)) as archive:
        names = archive.getnames()
    assert f"files{taken.folder}/data/new.txt" in names
    assert {name.split("/")[0] for name in names} == {"files"}


def test_stats_add_up(taken: Desk) -> None:
    found = taken.ok("stats", "--json").json
    stored = sum(path.stat().st_size for path in (taken.folder / "repository").rglob("*") if path.is_file())
    assert found["stored_bytes"] == stored
    assert found["snapshots"] == 2


def test_check_finds_a_sound_repository_sound(taken: Desk) -> None:
    found = taken.ok("check", "--read-data", "--json").json
    assert found["problems"] == []
    assert found["decoded"] is True
    assert found["packs_read"] == found["packs"] > 0


def test_a_share_that_is_none_is_a_usage_error(taken: Desk) -> None:
    assert taken.run("check", "--read-data-subset", "many").code == 2
    assert taken.run("check", "--read-data-subset", "0%").code == 2


def test_a_flipped_byte_exits_with_4_and_names_what_it_affects(desk: Desk) -> None:
    desk.ok("init")
    desk.ok("backup", str(desk.tree()))
    pack = max((desk.folder / "repository" / "packs").rglob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 4] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    ran = desk.run("check", "--read-data", "--json")
    assert ran.code == 4
    problem = ran.json["problems"][0]
    assert pack.name in problem["object"]
    assert problem["snapshots"]
    assert any("large.bin" in path for path in problem["paths"])


def test_a_check_that_can_not_begin_does_not_send_to_itself(desk: Desk) -> None:
    desk.ok("init", "--json")
    settings = next((desk.folder / "repository" / "settings").iterdir())
    settings.chmod(0o600)
    content = bytearray(settings.read_bytes())
    content[-1] ^= 1
    settings.write_bytes(content)
    for command in (["check"], ["check", "--repair"]):
        ran = desk.run(*command)
        assert ran.code == 4, ran
        assert "another copy of the repository" in ran.err
        assert "opsd check" not in ran.err
    assert "'opsd check'" in desk.run("snapshots").err


def test_an_empty_list_says_why_it_is_empty(taken: Desk, desk: Desk) -> None:
    assert taken.ok("snapshots", "--job", "nope").text == "no snapshot of job nope\n"
    desk.ok("init", "--json")
    assert "'opsd backup'" in desk.ok("snapshots").text
    assert "'opsd backup'" in desk.ok("prune", "--dry-run").text
    assert "0.0 times" not in desk.ok("stats").text


def test_a_diff_of_what_neither_has_is_no_empty_diff(taken: Desk) -> None:
    first = taken.ok("snapshots", "--json").json[0]["id"]
    for asked in (["/nope"], ["--source", "nope"]):
        ran = taken.run("diff", first, "latest", *asked)
        assert (ran.code, ran.out) == (1, b""), ran
    assert taken.ok("diff", first, "latest", f"{taken.folder}/data/new.txt").text.startswith("+ ")
    assert taken.ok("diff", "latest", first, f"{taken.folder}/data/new.txt").text.startswith("- ")


def test_cat_of_a_symlink_says_where_it_leads(taken: Desk) -> None:
    ran = taken.run("cat", f"latest:{taken.folder}/data/link")
    assert ran.code == 2
    assert "is a symlink to hello.txt, no file" in ran.err
