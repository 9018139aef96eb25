"""The Debian package that scripts/package builds: what is inside, and what dpkg will do with it."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from opsd.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
LIBRARY = "usr/lib/opsd/lib/python3.11/site-packages"

pytestmark = [
    pytest.mark.slow,
    # lintian alone takes a quarter of a minute of a processor.
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("dpkg-deb") is None or sys.version_info[:2] != (3, 11),
        reason="needs dpkg-deb and the Python of Debian 12",
    ),
]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has its own folder in the run's.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "package"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = sorted(folder.glob("*.deb"))
        if not built:
            subprocess.run([ROOT / "scripts" / "package", folder], check=True, stdin=subprocess.DEVNULL)
            built = sorted(folder.glob("*.deb"))
    return built[0]


@pytest.fixture
def unpacked(package: Path, tmp_path: Path) -> Path:
    """What it would install, and its control files in DEBIAN."""
    subprocess.run(["dpkg-deb", "-R", package, tmp_path / "root"], check=True)
    return tmp_path / "root"


def _fields(package: Path) -> Mapping[str, str]:
    shown = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if not line.startswith(" ")]
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def test_lintian_passes_the_package(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    said = subprocess.run(["lintian", "--allow-root", package], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_all_that_opsd_needs_is_inside_compiled_and_nothing_that_builds_it(package: Path, unpacked: Path) -> None:
    library = unpacked / LIBRARY
    # Also that what was stripped still loads: each of these has code of C or Rust, or stands on some.
    imports = "import apprise, blake3, boto3, opsd.cli.main, paramiko, psycopg, pyfastcdc, yaml, zstandard; psycopg.pq"
    code = f"import sys; sys.path.insert(0, {str(library)!r}); {imports}; print(yaml.__file__)"
    ran = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stderr, ran.stdout.strip()) == ("", str(library / "yaml" / "__init__.py"))
    assert (library / "opsd/cli/__pycache__/main.cpython-311.pyc").exists()
    assert (library / "opsd/rescue.py.txt").exists()
    assert not (library / "hatchling").exists()
    assert str(ROOT) not in (library / "opsd/cli/__pycache__/main.cpython-311.pyc").read_bytes().decode("latin-1")
    assert _fields(package)["Depends"].startswith("python3 (>= 3.11), python3 (<< 3.12)")


def test_each_command_has_a_man_page_and_each_shell_its_completion(unpacked: Path) -> None:
    pages = {page.name for page in (unpacked / "usr/share/man/man1").iterdir()}
    assert pages == {"opsd.1.gz", *(f"opsd-{name}.1.gz" for name in COMMANDS)}
    assert "_OPSD_COMPLETE=bash_complete" in (unpacked / "usr/share/bash-completion/completions/opsd").read_text()


def test_dpkg_asks_nothing_on_an_upgrade_for_the_configuration_is_the_sites_own(unpacked: Path) -> None:
    assert not (unpacked / "DEBIAN/conffiles").exists()
    assert [path.name for path in (unpacked / "etc/opsd").iterdir()] == ["conf.d"]
    assert (unpacked / "usr/share/doc/opsd/examples/opsd.yaml").exists()


def test_the_units_are_inside_and_those_that_wait_for_work_are_enabled(unpacked: Path) -> None:
    units = {path.name for path in (unpacked / "usr/lib/systemd/system").iterdir()}
    assert units == {path.name for path in (ROOT / "systemd").iterdir() if path.is_file()}
    enabled = {unit for unit in units if "[Install]" in (unpacked / "usr/lib/systemd/system" / unit).read_text()}
    for script in ("postinst", "prerm", "postrm"):
        text = (unpacked / "DEBIAN" / script).read_text()
        assert "@" not in text.replace("opsd-*", "")
        subprocess.run(["sh", "-n", unpacked / "DEBIAN" / script], check=True)
    postinst = (unpacked / "DEBIAN/postinst").read_text()
    assert {"opsd-daemon.service", "opsd-worker.socket"} <= enabled
    assert all(unit in postinst for unit in enabled)
    assert "restart opsd-daemon.service" in postinst
