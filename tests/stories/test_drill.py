"""A week's drill on the machine that holds the copy: killed with its server running, cleared, green, and red when it must be."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import Desk
from tests.support.postgresql import running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.postgresql]


def is_alive(process: int) -> bool:
    """Whether it runs, and is no more than waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_copy_is_proved_after_a_killed_drill_left_its_server_running(tmp_path: Path) -> None:
    host = Desk.at(tmp_path / "host")
    with running_cluster() as cluster:
        cluster.create("shop", "create table orders as select n as id from generate_series(1, 1000) n")
        sources = f"www: {{files: {{paths: [{host.tree()}]}}}}\nshop: {{postgresql: {{host: {cluster.host}, user: postgres}}}}"
        host = host.configured(sources, f"copies: {{there: {{folder: {tmp_path}/there}}}}")
        host.ok("init")
        host.ok("key", "generate", "drill")
        host.ok("key", "add", "--recipient", "drill.pub")
        host.ok("backup")
        host.ok("copy")
    os.mkfifo(tmp_path / "fifo")
    configuration = tmp_path / "opsd.yaml"
    configuration.write_text(
        f"state: {tmp_path}/state\npulls: {{web1: {{from: {{folder: /gone}}, to: {{folder: {tmp_path}/there}}}}}}\n"
        f"drill: {{scratch: {tmp_path}/scratch, key: {{file: {tmp_path}/host/drill}}, checks: [\n"
        "  {source: shop, database: shop, sql: 'select count(*) = 1000 from orders'},\n"
        f"  {{source: shop, command: [cat, {tmp_path}/fifo]}}]}}\n"
    )
    desk = Desk(folder=tmp_path, environment={"OPSD_CONFIG": str(configuration)})
    pipe = subprocess.DEVNULL
    with (
        subprocess.Popen(desk.command("drill"), env=desk.variables(), stdout=pipe, stderr=pipe) as process,
        (tmp_path / "fifo").open("w"),
    ):
        process.kill()
        process.wait()
    (left,) = (tmp_path / "scratch").glob("drill-*")
    server = int((left / "servers" / "shop" / "main" / "postmaster.pid").read_text().split()[0])
    assert is_alive(server)
    configuration.write_text(configuration.read_text().replace("cat", "test, -p"))

    ran = desk.run("drill", "--json")
    assert (ran.code, ran.json["verdict"], ran.json["copy"], ran.json["key"]) == (0, "green", "web1", "drill key"), ran
    assert not is_alive(server)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [".opsd-drill.lock"]
    ran = desk.run("drill", "--from", "web1", "--seed-failure")
    assert ran.code == 4
    assert "2 of 2 seeded faults found" in ran.text
    assert "public.orders has 999 rows instead of 1000" in ran.text
