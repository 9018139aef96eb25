"""Hooks: in order, told what happened, and cleaned up after whatever happens."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opsd.backup.hooks import Course, Occasion, around, run_pending
from opsd.errors import HookFailed, OpsdError, SourceError, TryLater
from opsd.events import Recorder
from opsd.model import Outcome
from opsd.sources.options import Hook, Hooks

RUN = Occasion(run="7f3a", job="all")
CRM = Occasion(run="7f3a", job="all", source="crm")


class Diary:
    """Hooks that write what they were told into one file, a line each."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "diary"

    def hook(self, name: str, status: int = 0) -> Hook:
        script = (
            'echo "$1 $OPSD_HOOK run=$OPSD_RUN job=$OPSD_JOB source=$OPSD_SOURCE outcome=$OPSD_OUTCOME error=$OPSD_ERROR" >> "$2"; '
            'echo "$1 says no" >&2; exit "$3"'
        )
        return Hook(run=("sh", "-c", script, "sh", name, str(self.path), str(status)))

    def hooks(self, before: int = 0, after: int = 0, on_error: int = 0) -> Hooks:
        return Hooks(
            before=(self.hook("freeze", before), self.hook("mount")),
            after=(self.hook("unmount", after), self.hook("thaw")),
            on_error=(self.hook("call", on_error),),
        )

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def names(self) -> list[str]:
        return [line.split()[0] for line in self.lines()]


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def journals(state: Path) -> list[Path]:
    return list((state / "hooks").glob("*"))


def test_hooks_run_in_order_around_the_body(diary: Diary, state: Path) -> None:
    recorder = Recorder()
    with around(diary.hooks(), CRM, state, recorder):
        assert diary.names() == ["freeze", "mount"]
        assert len(journals(state)) == 1
    assert diary.lines()[0] == "freeze before run=7f3a job=all source=crm outcome= error="
    assert diary.lines()[2:] == [
        "unmount after run=7f3a job=all source=crm outcome=complete error=",
        "thaw after run=7f3a job=all source=crm outcome=complete error=",
    ]
    assert (journals(state), recorder.warnings) == ([], [])


def test_a_failing_body_runs_on_error_then_after_with_the_error_told(diary: Diary, state: Path) -> None:
    with pytest.raises(OpsdError, match="disk on fire"), around(diary.hooks(), RUN, state, Recorder()):
        raise OpsdError("disk on fire")
    assert diary.names() == ["freeze", "mount", "call", "unmount", "thaw"]
    assert diary.lines()[2] == "call error run=7f3a job=all source= outcome=failed error=disk on fire"


def test_a_body_that_tells_of_a_failure_counts_as_failed(diary: Diary, state: Path) -> None:
    with around(diary.hooks(), RUN, state, Recorder()) as course:
        course.outcome, course.error = Outcome.FAILED, "two sources failed"
    assert diary.lines()[2] == "call error run=7f3a job=all source= outcome=failed error=two sources failed"


def test_warnings_are_told_and_are_no_error(diary: Diary, state: Path) -> None:
    with around(diary.hooks(), RUN, state, Recorder()) as course:
        course.outcome = Outcome.WARNINGS
    assert diary.names() == ["freeze", "mount", "unmount", "thaw"]
    assert "outcome=warnings" in diary.lines()[-1]


def test_an_interrupt_counts_as_one(diary: Diary, state: Path) -> None:
    with pytest.raises(KeyboardInterrupt), around(diary.hooks(), RUN, state, Recorder()):
        raise KeyboardInterrupt
    assert diary.names() == ["freeze", "mount", "call", "unmount", "thaw"]
    assert "outcome=interrupted" in diary.lines()[-1]
    assert journals(state) == []


def test_a_failing_before_hook_fails_the_run_without_the_body_and_after_still_runs(diary: Diary, state: Path) -> None:
    with (
        pytest.raises(HookFailed, match="before hook sh exited with 1: freeze says no"),
        around(diary.hooks(before=1), RUN, state, Recorder()),
    ):
        pytest.fail("the body ran")
    assert diary.names() == ["freeze", "call", "unmount", "thaw"]


def test_a_failing_before_hook_of_a_source_fails_that_source_only(diary: Diary, state: Path) -> None:
    with (
        pytest.raises(SourceError, match="source crm: before hook sh exited with 1") as caught,
        around(diary.hooks(before=1), CRM, state, Recorder()),
    ):
        pytest.fail("the body ran")
    assert caught.value.hint


@pytest.mark.parametrize(("occasion", "kind"), [(RUN, TryLater), (CRM, SourceError)])
def test_exit_code_75_before_means_later_and_is_no_error(
    diary: Diary, state: Path, occasion: Occasion, kind: type[OpsdError]
) -> None:
    with (
        pytest.raises(kind, match="asks to try later: freeze says no") as caught,
        around(diary.hooks(before=75), occasion, state, Recorder()),
    ):
        pytest.fail("the body ran")
    assert isinstance(caught.value, TryLater) or isinstance(caught.value.__cause__, TryLater)
    assert diary.names() == ["freeze", "unmount", "thaw"]
    assert "outcome=later" in diary.lines()[-1]


