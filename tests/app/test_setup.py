"""A setup on a host whose places and servers are the test's own."""

import stat
from pathlib import Path

import pytest

from opsd.app.doctor import examined
from opsd.app.proposal import Answers
from opsd.app.session import Access, Session
from opsd.app.setup import Setup, refuse_configured, refuse_full
from opsd.errors import ConfigurationError, StorageError
from opsd.events import Recorder
from opsd.settings import load
from opsd.sources.discovery import Discovery, Found, Kind
from opsd.sources.options import PostgresqlSource
from opsd.verify.findings import State
from tests.support.postgresql import Cluster

pytest_plugins = ["tests.support.clusters"]


def host(folder: Path, *more: Found) -> Setup:
    """A setup with one small folder to back up."""
    (folder / "srv").mkdir()
    (folder / "srv/hello.txt").write_text("hello\n")
    answers = Answers(
        file=folder / "etc/opsd.yaml",
        repository=f"{folder}/repository",
        state=folder / "state",
        zone="UTC",
        time="04:00",
    )
    return Setup(answers, Discovery(found=(Found(kind=Kind.FOLDER, place=f"{folder}/srv"), *more)), Recorder())


def server(cluster: Cluster) -> Found:
    return Found(kind=Kind.POSTGRESQL, place=cluster.host, port=5432)


def test_a_bare_host_comes_to_a_proven_restore(tmp_path: Path, cluster: Cluster) -> None:
    cluster.create("shop", "create table orders as select 1 as a")
    setup = host(tmp_path, server(cluster))
    plan = setup.plan()
    assert (plan.todo, plan.roles) == ((), ("postgresql",))
    setup.write(plan)
    assert len(setup.initialise()["kit"]) == 59
    found = setup.prove(plan)
    assert (found.verdict, found.exit_code, found.problems) == ("green", 0, ())
    assert (found.files, found.databases) == (1, 1)
    assert setup.left_out() == ()
    setup.remember(kit_confirmed=True)
    with Session(Access(configuration=str(setup.answers.file)), Recorder()) as session:
        findings = examined(session, discovery=Discovery(found=())).findings
    assert not [each for each in findings if each.state is State.FAILED]
    assert [each.state for each in findings if each.group == "recovery kit"] == [State.OK]


def test_secrets_are_private_and_the_configuration_names_them(tmp_path: Path, cluster: Cluster) -> None:
    setup = host(tmp_path, server(cluster))
    setup.write(setup.plan())
    settings = load(setup.answers.file)
    options = settings.sources[1].options
    assert isinstance(options, PostgresqlSource)
    assert options.password == {"file": f"{tmp_path}/etc/postgresql.password"}
    for path in (tmp_path / "etc").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len((tmp_path / "etc/passphrase").read_text().strip()) >= 32


def test_the_role_is_no_superuser_and_a_second_setup_leaves_its_password(tmp_path: Path, cluster: Cluster) -> None:
    setup = host(tmp_path, server(cluster))
    setup.plan()
    assert cluster.rows("select rolsuper, rolbypassrls from pg_roles where rolname = 'opsd'") == [(False, True)]
    before = (tmp_path / "etc/postgresql.password").read_text()
    again = setup.plan()
    assert again.roles == ()
    assert "password:" in again.text
    assert (tmp_path / "etc/postgresql.password").read_text() == before


def test_a_server_that_lets_no_superuser_in_is_left_with_the_statement(tmp_path: Path) -> None:
    plan = host(tmp_path, Found(kind=Kind.POSTGRESQL, place=str(tmp_path), port=5999)).plan()
    (todo,) = plan.todo
    assert "CREATE ROLE opsd LOGIN BYPASSRLS IN ROLE pg_read_all_data;" in todo
    assert plan.labels == ("system",)
    assert "postgresql:" in plan.text


def test_a_configuration_with_sources_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "opsd.yaml"
    for text in ("sources: {a: {files: {paths: [/etc]}}}", "pulls: {x: {}}", "sources: [", "\tnonsense"):
        file.write_text(text)
        with pytest.raises(ConfigurationError):
            refuse_configured(file)
    for text in ("", "# nothing yet\n", "version: 1\nsources:\n"):
        file.write_text(text)
        refuse_configured(file)
    refuse_configured(tmp_path / "absent.yaml")


def test_a_configuration_that_can_not_be_understood_says_where(tmp_path: Path) -> None:
    file = tmp_path / "opsd.yaml"
    file.write_text("version: 1\nsources: [\n")
    with pytest.raises(ConfigurationError, match=r"opsd\.yaml:3:1 syntax"):
        refuse_configured(file)


