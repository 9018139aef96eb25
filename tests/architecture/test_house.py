"""The project keeps the rules of its house, and each rule sees a violation that was planted."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.architecture import house
from tests.architecture.house import Module

ROOT = Path(__file__).parents[2]
Rule = Callable[[Iterable[Module]], Iterator[str]]


@pytest.fixture(scope="module")
def package() -> list[Module]:
    return house.read(ROOT, "opsd")


@pytest.fixture(scope="module")
def suite() -> list[Module]:
    return house.read(ROOT, "tests")


def cryptography(modules: Iterable[Module]) -> Iterator[str]:
    return house.stray_cryptography(modules, house.CRYPTOGRAPHY_ALLOWED)


PACKAGE_RULES: list[Rule] = [
    house.wrong_directions,
    house.relative_imports,
    house.missing_docstrings,
    house.broken_budgets,
    house.prints,
    house.wall_clock_readings,
    cryptography,
]
TEST_RULES: list[Rule] = [house.relative_imports, house.missing_docstrings, house.poor_test_names, house.sleeps]


def name_of(rule: Rule) -> str:
    return getattr(rule, "__name__", "rule")


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=name_of)
def test_the_package_keeps_each_rule(rule: Rule, package: list[Module]) -> None:
    assert package
    assert list(rule(package)) == []


@pytest.mark.parametrize("rule", TEST_RULES, ids=name_of)
def test_the_tests_keep_each_rule(rule: Rule, suite: list[Module]) -> None:
    assert suite
    assert list(rule(suite)) == []


def test_every_module_that_may_touch_cryptography_exists_and_says_why(package: list[Module]) -> None:
    names = {module.name for module in package}
    for allowed, reason in house.CRYPTOGRAPHY_ALLOWED.items():
        assert allowed in names
        assert len(reason) > 10


def planted(root: Path, name: str, text: str) -> list[Module]:
    """Write one module into a tree of its own and read that tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return house.read(root, name.partition("/")[0])


LONG = "def f() -> None:\n" + "    pass\n" * 40
BRANCHY = "def f(n: int) -> None:\n" + "    if n:\n        n += 1\n" * 8
METHODS = "class C:\n" + "".join(f"    def m{n}(self) -> None: ...\n" for n in range(13))
MANY = "def f(self, a, b, c, d, *, e, f): ...\n"
MATCH = "def f(n):\n    match n:\n" + "".join(f"        case {n}:\n            pass\n" for n in range(8))

VIOLATIONS: list[tuple[Rule, str, str, str]] = [
    (
        house.wrong_directions,
        "opsd/storage/x.py",
        "from opsd.backup import pipeline\n",
        "storage may not import backup",
    ),
    (
        house.wrong_directions,
        "opsd/storage/x.py",
        "import opsd.events\nimport opsd.app\n",
        "storage may not import app",
    ),
    (house.wrong_directions, "opsd/backup/x.py", "from opsd import restore\n", "backup may not import restore"),
    (house.wrong_directions, "opsd/storage/x.py", "def f():\n    from opsd import cli\n", "storage may not import cli"),
    (house.wrong_directions, "opsd/misc.py", "", "no such room"),
    (house.relative_imports, "opsd/storage/x.py", "from .y import z\n", "relative import"),
    (house.missing_docstrings, "opsd/storage/x.py", "A = 1\n", "no docstring"),
    (house.broken_budgets, "opsd/storage/x.py", LONG, "f has 41 lines"),
    (house.broken_budgets, "opsd/storage/x.py", BRANCHY, "f has complexity 9"),
    (house.broken_budgets, "opsd/storage/x.py", MATCH, "f has complexity 9"),
    (house.broken_budgets, "opsd/storage/x.py", METHODS, "C has 13 public methods"),
    (house.broken_budgets, "opsd/storage/x.py", MANY, "f has 6 parameters"),
    (house.broken_budgets, "opsd/storage/x.py", "A = 1\n" * 401, "401 lines"),
    (house.prints, "opsd/storage/x.py", "print('hello')\n", "print below cli"),
    (house.wall_clock_readings, "opsd/storage/x.py", "import time\ntime.time()\n", "time.time outside"),
    (house.wall_clock_readings, "opsd/storage/x.py", "from time import time_ns\n", "time.time_ns outside"),
    (
        house.wall_clock_readings,
        "opsd/storage/x.py",
        "import datetime\ndatetime.datetime.now()\n",
        "datetime.now outside",
    ),
    (cryptography, "opsd/storage/x.py", "from cryptography import x509\n", "imports cryptography"),
    (house.poor_test_names, "tests/test_x.py", "def test_it(): ...\n", "no sentence"),
    (house.poor_test_names, "tests/test_x.py", "def testItIsGood_or_not_at_all(): ...\n", "no sentence"),
    (house.sleeps, "tests/test_x.py", "import time\ntime.sleep(1)\n", "sleeps"),
]


@pytest.mark.parametrize(("rule", "name", "text", "complaint"), VIOLATIONS)
def test_a_planted_violation_is_found_once(rule: Rule, name: str, text: str, complaint: str, tmp_path: Path) -> None:
    found = list(rule(planted(tmp_path, name, text)))
    assert len(found) == 1
    assert complaint in found[0]


ALLOWED: list[tuple[Rule, str, str]] = [
    (house.wrong_directions, "opsd/storage/x.py", "from opsd.storage import y\nfrom opsd.errors import OpsdError\n"),
    (house.wrong_directions, "opsd/verify/x.py", "import opsd\nimport opsd.restore.plan\n"),
    (house.broken_budgets, "opsd/storage/x.py", LONG.replace("None:", "None:  # budget: a table", 1)),
    (house.broken_budgets, "opsd/storage/x.py", METHODS.replace("C:", "C:  # budget: one face", 1)),
    (house.broken_budgets, "opsd/storage/x.py", MANY.replace("...", "...  # budget: a signature of others")),
    (house.broken_budgets, "opsd/storage/x.py", "# budget: generated table\n" + "A = 1\n" * 401),
    (house.broken_budgets, "opsd/storage/x.py", BRANCHY.replace("    if n:\n        n += 1\n", "", 1)),
    (house.prints, "opsd/cli/x.py", "print('hello')\n"),
    (house.wall_clock_readings, "opsd/storage/x.py", "import time\ntime.monotonic()\ntime.perf_counter_ns()\n"),
    (house.wall_clock_readings, "opsd/clock.py", "import time\ntime.time_ns()\n"),
    (cryptography, "opsd/repository/keys.py", "from cryptography import x509\n"),
    (house.poor_test_names, "tests/test_x.py", "def test_a_cut_upload_leaves_no_snapshot(): ...\n"),
]


@pytest.mark.parametrize(("rule", "name", "text"), ALLOWED)
def test_what_the_rules_allow_is_not_reported(rule: Rule, name: str, text: str, tmp_path: Path) -> None:
    assert list(rule(planted(tmp_path, name, text))) == []


def test_a_budget_exemption_without_a_reason_is_none(tmp_path: Path) -> None:
    text = LONG.replace("None:", "None:  # budget:", 1)
    assert len(list(house.broken_budgets(planted(tmp_path, "opsd/storage/x.py", text)))) == 1
