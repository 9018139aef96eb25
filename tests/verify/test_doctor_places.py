"""Whether places can be written to, have room, and can't be emptied."""

import shutil
from pathlib import Path

import pytest

from opsd.clock import FixedClock
from opsd.errors import StoreReadOnly, StoreUnavailable
from opsd.model import SnapshotSummary
from opsd.storage.memory import MemoryStore
from opsd.verify import doctor_places
from opsd.verify.findings import Finding, State


def snapshot(added: int) -> SnapshotSummary:
    return SnapshotSummary(
        id="",
        name="",
        writer=b"",
        run=b"",
        sequence=0,
        started=0,
        ended=0,
        received=0,
        zone="",
        host="",
        job="all",
        tags=(),
        complete=True,
        sources=(),
        files=0,
        bytes=0,
        added_bytes=added,
        version="",
    )


class Refusing(MemoryStore):
    """A store that refuses to delete."""

    def __init__(self, error: Exception) -> None:
        super().__init__(FixedClock(0))
        self._error = error

    def delete(self, name: str) -> None:  # noqa: ARG002 - the protocol's
        raise self._error


def room(folder: Path, *added: int) -> Finding:
    (found,) = doctor_places.room("space", folder, [snapshot(each) for each in added])
    return found


def test_a_folder_that_is_gone_can_not_be_written_to(tmp_path: Path) -> None:
    assert list(doctor_places.folder_writable("state", tmp_path, "the folder")) == []
    (found,) = doctor_places.folder_writable("state", tmp_path / "gone", "the folder")
    assert found.state is State.FAILED
    assert found.next_step
    assert list(tmp_path.iterdir()) == []


def test_room_is_judged_by_what_nights_added_and_not_by_the_first(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    ample = shutil.disk_usage(tmp_path).free > shutil.disk_usage(tmp_path).total / 10
    assert room(tmp_path, 1, free * 2).state is State.FAILED
    assert room(tmp_path, 1, free // 4).state is State.WARNING
    assert room(tmp_path, free * 2, 1000).state is (State.OK if ample else State.WARNING)
    assert room(tmp_path, 1, free * 2, *[1000] * 7).state is (State.OK if ample else State.WARNING)


def test_an_account_that_may_delete_is_a_warning_and_deletes_nothing() -> None:
    store = MemoryStore(FixedClock(0))
    store.put("packs/00/x", b"here")
    (found,) = doctor_places.deletable("disk", store, locked=False)
    assert found.state is State.WARNING
    assert store.read("packs/00/x") == b"here"


def test_an_account_that_may_not_delete_is_well() -> None:
    (found,) = doctor_places.deletable("disk", Refusing(StoreReadOnly("permission denied")), locked=False)
    assert found.state is State.OK


def test_a_server_that_went_away_has_not_refused_to_delete() -> None:
    with pytest.raises(StoreUnavailable):
        list(doctor_places.deletable("disk", Refusing(StoreUnavailable("no answer")), locked=False))


def test_locked_objects_are_not_tried_to_be_deleted() -> None:
    (found,) = doctor_places.deletable("disk", Refusing(AssertionError()), locked=True)
    assert found.state is State.OK


def test_an_address_that_answers_nothing_has_no_clock() -> None:
    assert doctor_places.server_time("http://127.0.0.1:1/") is None
    assert doctor_places.server_time("nonsense") is None
