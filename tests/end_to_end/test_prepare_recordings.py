"""``data prepare`` on the real recordings beside the checkout, and with Basic Pitch itself where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from timbre_ray.clip_sets import find_files
from timbre_ray.data.prepare.decode import decode, find_songs
from timbre_ray.data.prepare.notes import solo_ratio
from timbre_ray.data.prepare.run import prepare
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.transcribe import Transcriber, load_basic_pitch
from timbre_ray.specs import ClipsSpec

SHARED_AUDIO = Path(__file__).parents[3] / "shared" / "audio"
pytestmark = pytest.mark.skipif(not SHARED_AUDIO.is_dir(), reason="the real recordings are not beside this checkout")


def test_sixteen_recordings_become_their_clips(tmp_path: Path) -> None:
    songs = find_songs([SHARED_AUDIO])
    manifest = prepare(songs, tmp_path / "out", PrepareSettings(solo_filter=False), transcriber=None)
    assert len(manifest.songs) == len(songs) == 16
    assert {song.sample_rate_hz for song in manifest.songs} == {16_000, 44_100, 48_000}
    files = find_files(ClipsSpec(path=str(tmp_path / "out")))
    assert {song.split for song in manifest.songs if song.split} == {"train", "held_out"}
    assert len(files.train) + len(files.held_out) == len(manifest.clips) >= 14
    assert all(soundfile.info(path).samplerate == 16_000 for path in (*files.train, *files.held_out))


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    pytest.importorskip("basic_pitch", reason="Basic Pitch is not installed")
    return load_basic_pitch()


def test_a_mixture_of_two_recordings_is_not_solo(transcriber: Transcriber) -> None:
    """Each alone stays within the default limit; both at once, equally loud, do not."""
    limit, parts = PrepareSettings().max_ratio, []
    for name in ("chinese_flute_2", "flute_0"):
        recording = decode(SHARED_AUDIO / f"{name}.wav")
        assert (solo_ratio(transcriber(recording.mono(), recording.rate_hz)) or 0) <= limit
        parts.append(recording.mono() / np.sqrt(np.mean(recording.mono() ** 2)))
    ratio = solo_ratio(transcriber((0.05 * (parts[0] + parts[1])).astype(np.float32), 44_100))
    assert ratio is not None and ratio > limit
