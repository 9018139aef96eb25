"""Objects on their way from one store to another."""

from datetime import UTC
from hashlib import sha256
from pathlib import Path

import pytest

from opsd.backup.limits import Throttle
from opsd.backup.transfers import Spool, Transfers
from opsd.clock import FixedClock
from opsd.errors import ObjectNotFound
from opsd.storage.memory import MemoryStore
from tests.support.engine import START


def test_what_vanishes_is_told_once_all_else_was_brought(tmp_path: Path) -> None:
    clock = FixedClock(START)
    source, target = MemoryStore(clock), MemoryStore(clock)
    for number in range(20):
        content = b"%d" % number
        source.put(f"packs/ab/{sha256(content).hexdigest()}", content)
    infos = list(source.list("packs/"))
    for info in infos[::3]:
        source.delete(info.name)
    spool = Spool(folder=tmp_path, stem="copy")
    transfers = Transfers(source=source, target=target, spool=spool, throttle=Throttle((), UTC, clock))
    with pytest.raises(ObjectNotFound):
        list(transfers.bring(infos, lambda _: False))
    assert {info.name for info in target.list("")} == {info.name for info in source.list("")}
