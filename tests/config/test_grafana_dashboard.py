"""The dashboard for Grafana: whole, asking only what Prometheus understands and opsd tells, and showing all of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsd.monitor.metrics import METRICS
from tests.support.figures import metric_names

DASHBOARD = Path(__file__).parents[2] / "config/grafana/opsd.json"
#: What is told for rules and searches, and would be no picture.
NOT_SHOWN = {
    "opsd_updated_timestamp_seconds",
    "opsd_observed_timestamp_seconds",
    "opsd_state_begun_timestamp_seconds",
    "opsd_configuration_reload_success",
    "opsd_configuration_reload_success_timestamp_seconds",
    "opsd_drill_timestamp_seconds",
    "opsd_place_newest_snapshot_timestamp_seconds",
    "opsd_repository_created_timestamp_seconds",
}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def expressions() -> Iterator[str]:
    """All queries, with every host chosen."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$instance", ".*")


def test_it_is_of_a_form_that_grafana_reads() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 36  # The first with a data source by reference in each panel (Grafana 9).
    assert found["id"] is None  # Grafana gives one when it is imported.
    assert found["uid"]
    assert {each["name"] for each in found["templating"]["list"]} == {"datasource", "instance"}


def test_each_panel_has_an_id_and_a_place_of_its_own() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken.get((x, y))}"
                taken[x, y] = panel["title"]


def test_each_panel_says_what_it_shows_and_asks_the_chosen_prometheus() -> None:
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["type"] in {"stat", "timeseries", "table"}
        assert [each["refId"] for each in panel["targets"]] == list("ABCD"[: len(panel["targets"])])
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_it_shows_all_that_is_told_and_asks_for_nothing_else() -> None:
    asked = {name for expression in expressions() for name in metric_names(expression)}
    others = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
    assert asked - others == set(METRICS) - NOT_SHOWN


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is missing")
def test_prometheus_understands_each_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(expressions())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout
