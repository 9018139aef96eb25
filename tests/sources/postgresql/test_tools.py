"""Which programs are chosen, and how they are started elsewhere."""

from pathlib import Path

import pytest

from opsd.sources.postgresql.server import Server
from opsd.sources.postgresql.session import ServerProblem
from opsd.sources.postgresql.tools import find_tools, folders_with, reads_since, through


def installed(root: Path, *versions: str) -> tuple[str, ...]:
    """Folders of programs that state these versions; the pattern that finds them."""
    for version in versions:
        folder = root / version.partition(".")[0] / "bin"
        folder.mkdir(parents=True)
        program = folder / "pg_dump"
        program.write_text(f'#!/bin/sh\necho "pg_dump (PostgreSQL) {version} (Debian {version}-1)"\n')
        program.chmod(0o755)
    return (f"{root}/*/bin",)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to install into, with nothing on the path."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


@pytest.mark.parametrize("server, chosen", [(130004, 13), (140000, 16), (160001, 16), (170000, 17)])
def test_the_closest_programs_that_are_not_older_are_chosen(bare: Path, server: int, chosen: int) -> None:
    folders = installed(bare, "13.2", "16.4", "17.1")
    tools = find_tools(server, Server(), folders)
    assert tools.version[0] == chosen
    assert tools.command("pg_dump") == [str(bare / str(chosen) / "bin" / "pg_dump")]


def test_programs_that_are_all_older_are_refused_with_the_package_to_install(bare: Path) -> None:
    with pytest.raises(ServerProblem, match=r"PostgreSQL 18, .* found: 13\.2, 17\.1") as caught:
        find_tools(180000, Server(), installed(bare, "13.2", "17.1"))
    assert caught.value.hint
    assert "postgresql-client-18" in caught.value.hint


@pytest.mark.parametrize("minor, asked, chosen", [(14, 0, 16), (15, 16, 16), (16, 17, 17), (19, 17, 17)])
def test_a_dump_may_ask_for_newer_programs_than_its_server(bare: Path, minor: int, asked: int, chosen: int) -> None:
    since = reads_since(b"PGDMP" + bytes([1, minor, 0]))
    assert since == asked
    tools = find_tools(160000, Server(), installed(bare, "16.4", "17.1", "18.0"), dump=since)
    assert (tools.version[0], tools.newer) == (chosen, chosen > 16)


def test_what_is_no_dump_in_that_format_asks_for_nothing(bare: Path) -> None:
    assert reads_since(b"") == reads_since(b"PGDMP") == reads_since(b"--\n-- PostgreSQL database dump") == 0
    with pytest.raises(ServerProblem, match=r"the dump was made by PostgreSQL 17, .* found: 16\.4"):
        find_tools(150000, Server(), installed(bare, "16.4"), dump=17)


def test_no_programs_at_all_are_said_so(bare: Path) -> None:
    with pytest.raises(ServerProblem, match="found: none"):
        find_tools(180000, Server(), (f"{bare}/*/bin",))


def test_the_programs_on_the_path_come_first_unless_they_are_debians_wrapper(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = installed(tmp_path, "16.4")
    installed(tmp_path / "own", "16.9")
    own = tmp_path / "own" / "16" / "bin"
    monkeypatch.setenv("PATH", str(own))
    assert find_tools(160000, Server(), folders).version == (16, 9)
    (own / "pg_dump").rename(own / "pg_wrapper")
    (own / "pg_dump").symlink_to(own / "pg_wrapper")
    assert find_tools(160000, Server(), folders).version == (16, 4)
    assert [folder.parts[-2] for folder in folders_with("pg_dump", folders)] == ["16"]


def test_a_beta_version_is_read(bare: Path) -> None:
    assert find_tools(180000, Server(), installed(bare, "18beta1")).version == (18, 0)


@pytest.mark.parametrize(
    "via, secret, started",
    [
        ((), True, ()),
        (("ssh", "db1"), True, ("ssh", "db1")),
        (("docker", "exec", "db"), False, ("docker", "exec", "-i", "db")),
        (("docker", "exec", "db"), True, ("docker", "exec", "-i", "-e", "PGPASSWORD", "db")),
        (("docker", "exec", "-i", "db"), False, ("docker", "exec", "-i", "db")),
        (("kubectl", "exec", "pod", "--"), True, ("kubectl", "exec", "-i", "pod", "--")),
    ],
)
def test_a_containers_exec_gets_standard_input_and_the_passwords_variable(
    via: tuple[str, ...], *, secret: bool, started: tuple[str, ...]
) -> None:
    assert through(via, secret=secret) == started


def test_a_program_elsewhere_that_is_missing_is_said_with_what_it_printed() -> None:
    with pytest.raises(ServerProblem, match="false pg_dump --version' exited with 1"):
        find_tools(150000, Server(via=("false",)))
    with pytest.raises(ServerProblem, match="there is no program opsd-no-such"):
        find_tools(150000, Server(via=("opsd-no-such",)))