def test_what_does_not_go_with_conf_d_is_told_before_anything_is_written(tmp_path: Path) -> None:
    first = host(tmp_path)
    more = tmp_path / "more.yaml"
    more.write_text("retention: {keep_daily: 7}\n")
    setup = Setup(
        first.answers, Discovery(found=(Found(kind=Kind.FOLDER, place=f"{tmp_path}/srv"),)), Recorder(), [more]
    )
    with pytest.raises(ConfigurationError, match=r"more\.yaml:1:13 retention\.keep_daily: set twice"):
        setup.plan()
    more.write_text("alerts: {repeat: 1h}\n")
    setup.plan()


def test_a_disk_of_its_own_is_not_covered_unless_the_backups_lie_there(tmp_path: Path) -> None:
    disks = [f"{tmp_path}/{name}" for name in ("repository", "photos", "void")]
    setup = host(tmp_path, *(Found(kind=Kind.MOUNT, place=place) for place in disks))
    for place in disks[:2]:
        Path(place, "something").mkdir(parents=True)
    setup.write(setup.plan())
    assert [each.found.place for each in setup.left_out()] == [f"{tmp_path}/photos"]


def test_a_write_that_fails_leaves_nothing_beside(tmp_path: Path) -> None:
    setup = host(tmp_path)
    setup.write(setup.plan())
    place = tmp_path / "etc"
    (place / "opsd.yaml.before-setup").mkdir()  # In the way of what is moved there.
    with pytest.raises(StorageError):
        setup.write(setup.plan())
    assert sorted(path.name for path in place.iterdir()) == ["opsd.yaml", "opsd.yaml.before-setup", "passphrase"]


def test_a_repository_that_is_there_is_called_by_its_name(tmp_path: Path) -> None:
    setup = host(tmp_path)
    setup.write(setup.plan())
    setup.initialise()
    with pytest.raises(ConfigurationError, match="holds a repository already"):
        refuse_full(setup.answers.repository)


def test_what_stood_in_the_file_stays_beside_it(tmp_path: Path) -> None:
    setup = host(tmp_path)
    setup.answers.file.parent.mkdir()
    setup.answers.file.write_text("# mine\n")
    setup.write(setup.plan())
    assert (tmp_path / "etc/opsd.yaml.before-setup").read_text() == "# mine\n"


def test_a_place_that_holds_something_is_no_place_for_a_repository(tmp_path: Path) -> None:
    refuse_full(f"{tmp_path}/absent")
    refuse_full(str(tmp_path))
    (tmp_path / "lost+found").mkdir()
    refuse_full(str(tmp_path))
    (tmp_path / "file").touch()
    for place in (str(tmp_path), f"{tmp_path}/file"):
        with pytest.raises(ConfigurationError):
            refuse_full(place)


def test_a_setup_that_could_not_make_the_repository_can_be_tried_again(tmp_path: Path) -> None:
    setup = host(tmp_path)
    setup.write(setup.plan())
    (tmp_path / "repository").write_text("no folder")
    with pytest.raises(StorageError):
        setup.initialise()
    refuse_configured(setup.answers.file)


def test_a_host_with_nothing_to_back_up_is_told(tmp_path: Path) -> None:
    answers = Answers(file=tmp_path / "f", repository=f"{tmp_path}/r", state=tmp_path / "s", zone="UTC", time="04:00")
    with pytest.raises(ConfigurationError, match="nothing was found"):
        Setup(answers, Discovery(found=()), Recorder()).plan()


def test_a_sample_that_can_not_be_taken_is_no_proof(tmp_path: Path) -> None:
    setup = host(tmp_path)
    plan = setup.plan()
    setup.write(plan)
    setup.initialise()
    (tmp_path / "srv/hello.txt").unlink()
    found = setup.prove(plan)
    assert (found.exit_code, found.verdict) == (1, "failed")
    assert found.problems


def test_a_copy_on_a_server_gets_a_key_of_its_own_and_no_trust_unseen(tmp_path: Path) -> None:
    first = host(tmp_path)
    answers = Answers(
        file=first.answers.file,
        repository=first.answers.repository,
        state=first.answers.state,
        zone="UTC",
        time="04:00",
        copy="opsd@nas.example:/srv/web1",
    )
    setup = Setup(answers, Discovery(found=(Found(kind=Kind.FOLDER, place=f"{tmp_path}/srv"),)), Recorder())
    plan = setup.plan()
    setup.write(plan)
    assert "ssh-keyscan nas.example" in plan.todo[0]
    assert "PRIVATE KEY" in answers.login_key.read_text()
    assert answers.known_hosts.read_text() == ""
