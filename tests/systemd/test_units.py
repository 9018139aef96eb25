"""The units of systemd: right by its own judgement, and with no more power than was promised."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from opsd.app import sandbox
from opsd.control import SERVICES
from opsd.settings import load

UNITS = Path(__file__).parents[2] / "systemd"
#: The most exposure that each unit may have, by 'systemd-analyze security'. Hooks may do anything, and a restore writes anywhere.
MOST = {"worker": 1.6, "daemon": 1.2, "drill": 0.5, "upkeep": 1.2, "owner": 1.7, "failure@": 1.2}
FAR = """
version: 1
repository: /srv/backups
sources: {shop: {postgresql: {host: db.example}}}
copies: {paris: {sftp: {host: h, user: u, path: /x, key: {credential: k}, known_hosts: /etc/opsd/known_hosts}}}
"""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze: package systemd")


def exposure(path: Path) -> float:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.parametrize("name", MOST)
def test_a_unit_has_no_more_power_than_was_promised(name: str) -> None:
    assert exposure(UNITS / f"opsd-{name}.service") <= MOST[name]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, starting a program that is there."""
    for path in UNITS.glob("opsd-*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/opsd", "/bin/true"))
    return tmp_path


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path) -> None:
    units = [str(path) for path in installed.glob("opsd-*")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_nothing_wrong_with_the_drop_ins_of_a_configuration(installed: Path) -> None:
    configuration = installed / "opsd.yaml"
    configuration.write_text(FAR)
    written = sandbox.write(load(configuration), installed)
    assert len(written) == 4
    units = [str(installed / path.parent.name.removesuffix(".d")) for path in written]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def option(unit: str, name: str) -> list[str]:
    lines = (UNITS / unit).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


def test_each_service_has_its_socket_and_its_command() -> None:
    for name in set(SERVICES.values()):
        assert option(f"opsd-{name}.socket", "ListenStream") == [f"/run/opsd/{name}.sock"]
        assert option(f"opsd-{name}.service", "ExecStart") == [f"/usr/bin/opsd serve {name}"]
        assert option(f"opsd-{name}.service", "OnFailure") == ["opsd-failure@%n.service"]


def test_only_root_may_ask_for_a_restore_and_only_opsd_for_the_rest() -> None:
    for name in set(SERVICES.values()):
        asked_by = ("root", "0600") if name == "restore" else ("opsd", "0660")
        socket = f"opsd-{name}.socket"
        assert (option(socket, "SocketGroup")[0], option(socket, "SocketMode")[0]) == asked_by


def test_what_reads_every_file_has_no_network_and_what_has_one_reads_nothing() -> None:
    assert option("opsd-worker.service", "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH"]
    assert option("opsd-worker.service", "PrivateNetwork") == ["yes"]
    for name in ("upkeep", "daemon", "failure@"):
        assert option(f"opsd-{name}.service", "CapabilityBoundingSet") == [""]
        assert option(f"opsd-{name}.service", "AmbientCapabilities") == []


def test_only_the_owner_and_root_s_units_may_become_another_user() -> None:
    able = {
        path.name
        for path in UNITS.glob("*.service")
        if any("CAP_SETUID" in each for each in option(path.name, "CapabilityBoundingSet"))
    }
    assert able == {"opsd-owner.service", "opsd-restore.service"}


def test_nothing_that_is_backed_up_is_hidden_from_who_reads_it() -> None:
    for name in ("worker", "owner"):
        hiding = [
            line
            for line in (UNITS / f"opsd-{name}.service").read_text().splitlines()
            if line.startswith(
                (
                    "PrivateTmp=yes",
                    "ProtectHome=yes",
                    "ProtectHome=tmpfs",
                    "PrivateUsers=yes",
                    "InaccessiblePaths=",
                    "TemporaryFileSystem=",
                )
            )
        ]
        assert hiding == []


def test_the_services_run_as_a_user_that_sysusers_makes(tmp_path: Path) -> None:
    assert "u opsd " in (UNITS / "sysusers.d" / "opsd.conf").read_text()
    for path in UNITS.glob("*.service"):
        expected = [] if path.name in {"opsd-hooks.service", "opsd-restore.service"} else ["opsd"]
        assert option(path.name, "User") == expected
    if shutil.which("systemd-tmpfiles"):
        lines = (UNITS / "tmpfiles.d" / "opsd.conf").read_text().replace(" opsd", " root")
        (tmp_path / "opsd.conf").write_text(lines)
        command = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(tmp_path / "opsd.conf")]
        subprocess.run(command, check=True, capture_output=True)
        assert (tmp_path / "run" / "opsd").stat().st_mode & 0o7777 == 0o1775
