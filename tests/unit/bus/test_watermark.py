"""Only the contiguous prefix of what was fetched may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maypole.bus.watermark import Watermark


def test_nothing_is_committable_before_the_first_is_done() -> None:
    watermark = Watermark()
    for offset in (5, 6, 7):
        watermark.taken(offset)
    watermark.done(7)
    watermark.done(6)
    assert (watermark.position, watermark.uncommitted) == (None, False)
    watermark.done(5)
    assert (watermark.position, watermark.uncommitted) == (8, True)


@given(st.data())
def test_the_position_is_after_the_longest_finished_prefix(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 1000), min_size=1, max_size=30)))
    order = data.draw(st.permutations(offsets))
    watermark = Watermark()
    for offset in offsets:
        watermark.taken(offset)
    finished: set[int] = set()
    for offset in order:
        watermark.done(offset)
        finished.add(offset)
        prefix = []
        for candidate in offsets:
            if candidate not in finished:
                break
            prefix.append(candidate)
        assert watermark.position == (prefix[-1] + 1 if prefix else None)


@given(st.integers(1, 6), st.data())
def test_what_a_source_went_back_to_holds_nothing_up(count: int, data: st.DataObject) -> None:
    again = data.draw(st.integers(0, count - 1))
    taken = [*range(count), *range(again, count)]
    watermark = Watermark()
    for offset in taken:
        watermark.taken(offset)
    for offset in data.draw(st.permutations(taken)):
        watermark.done(offset)
    assert watermark.position == count