def test_failing_cleanup_hooks_are_warnings_and_the_others_run(diary: Diary, state: Path) -> None:
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), around(diary.hooks(after=2, on_error=75), CRM, state, recorder):
        raise ZeroDivisionError
    assert diary.names() == ["freeze", "mount", "call", "unmount", "thaw"]
    assert [warning.problem for warning in recorder.warnings] == [
        "on_error hook sh exited with 75: call says no",
        "after hook sh exited with 2: unmount says no",
    ]
    assert recorder.warnings[0].subject == "source crm"


def test_a_hook_over_its_limit_is_stopped_and_fails(state: Path) -> None:
    slow = Hooks(before=(Hook(run=("sleep", "600"), timeout=0.2),))
    with (
        pytest.raises(HookFailed, match="before hook: sleep ran longer than its limit"),
        around(slow, RUN, state, Recorder()),
    ):
        pytest.fail("the body ran")


def test_a_shell_never_sees_a_hook(state: Path, tmp_path: Path) -> None:
    with around(Hooks(before=(Hook(run=("echo", f"; touch {tmp_path}/made")),)), RUN, state, Recorder()):
        assert not (tmp_path / "made").exists()


def test_an_error_text_of_any_length_and_form_is_passed(diary: Diary, state: Path) -> None:
    recorder = Recorder()
    with around(diary.hooks(), RUN, state, recorder) as course:
        course.error = "nul \0 then " + "long " * 100_000
    assert recorder.warnings == []
    assert "error=nul  then long" in diary.lines()[-1]


def test_no_before_hook_runs_unless_its_clean_up_is_on_disk(diary: Diary, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsdError, match="journal of hooks"), around(diary.hooks(), RUN, tmp_path / "file", Recorder()):
        pytest.fail("the body ran")
    assert diary.lines() == []


PROGRAM = """
import sys, json
from pathlib import Path
from opsd.backup.hooks import Occasion, around
from opsd.events import Recorder
from opsd.sources.options import Hook, Hooks
before, after, state = json.loads(sys.argv[1])
hooks = Hooks(before=(Hook(run=tuple(before)),), after=(Hook(run=tuple(after)),))
with around(hooks, Occasion(run="dead", job="all", source="crm"), Path(state), Recorder()):
    print("inside", flush=True)
    sys.stdin.read()
"""


def running(diary: Diary, state: Path) -> "subprocess.Popen[bytes]":
    """Another process, within its hooks."""
    arguments = json.dumps([diary.hook("freeze").run, diary.hook("thaw").run, str(state)])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert process.stdout.readline() == b"inside\n"
    return process


def test_what_a_killed_run_left_is_cleaned_up_at_the_next_start_once(diary: Diary, state: Path) -> None:
    with running(diary, state) as process:
        process.send_signal(signal.SIGKILL)
    assert diary.names() == ["freeze"]
    recorder = Recorder()
    assert run_pending(state, recorder) == 1
    assert diary.lines()[-1] == "thaw after run=dead job=all source=crm outcome=interrupted error=run dead was killed"
    assert run_pending(state, recorder) == 0
    assert len(diary.lines()) == 2
    assert recorder.lines


def test_hooks_of_a_run_that_lives_are_left_alone(diary: Diary, state: Path) -> None:
    with running(diary, state) as process:
        assert run_pending(state, Recorder()) == 0
        assert diary.names() == ["freeze"]
        process.communicate(b"")
    assert diary.names() == ["freeze", "thaw"]
    assert journals(state) == []


def test_hooks_of_our_own_run_are_left_alone(diary: Diary, state: Path) -> None:
    with around(diary.hooks(), RUN, state, Recorder()):
        assert run_pending(state, Recorder()) == 0
    assert diary.names() == ["freeze", "mount", "unmount", "thaw"]


def test_an_interrupted_clean_up_is_done_again_at_the_next_start(diary: Diary, state: Path) -> None:
    interrupting = Hook(run=("sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}; sleep 600"))
    with (
        pytest.raises(KeyboardInterrupt),
        around(Hooks(after=(diary.hook("thaw"), interrupting)), RUN, state, Recorder()),
    ):
        pass
    (journal,) = journals(state)
    journal.write_text(journal.read_text().replace("kill -INT", "true").replace("sleep 600", "true"))
    assert run_pending(state, Recorder()) == 1
    assert diary.names() == ["thaw", "thaw"]


@pytest.mark.parametrize("content", ["", "[]", '{"occasion": {}}', '{"occasion": {"run": 1}, "after": [{"run": 2}]}'])
def test_a_journal_that_can_not_be_read_is_kept_and_told(state: Path, content: str) -> None:
    (state / "hooks").mkdir(parents=True)
    (state / "hooks" / "x.json").write_text(content)
    recorder = Recorder()
    assert run_pending(state, recorder) == 0
    assert "can't be used as a journal" in recorder.warnings[0].problem
    assert len(journals(state)) == 1


def test_a_journal_that_others_could_have_written_runs_nothing(diary: Diary, state: Path) -> None:
    with running(diary, state) as process:
        process.send_signal(signal.SIGKILL)
    journals(state)[0].chmod(0o666)
    recorder = Recorder()
    assert run_pending(state, recorder) == 0
    assert "others may have written it" in recorder.warnings[0].problem
    assert diary.names() == ["freeze"]


def test_without_hooks_nothing_is_written(state: Path) -> None:
    with around(Hooks(), RUN, state, Recorder()) as course:
        assert course == Course()
    assert run_pending(state, Recorder()) == 0
    assert not state.exists()
