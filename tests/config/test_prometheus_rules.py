"""The alert rules: each fires when it should and not before, knows metrics that there are, and links to what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from opsd.monitor.metrics import METRICS
from tests.config.rules import FOLDER, alert_of, broken, cases, passing, rules
from tests.support.figures import metric_names

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing")

#: Changes by one second, one byte or half a run, and 0 as "never", which these tests, that begin at the time 0, can't tell from long ago.
HARMLESS = {
    "OpsdJobMissed--at-54-more",
    "OpsdPaused--at-47-more",
    "OpsdRecoveryPointOld--at-67-less",
    "OpsdRecoveryPointOld--at-67-more",
    "OpsdRecoveryPointUnverified--at-91-less",
    "OpsdRecoveryPointUnverified--at-91-more",
    "OpsdSpaceLow--at-60-less",
    "OpsdSpaceLow--at-60-more",
}


def anchors() -> dict[str, str]:
    """The sections of the runbook by the anchor that a page made of it has."""
    sections = re.split(r"^## ", Path("docs/runbook.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {_anchor(section.partition("\n")[0]): section for section in sections}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_there_are_at_least_twenty_rules_and_promtool_likes_them() -> None:
    assert len(rules()) >= 20
    subprocess.run(["promtool", "check", "rules", FOLDER / "rules.yml"], check=True, capture_output=True)


def test_each_rule_says_how_soon_and_what_to_do() -> None:
    for alert, rule in rules().items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, alert
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, alert


def test_each_rule_links_to_a_section_of_the_runbook() -> None:
    known = anchors()
    for alert, rule in rules().items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "file:///usr/share/doc/opsd/docs/runbook.md"
        assert anchor in known, alert
        assert alert in known[anchor] or not anchor.startswith("alert"), alert


def test_rules_and_their_tests_know_only_metrics_that_there_are() -> None:
    for alert, rule in rules().items():
        assert metric_names(rule["expr"]) - set(METRICS) - {"up"} <= {
            "process_start_time_seconds",
            "process_resident_memory_bytes",
        }, alert
    told = {each["series"].partition("{")[0] for case in cases()["tests"] for each in case["input_series"]}
    assert {name for name in told if name.startswith("opsd_")} <= set(METRICS)


def test_each_rule_has_a_case_in_which_it_is_quiet_and_one_in_which_it_fires() -> None:
    quiet: set[str] = set()
    loud: set[str] = set()
    for case in cases()["tests"]:
        alert = alert_of(case)
        for each in case["alert_rule_test"]:
            (loud if each["exp_alerts"] else quiet).add(alert)
    assert quiet == loud == set(rules())


def test_each_rule_alone_passes_its_tests(tmp_path: Path) -> None:
    assert passing(tmp_path, rules()) == set(rules())


@pytest.mark.slow
def test_all_rules_together_pass_all_tests() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", FOLDER / "rules.test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_rule_that_is_broken_in_any_way_fails_its_tests(tmp_path: Path) -> None:
    variants = {f"{alert}--{how}": other for alert, rule in rules().items() for how, other in broken(rule)}
    assert len(variants) > 250
    assert passing(tmp_path, variants) == HARMLESS
