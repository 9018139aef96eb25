"""`drill:` becomes the drill's options, and what can't be right about it is a mistake with its line."""

from pathlib import Path

import pytest

from opsd.errors import ConfigurationError
from opsd.settings import load
from opsd.verify.options import DrillCheck, DrillSettings, tolerance

LEAST = """\
repository: /r
sources: {shop: {postgresql: {}}, crm: {sqlite: {path: /a}}, www: {files: {paths: [/w]}}}
"""
FACE = (
    LEAST
    + """\
drill: {scratch: /var/lib/opsd/scratch, recovery_time: 4h, recovery_point: 25h, key: {credential: N},
  checks: [{source: shop, database: crm, sql: "select count(*) > 0 from users"}, {command: [a, b]},
    {source: crm, sql: select 1, live: 5%, timeout: 1m}]}
"""
)
CHECKS = LEAST + "drill:\n  checks:\n    - "


def test_all_that_can_be_said_of_a_drill_reaches_it(tmp_path: Path) -> None:
    path = tmp_path / "opsd.yaml"
    path.write_text(FACE)
    assert load(path).drill == DrillSettings(
        scratch=Path("/var/lib/opsd/scratch"),
        recovery_time=4 * 3600.0,
        recovery_point=25 * 3600.0,
        key={"credential": "N"},
        checks=(
            DrillCheck(source="shop", database="crm", sql="select count(*) > 0 from users"),
            DrillCheck(command=("a", "b")),
            DrillCheck(source="crm", sql="select 1", live="5%", timeout=60.0),
        ),
    )


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{}", "exactly one of sql and command is required"),
        ("{command: [a], sql: select 1, source: crm}", "exactly one of sql and command is required"),
        ("{sql: select 1}", "sql needs the source that it asks"),
        ("{command: [a], live: 5%}", "live goes with sql"),
        ("{source: shpo, command: [a]}", "source: no such source, did you mean shop?"),
        ("{source: shop, sql: select 1}", "this check needs 'database'"),
        ("{source: crm, database: x, sql: select 1}", "is one SQLite database"),
        ("{source: www, sql: select 1}", "www is no database"),
        ("{source: crm, sql: select 1, live: much}", "expected how far apart"),
    ],
)
def test_a_check_that_can_ask_nothing_is_a_mistake(text: str, mistake: str, tmp_path: Path) -> None:
    path = tmp_path / "opsd.yaml"
    path.write_text(CHECKS + text + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert any(mistake in line and "drill.checks[0]" in line for line in caught.value.mistakes), caught.value.mistakes


def test_a_tolerance_is_a_number_or_a_share() -> None:
    assert tolerance("100") == (100, False)
    assert tolerance("2.5%") == (0.025, True)
