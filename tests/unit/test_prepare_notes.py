"""The solo ratio and the solo parts, exactly, on notes made by hand. No torch, no Basic Pitch."""

from __future__ import annotations

import numpy as np
import pytest

from timbre_ray.data.prepare.notes import activity, highest_ratio, solo_parts, solo_ratio


@pytest.mark.parametrize(
    ("notes", "ratio"),
    [
        ([(0, 1)], 1.0),
        ([(0, 1), (1, 2), (5, 6)], 1.0),  # one after the other, a rest between: rests do not count
        ([(0, 2), (0, 2)], 2.0),  # two voices all the time
        ([(0, 2), (1, 3)], 4 / 3),
        ([(0, 4), (1, 2), (3, 5)], 7 / 5),
        ([(0, 3), (0, 3), (0, 3), (10, 13)], 2.0),
        ([(3, 5), (0, 4), (1, 2)], 7 / 5),  # in any order
    ],
)
def test_the_ratio_is_summed_durations_over_sounding_time(notes: list[tuple[float, float]], ratio: float) -> None:
    assert solo_ratio(notes) == pytest.approx(ratio, rel=1e-12)


def test_without_notes_there_is_no_ratio() -> None:
    assert solo_ratio([]) is None
    assert solo_ratio([(1, 1)]) is None
    assert np.isnan(activity([(0, 1)]).ratio(2, 3))


def test_a_note_that_ends_before_it_starts_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        activity([(2, 1)])


def test_the_ratio_of_a_part_cuts_notes_at_its_edges() -> None:
    heard = activity([(0, 4), (2, 6)])
    assert float(heard.ratio(0, 2)) == 1
    assert float(heard.ratio(2, 4)) == 2
    assert float(heard.ratio(1, 4)) == pytest.approx(5 / 3)
    assert heard.ratio(np.array([0, 3]), np.array([2, 5])).tolist() == [1, 1.5]


def test_a_duet_in_the_middle_leaves_the_solo_around_it() -> None:
    notes = [(0, 30), (10, 20)]  # the second voice sounds from 10 to 20 s
    before, after = solo_parts(activity(notes), 30, max_ratio=1.0, window_s=4)
    assert before == pytest.approx((0, 6.1), abs=0.11)  # the last window of 4 s that ends at 10 s
    assert before[1] <= 10 and after[0] >= 20
    assert after == pytest.approx((23.9, 30), abs=0.11)


def test_more_is_kept_with_a_higher_limit() -> None:
    heard = activity([(0, 30), (10, 20)])
    kept = [sum(end - start for start, end in solo_parts(heard, 30, max_ratio=limit, window_s=4)) for limit in (1.0, 1.5, 2.0)]
    assert kept[0] < kept[1] < kept[2] == 30


def test_the_most_crowded_window_is_found() -> None:
    heard = activity([(0, 30), (10, 20), (12, 13)])
    assert highest_ratio(heard, 0, 30, window_s=4) == pytest.approx(2.25)
    assert highest_ratio(heard, 12, 13, window_s=4) == 3
    assert np.isnan(highest_ratio(heard, 40, 50, window_s=4))


def test_rests_do_not_end_a_part() -> None:
    assert solo_parts(activity([(0, 1), (19, 20)]), 20, max_ratio=1.2, window_s=4) == [(0, 20)]


def test_one_voice_is_solo_under_the_lowest_limit() -> None:
    notes = [(0.1 * i, 0.1 * (i + 1)) for i in range(300)]
    assert solo_parts(activity(notes), 30, max_ratio=1.0, window_s=4) == [(0, 30)]


def test_a_song_shorter_than_the_window_is_judged_as_a_whole() -> None:
    assert solo_parts(activity([(0, 2), (0, 1)]), 2, max_ratio=1.4, window_s=4) == []
    assert solo_parts(activity([(0, 2), (0, 1)]), 2, max_ratio=1.5, window_s=4) == [(0, 2)]
