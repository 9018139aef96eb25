"""A real Prometheus scrapes the daemon's page as docs/metrics.md says, loads the rules, and answers what the dashboard asks."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opsd.daemon.metrics_server import MetricsServer
from opsd.monitor.metrics import METRICS, Exposition
from tests.config.rules import FOLDER, rules
from tests.config.test_grafana_dashboard import expressions
from tests.support.figures import VIEW

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus (Debian: prometheus) is missing"),
]


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def api(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    exposition = Exposition()
    exposition.show(replace(VIEW, now=time.time_ns()))
    server = MetricsServer("127.0.0.1:0", exposition.text)
    server.start()
    port = _free_port()
    scrape = {
        "job_name": "opsd",
        "honor_labels": True,
        "scrape_interval": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}],
    }
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / "rules.yml")],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
    try:
        running = Prometheus(port)
        _wait_for_rules(running, process, folder / "log")
        yield running
    finally:
        process.kill()
        process.wait()
        server.stop()


def _wait_for_rules(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until two scrapes are in, and every rule was evaluated."""
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        with suppress(OSError):
            (scrapes,) = prometheus.query('count_over_time(up{job="opsd"}[1m])') or [{"value": [0, "0"]}]
            groups = prometheus.api("rules")["groups"]
            if int(scrapes["value"][1]) > 1 and all(
                each["health"] == "ok" for group in groups for each in group["rules"]
            ):
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)


def test_the_page_is_scraped_with_every_metric(prometheus: Prometheus) -> None:
    (up,) = prometheus.query("up")
    assert (up["metric"]["job"], up["value"][1]) == ("opsd", "1")
    assert {name for name in METRICS if not prometheus.query(name)} == set()
    (backup,) = prometheus.query('opsd_job_running{job="backup"}')
    assert "exported_job" not in backup["metric"]


def test_each_rule_can_be_evaluated_and_some_fire(prometheus: Prometheus) -> None:
    loaded = {each["name"]: each["health"] for group in prometheus.api("rules")["groups"] for each in group["rules"]}
    assert loaded == dict.fromkeys(rules(), "ok")
    firing = {each["metric"]["alertname"] for each in prometheus.query('ALERTS{alertstate="firing"}')}
    assert {"OpsdJobOverdue", "OpsdSnapshotsGone", "OpsdRetentionShort", "OpsdConfigurationRefused"} <= firing


def test_each_question_of_the_dashboard_is_answered(prometheus: Prometheus) -> None:
    silent = {expression for expression in expressions() if not prometheus.query(expression)}
    assert all(" > 0" in each or " == " in each or "rate(" in each for each in silent), silent
    assert len(silent) <= 4, silent
