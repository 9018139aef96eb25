"""`opsd setup`, as a person runs it on this machine, with places of its own."""

import io
from pathlib import Path

import click
import pytest

from opsd.app.proposal import Answers
from opsd.cli.init import kit_text
from opsd.cli.setup import asked
from opsd.errors import UsageError
from tests.support.command_line import Desk


@pytest.fixture
def bare(desk: Desk) -> Desk:
    """A host without a configuration, whose repository and state are the test's."""
    places = {"OPSD_REPOSITORY": f"{desk.folder}/repository", "OPSD_STATE": f"{desk.folder}/state"}
    return Desk(folder=desk.folder, environment={**places, "OPSD_CONFIG": f"{desk.folder}/etc/opsd.yaml"})


def test_a_configuration_with_sources_ends_with_2_and_stays(bare: Desk) -> None:
    file = bare.folder / "mine.yaml"
    file.write_text("sources: {a: {files: {paths: [/etc]}}}\n")
    ran = bare.run("-c", str(file), "setup", "--yes")
    assert ran.code == 2
    assert "has sources" in ran.err
    assert file.read_text() == "sources: {a: {files: {paths: [/etc]}}}\n"
    assert not (bare.folder / "repository").exists()


def test_json_asks_no_questions(bare: Desk) -> None:
    assert bare.run("setup", "--json").code == 2


def answered(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Answers:
    default = Answers(file=folder / "f", repository=f"{folder}/r", state=folder / "s", zone="UTC", time="04:00")
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return asked(default)


@pytest.mark.parametrize("count", range(6))
def test_who_answers_no_more_is_told_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with pytest.raises(UsageError, match="nothing was changed") as caught:
        answered(tmp_path, monkeypatch, *[""] * count)
    assert "--yes" in str(caught.value.hint)


def test_who_declines_is_told_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.Abort):
        answered(tmp_path, monkeypatch, *[""] * 5, "n")
    assert "nothing was changed" in capsys.readouterr().err


def test_an_answer_that_could_not_be_carried_out_is_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full/x").mkdir(parents=True)
    places = [f"{tmp_path}/full", "here", "", "copy", f"{tmp_path}/r/copy", f"{tmp_path}/full", f"{tmp_path}/copy"]
    found = answered(tmp_path, monkeypatch, *places, "", "", "", "y")
    assert (found.repository, found.copy) == (f"{tmp_path}/r", f"{tmp_path}/copy")
    assert capsys.readouterr().err.count("Error: ") == 5


@pytest.mark.slow
def test_without_questions_a_bare_host_comes_to_a_proven_restore(bare: Desk) -> None:
    ran = bare.run("setup", "--yes", "--json")
    found = ran.json
    assert ran.code == 3 if found["to_do"] else ran.code == 0, ran
    assert (found["sample"]["verdict"], found["kit_confirmed"]) == ("green", False)
    assert found["sample"]["files"] > 0
    assert found["configuration"] == f"{bare.folder}/etc/opsd.yaml"
    bare.ok("config", "validate")
    assert bare.run("setup", "--yes").code == 2
    (bare.folder / "kit").write_text(found["kit"])
    assert bare.run("drill", "--kit-file", f"{bare.folder}/kit").code == 0


@pytest.mark.slow
def test_a_kit_that_is_not_typed_back_is_a_warning_and_the_answers_hold(bare: Desk) -> None:
    places = [f"{bare.folder}/elsewhere", f"{bare.folder}/copy"]
    answers = [*places, "nobody", "ntfy://topic", "Europe/Paris", "25:00", "03:30", "y", "????", "????"]
    ran = bare.run("setup", given="\n".join(answers) + "\n")
    assert ran.code == 3, ran
    assert "the kit was not confirmed" in ran.err
    assert "opsd drill --kit" in ran.text
    assert (bare.folder / "copy").is_dir()
    assert ran.err.count("Type group") == 3
    text = (bare.folder / "etc/opsd.yaml").read_text()
    for said in ("ntfy://topic", "Europe/Paris", "03:30", f"{bare.folder}/elsewhere", f"folder: {bare.folder}/copy"):
        assert said in text
    assert "RECOVERY KIT" in ran.text
    assert "▄▄▄▄▄" in ran.text
    told = ran.text.replace(str(bare.folder), "/srv").splitlines()
    assert [line for line in told if len(line) > 80 and " " in line.strip()] == []


def test_the_kit_is_printed_in_rows_of_four_groups() -> None:
    kit = "-".join(f"{number:04}" for number in range(12))
    assert "\n      0004-0005-0006-0007\n" in kit_text("0" * 32, kit)
