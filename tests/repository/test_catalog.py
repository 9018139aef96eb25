"""What is there is read while a prune takes some of it."""

from dataclasses import replace
from pathlib import Path

from opsd.storage.memory import MemoryStore
from tests.support.pruning import Nights


class SweptBeside(MemoryStore):
    """With each look into a pack the next one goes, up to the last."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        later = [info.name for info in self.list("packs/") if info.name > name]
        if name.startswith("packs/") and later:
            self.delete(min(later))
        return super().read(name, offset, length)


def test_the_catalog_is_read_beside_a_sweep_however_many_packs_that_takes(tmp_path: Path) -> None:
    nights = Nights.new(tmp_path)
    nights.nights(20)
    for info in nights.store.list("index/"):
        nights.store.delete(info.name)  # A sweep begins with what the index says of the packs.
    store = SweptBeside(nights.clock, nights.store._objects)
    before = len(list(store.list("packs/")))
    catalog = replace(nights.world, store=store).open().catalog()
    left = {info.name for info in store.list("packs/")}
    assert len(left) < before - 5
    assert left <= {info.name for info in catalog.packs.values()}
