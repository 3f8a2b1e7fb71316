"""Cutting at silences, levels, clipping, the split by songs and the settings' limits, exactly. No torch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from timbre_ray.data.prepare import cutting, quality
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.split import split_songs


def mask(*lengths: int) -> NDArray[np.bool_]:
    """Frames that sound, then such that do not, and so on."""
    return np.concatenate([np.full(length, i % 2 == 0) for i, length in enumerate(lengths)])


def cut(audible: NDArray[np.bool_], longest: int = 100, shortest: int = 50) -> list[tuple[int, int]]:
    return cutting.cut_part(audible, (0, len(audible)), longest=longest, shortest=shortest)


def test_a_piece_ends_at_the_last_silence_that_fits() -> None:
    assert cut(mask(60, 10, 25, 10, 80)) == [(0, 95), (105, 185)]


def test_music_without_silence_is_cut_at_the_full_length() -> None:
    assert cut(mask(250)) == [(0, 100), (100, 200), (200, 250)]


def test_a_silence_that_would_leave_too_little_is_passed() -> None:
    assert cut(mask(20, 10, 170)) == [(0, 100), (100, 200)]


def test_the_last_moment_of_a_cut_sound_starts_no_piece() -> None:
    assert cut(mask(105, 20, 60)) == [(0, 100), (125, 185)]


def test_a_short_phrase_before_a_long_rest_stands_alone() -> None:
    assert cut(mask(20, 200, 60)) == [(0, 20), (220, 280)]


def test_silence_at_the_ends_is_left_out() -> None:
    assert cut(mask(0, 30, 60, 30)) == [(30, 90)]
    assert cut(mask(0, 30)) == []


def test_only_the_part_is_cut() -> None:
    assert cutting.cut_part(mask(300), (120, 200), longest=100, shortest=50) == [(120, 200)]


def test_pieces_never_overlap_and_never_exceed_the_length() -> None:
    audible = np.random.default_rng(0).random(5000) > 0.02
    pieces = cut(cutting.sounds(audible))
    assert all(0 < end - start <= 100 for start, end in pieces)
    assert all(a[1] <= b[0] for a, b in zip(pieces, pieces[1:], strict=False))


def test_long_silences_are_named() -> None:
    assert cutting.silences(mask(10, 60, 10, 20), (0, 100), shortest=50) == [(10, 70)]


def test_sounds_get_room_for_attack_and_end_and_short_gaps_are_filled() -> None:
    audible = cutting.sounds(mask(0, 50, 10, 10, 10, 50))
    assert cutting.runs(audible) == [(48, 85)]
    assert cutting.runs(cutting.sounds(mask(0, 50, 10, 30, 10, 50))) == [(48, 65), (88, 105)]


def test_levels_are_rms_in_decibels() -> None:
    waveform = np.concatenate([np.full(160, 0.1), np.zeros(160), np.full(80, 1.0)]).astype(np.float32)
    levels = quality.frame_levels(waveform, 160)
    assert levels.tolist() == pytest.approx([-20, -200, 0], abs=1e-5)


def test_silence_is_relative_to_the_loud_moments_but_never_below_the_floor() -> None:
    assert quality.silence_threshold(np.full(100, -10.0), 40) == -50
    assert quality.silence_threshold(np.full(100, -35.0), 40) == quality.FLOOR_DBFS


def test_three_samples_in_a_row_at_full_scale_are_clipping() -> None:
    samples = np.zeros((20, 2), dtype=np.float32)
    samples[2:4, 0] = 1.0  # two: a loud peak
    samples[8:11, 1] = -1.0  # three, in one channel
    assert np.flatnonzero(quality.clipped(samples)).tolist() == [8, 9, 10]
    samples[9, 1] = 1.0  # from one rail to the other is clipping as well
    assert quality.clipped(samples).sum() == 3
    assert quality.clipped(np.ones((2, 1), dtype=np.float32)).tolist() == [False, False]


def test_whole_songs_are_held_out_whatever_their_order() -> None:
    songs = [f"{i:064x}" for i in range(8)]
    split = split_songs(songs, held_out=0.25, seed=0)
    assert sorted(split.values()) == ["held_out"] * 2 + ["train"] * 6
    assert split_songs(songs[::-1], held_out=0.25, seed=0) == split
    assert any(split_songs(songs, held_out=0.25, seed=seed) != split for seed in range(1, 5))


@pytest.mark.parametrize(
    ("num", "held_out", "expected"), [(1, 0.25, 0), (2, 0.25, 1), (2, 0.9, 1), (5, 0.25, 2), (5, 0.0, 0), (0, 0.25, 0)]
)
def test_at_least_one_song_stays_to_train_on(num: int, held_out: float, expected: int) -> None:
    split = split_songs([str(i) for i in range(num)], held_out=held_out, seed=0)
    assert list(split.values()).count("held_out") == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip_s": 0.5}, "--clip-seconds 0.5"),
        ({"min_s": 11.0}, "--min-seconds 11"),
        ({"max_ratio": 0.9}, "--max-ratio 0.9"),
        ({"silence_db": -40}, "--silence-db -40"),
        ({"max_similarity": 1.1}, "--max-similarity 1.1"),
        ({"held_out": 1.0}, "--held-out 1"),
    ],
)
def test_a_setting_out_of_bounds_is_named(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrepareSettings(**changes)
