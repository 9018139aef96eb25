"""Where each kind of reference leads, and that a failure names the reference and never the secret."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from opsd.credentials import LARGEST, Surroundings, described, is_at_hand, resolve
from opsd.errors import ConfigurationError
from opsd.events import Recorder

SECRET = "correct horse"


def secret_file(path: Path, mode: int = 0o600, content: bytes = SECRET.encode() + b"\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(reference: Mapping[str, Any], surroundings: Surroundings | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        resolve(reference, None, surroundings)
    told = f"{caught.value} {caught.value.hint}"
    assert SECRET not in told
    assert described(reference) in told
    return caught.value


@pytest.mark.parametrize(
    "content, secret",
    [(b"a b", b"a b"), (b"a b\n", b"a b"), (b"a\n\n", b"a\n"), (b" a \r\n", b" a \r"), (b"\xff\0\n", b"\xff\0")],
)
def test_a_file_gives_its_bytes_without_one_newline_at_the_end(tmp_path: Path, content: bytes, secret: bytes) -> None:
    assert resolve({"file": str(secret_file(tmp_path / "s", content=content))}) == secret


@pytest.mark.parametrize("mode, warned", [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_read_is_used_and_reported(tmp_path: Path, mode: int, warned: bool) -> None:  # noqa: FBT001
    recorder = Recorder()
    path = secret_file(tmp_path / "s", mode)
    assert resolve({"file": str(path)}, recorder) == SECRET.encode()
    assert [f"run 'chmod 600 {path}'" in line for line in recorder.lines] == [True] * warned


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refusal({"file": str(tmp_path / "absent")})
    assert str(error).endswith("absent}: no such file or directory")
    assert error.exit_code == 2


def test_a_device_without_an_end_is_refused() -> None:
    assert "longer than" in str(refusal({"file": "/dev/zero"}))


def test_the_longest_secret_is_accepted_whole(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "s", content=b"x" * LARGEST + b"\n")
    assert len(resolve({"file": str(path)})) == LARGEST


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    assert "it is empty" in str(refusal({"file": str(secret_file(tmp_path / "s", content=content))}))


def test_a_variable_gives_its_bytes_also_where_they_are_no_utf8() -> None:
    surroundings = Surroundings(environment={"A": os.fsdecode(b"\xff secret")})
    assert resolve({"env": "A"}, None, surroundings) == b"\xff secret"
    assert "not set" in str(refusal({"env": "B"}, surroundings))


@pytest.mark.parametrize("place", ["run/credentials/@system", "etc/credstore", "unit"])
def test_a_credential_is_found_where_systemd_puts_it(tmp_path: Path, place: str) -> None:
    secret_file(tmp_path / place / "key")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path / "unit")}
    surroundings = Surroundings(environment=environment, root=tmp_path)
    assert resolve({"credential": "key"}, None, surroundings) == SECRET.encode()


def test_the_credential_of_the_unit_comes_first(tmp_path: Path) -> None:
    secret_file(tmp_path / "unit/key", content=b"mine")
    secret_file(tmp_path / "etc/credstore/key", content=b"another")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path / "unit")}
    assert resolve({"credential": "key"}, None, Surroundings(environment=environment, root=tmp_path)) == b"mine"


def test_an_encrypted_credential_is_decrypted_under_its_own_name(tmp_path: Path) -> None:
    # Decrypting needs a machine's own key, so a program of that name shows what it was asked.
    secret_file(tmp_path / "etc/credstore.encrypted/key")
    program = secret_file(tmp_path / "bin/systemd-creds", 0o700, b'#!/bin/sh\necho "$@"\n')
    surroundings = Surroundings(environment={"PATH": f"{program.parent}:/bin"}, root=tmp_path)
    asked = resolve({"credential": "key"}, None, surroundings).decode()
    assert asked == f"decrypt --name=key {tmp_path}/etc/credstore.encrypted/key -"


def test_a_credential_that_is_nowhere_says_how_to_make_it(tmp_path: Path) -> None:
    error = refusal({"credential": "key"}, Surroundings(environment={}, root=tmp_path))
    assert "LoadCredentialEncrypted=key" in str(error.hint)


@pytest.mark.parametrize("name", ["../shadow", "..", "a/b", "a b"])
def test_a_credential_can_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    assert "no credential's name" in str(refusal({"credential": name}, Surroundings(environment={}, root=tmp_path)))


def test_a_command_gives_what_it_prints_and_knows_no_shell() -> None:
    assert resolve({"command": ["printf", "%s", "$HOME; a"]}) == b"$HOME; a"


def python(program: str) -> dict[str, list[str]]:
    return {"command": [sys.executable, "-c", program]}


def test_what_a_failing_command_printed_is_not_repeated() -> None:
    program = "import sys; s = 'correct' + ' horse'; print(s); print(s, file=sys.stderr); sys.exit(3)"
    assert "exited with 3" in str(refusal(python(program)))


def test_a_command_has_a_time_limit() -> None:
    surroundings = Surroundings(timeout=0.05)
    assert "took longer than 0.05 seconds" in str(refusal({"command": ["sleep", "60"]}, surroundings))


def test_a_command_that_is_not_installed_is_named() -> None:
    assert "no-such-program: no such file" in str(refusal({"command": ["no-such-program"]}))


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"file": "/a", "env": "B"},
        {"fiel": "/a"},
        {"file": 5},
        {"file": "a\0b"},
        {"env": ""},
        {"command": []},
        {"command": "echo x"},
        {"command": ["echo", 5]},
    ],
)
def test_what_is_no_reference_is_refused(reference: dict[str, Any]) -> None:
    refusal(reference)


def test_a_credential_that_was_not_passed_is_not_at_hand_and_other_references_may_be(tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    passed.mkdir()
    (passed / "key").write_text("x")
    around = Surroundings(environment={"CREDENTIALS_DIRECTORY": str(passed)}, root=tmp_path)
    assert is_at_hand({"credential": "key"}, around)
    assert not is_at_hand({"credential": "other"}, around)
    assert is_at_hand({"file": "/nowhere"}, around)
    store = tmp_path / "etc/credstore.encrypted"
    store.mkdir(parents=True)
    (store / "other").write_text("sealed")
    assert is_at_hand({"credential": "other"}, around) == (os.geteuid() == 0)
