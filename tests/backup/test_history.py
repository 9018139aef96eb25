"""What a source and its copy can't both have shown is named."""

from opsd.backup.history import History, Visit, disagreements

ONE, TWO = b"a" * 16, b"b" * 16


def shown(*numbers: int, dropped: tuple[int, ...] = (), unreadable: int = 0, writer: bytes = ONE) -> History:
    return History(
        snapshots={f"snapshots/{writer.hex()}-{number}": (writer, number) for number in numbers},
        notes={"notes/n": tuple((writer, number) for number in dropped)} if dropped else {},
        unreadable=unreadable,
    )


def found(now: Visit, before: Visit | None = None) -> list[str]:
    return list(disagreements(now, before or Visit()))


def test_an_even_history_is_silent() -> None:
    now = Visit(source=shown(1, 2, 3), target=shown(1, 2))
    assert found(now, Visit(source=shown(1, 2), target=shown(1))) == []


def test_what_prune_dropped_with_a_note_is_silent() -> None:
    before = Visit(source=shown(1, 2, 3), target=shown(1, 2, 3))
    assert found(Visit(source=shown(2, 3, 4, dropped=(1,)), target=shown(1, 2, 3)), before) == []
    assert found(Visit(source=shown(3, 4, dropped=(1, 2)), target=shown(3, dropped=(1, 2))), before) == []


def test_a_source_that_lost_what_it_showed_is_an_alarm() -> None:
    [text] = found(Visit(source=shown(1, 2)), Visit(source=shown(1, 2, 3)))
    assert "source shows an older state" in text
    assert "3 of writer" in text


def test_a_source_that_lacks_what_its_copy_holds_is_an_alarm_without_any_memory() -> None:
    [text] = found(Visit(source=shown(1, 2), target=shown(1, 2, 3)))
    assert "source shows an older state" in text


def test_a_copy_that_lost_what_it_held_is_an_alarm_though_the_source_still_has_it() -> None:
    [text] = found(
        Visit(source=shown(1, 2, 3), target=shown(1, 2)), Visit(source=shown(1, 2, 3), target=shown(1, 2, 3))
    )
    assert "the copy shows an older state" in text


def test_a_skipped_number_is_an_alarm_and_one_writer_explains_no_other() -> None:
    assert "missing in the source" in found(Visit(source=shown(1, 3)))[0]
    other = shown(1, 2, dropped=(2,), writer=TWO)
    assert len(found(Visit(source=shown(1, 3).joined(other), target=History()))) == 1


def test_a_number_used_twice_is_an_alarm_also_between_source_and_copy() -> None:
    forked = History(snapshots={**shown(1, 2).snapshots, "snapshots/other": (ONE, 2)})
    assert "bear one number" in found(Visit(source=forked))[0]
    texts = found(Visit(source=History(snapshots={"snapshots/other": (ONE, 1)}), target=shown(1)))
    assert any("bear one number" in text for text in texts)


def test_a_manifest_that_cant_be_read_may_bear_the_number_that_is_missing() -> None:
    assert found(Visit(source=shown(1, 3, unreadable=1)), Visit(source=shown(1, 2, 3))) == []


def test_a_history_is_remembered_as_it_was() -> None:
    history = shown(1, 2, dropped=(7,))
    assert History.from_json(history.as_json()) == history
