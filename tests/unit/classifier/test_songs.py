"""Folders of songs: windows that sound, read one at a time, and a split that no song straddles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from instruments import HEARD, RATE_HZ, sound

from timbre_ray.clip_sets import ClipError
from timbre_ray.data.features import normalise_waveform
from timbre_ray.data.prepare.run import prepare
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.recordings import DatasetError, Window, read_window, sounding_windows
from timbre_ray.data.songs import find_songs, songs_of, split_songs


def write_songs(folder: Path, num: int, num_windows: int = 2) -> Path:
    folder.mkdir(parents=True)
    for i in range(num):
        soundfile.write(folder / f"{i}.wav", sound("flute", i, num_windows * HEARD), RATE_HZ, subtype="FLOAT")
    return folder


def prepared(songs: Path, out: Path, clip_s: float) -> Path:
    prepare(sorted(songs.iterdir()), out, PrepareSettings(clip_s=clip_s, solo_filter=False, max_similarity=1), transcriber=None)
    return out


def test_a_window_is_read_alone(tmp_path: Path) -> None:
    path = write_songs(tmp_path / "a", 1, num_windows=3) / "0.wav"
    whole = torch.from_numpy(sound("flute", 0, 3 * HEARD))
    for index in range(3):
        read = read_window(Window(path=path, label="flute", source="s", index=index), HEARD)
        assert torch.equal(read, normalise_waveform(whole[index * HEARD : (index + 1) * HEARD]))


def test_any_rate_and_channels(tmp_path: Path) -> None:
    time_s = np.arange(44_100 * 2) / 44_100
    wave = 0.5 * np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(tmp_path / "a.flac", np.stack([wave, np.zeros_like(wave)], 1), 44_100)
    read = read_window(Window(path=tmp_path / "a.flac", label="x", source="s"), HEARD)
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(HEARD) / RATE_HZ)
    assert read.shape == (HEARD,) and float((read - tone)[200:-200].abs().max()) < 0.01


def test_silent_windows_and_short_rests_are_left_out(tmp_path: Path) -> None:
    tone, silence = sound("flute", 0), np.zeros(HEARD, np.float32)
    for rest, expected in ((HEARD // 4, [0, 2]), (HEARD // 2, [0, 2, 3])):
        soundfile.write(tmp_path / "song.wav", np.concatenate([tone, silence, tone, tone[:rest]]), RATE_HZ)
        assert sounding_windows(tmp_path / "song.wav", HEARD) == expected
    soundfile.write(tmp_path / "short.wav", tone[:4000], RATE_HZ)
    assert sounding_windows(tmp_path / "short.wav", HEARD) == [0]
    padded = read_window(Window(path=tmp_path / "short.wav", label="x", source="s"), HEARD)
    assert padded.shape == (HEARD,)


def test_an_offset_is_no_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.concatenate([sound("flute", 0), np.zeros(HEARD, np.float32)]) + 0.01, RATE_HZ)
    assert sounding_windows(tmp_path / "a.wav", HEARD) == [0]
    with pytest.raises(ClipError, match="window 1 of 'flute' is silent"):
        read_window(Window(path=tmp_path / "a.wav", label="flute", source="s", index=1), HEARD)


def test_what_cannot_be_heard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(ClipError, match=r"a\.wav: cannot be read as audio"):
        sounding_windows(tmp_path / "a.wav", HEARD)
    soundfile.write(tmp_path / "b.wav", np.zeros(HEARD), RATE_HZ)
    with pytest.raises(ClipError, match=r"b\.wav: window 0 of 'flute' is silent; take the file out"):
        read_window(Window(path=tmp_path / "b.wav", label="flute", source="s"), HEARD)


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_a_file_that_is_damaged_in_the_middle_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, sound("flute", 0, 4 * HEARD), RATE_HZ)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(3000) + content[half + 3000 :])
    words = rf"a\{suffix}: cannot be read to its end \(.*; convert it again from its source, or take it out of the data set"
    with pytest.raises(ClipError, match=words):
        sounding_windows(path, HEARD)
    with pytest.raises(ClipError, match=words):
        for index in range(4):
            read_window(Window(path=path, label="flute", source="s", index=index), HEARD)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    samples = sound("flute", 0, 2 * HEARD)
    samples[HEARD + 5] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"a\.wav: window 1 has samples that are not finite; take the file out of the data set"):
        sounding_windows(tmp_path / "a.wav", HEARD)


def test_no_song_is_on_two_sides(tmp_path: Path) -> None:
    songs = find_songs([("chinese flute", write_songs(tmp_path / "flute", 10, num_windows=3))])
    splits = split_songs(songs)
    assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 6 + ["valid"] * 2
    chosen = {split: songs_of(songs, split, splits) for split in ("train", "valid", "test")}
    windows = {split: [w for song in own for w in song.windows(HEARD)] for split, own in chosen.items()}
    assert {split: len(own) for split, own in windows.items()} == {"test": 6, "valid": 6, "train": 18}
    sources = {split: {w.source for w in own} for split, own in windows.items()}
    assert not sources["train"] & (sources["test"] | sources["valid"]) and not sources["test"] & sources["valid"]


def test_a_song_is_its_content(tmp_path: Path) -> None:
    folder = write_songs(tmp_path / "flute", 4)
    before = split_songs(find_songs([("flute", folder)]))
    (folder / "0.wav").rename(folder / "renamed.wav")
    (folder / "copy.wav").write_bytes((folder / "1.wav").read_bytes())
    assert split_songs(find_songs([("flute", folder)])) == before, "neither a name nor a copy matters"
    other = tmp_path / "lute"
    other.mkdir()
    (other / "2.wav").write_bytes((folder / "2.wav").read_bytes())
    with pytest.raises(DatasetError, match="the same recording is 'flute' in .* and 'lute' here"):
        find_songs([("flute", folder), ("lute", other)])


def test_a_folder_within_is_one_song(tmp_path: Path) -> None:
    folder = write_songs(tmp_path / "flute", 2)
    write_songs(folder / "long song", 3)
    (folder / "notes.txt").write_text("not audio")
    songs = find_songs([("flute", folder)])
    assert sorted(len(song.files) for song in songs) == [1, 1, 3]


def test_a_prepared_folder_says_which_song_a_clip_is_of(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 3, num_windows=8)
    folder = prepared(songs, tmp_path / "prepared", clip_s=2.0)
    found = find_songs([("flute", folder)])
    assert len(found) == 3 and all(len(song.files) > 1 for song in found)
    whole = {song.digest for song in find_songs([("flute", songs)])}
    assert {song.digest for song in found} == whole, "a song is the file that it was cut from"
    again = find_songs([("flute", prepared(songs, tmp_path / "again", clip_s=1.0))])
    assert {song.digest for song in again} == whole and len(again[0].files) > len(found[0].files)
    found[0].files[0].unlink()
    with pytest.raises(DatasetError, match=r"manifest\.json: .*: no such file; put it back, or say that you took it out"):
        find_songs([("flute", folder)])
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"manifest\.json: .*prepare the folder again"):
        find_songs([("flute", folder)])


def test_a_song_that_training_never_met_is_a_test_song(tmp_path: Path) -> None:
    folder = write_songs(tmp_path / "flute", 3)
    known = split_songs(find_songs([("flute", folder)]))
    soundfile.write(folder / "new.wav", sound("bass", 0), RATE_HZ)
    songs = find_songs([("flute", folder)])
    test = list(songs_of(songs, "test", known))
    assert len(test) == 2 and (folder / "new.wav",) in [song.files for song in test]
    assert len(list(songs_of(songs, "train", known))) == 1


def test_too_few_songs_are_refused(tmp_path: Path) -> None:
    songs = find_songs([("lute", write_songs(tmp_path / "lute", 2))])
    with pytest.raises(DatasetError, match="'lute': 2 songs in .*; splitting by song needs three"):
        split_songs(songs)
    with pytest.raises(DatasetError, match="lute=.*absent: no such folder"):
        find_songs([("lute", tmp_path / "absent")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no recording in it"):
        find_songs([("lute", tmp_path / "empty")])


def test_a_later_window_of_another_rate_is_where_it_says(tmp_path: Path) -> None:
    t = np.arange(3 * 44_100) / 44_100
    tone = np.where(t < 2, np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 2000 * t))
    soundfile.write(tmp_path / "a.wav", np.where(t < 1, 0.0, 0.5 * tone), 44_100)
    assert sounding_windows(tmp_path / "a.wav", 16_000) == [1, 2]
    for index, hz in ((1, 440), (2, 2000)):
        window = read_window(Window(path=tmp_path / "a.wav", label="x", source="s", index=index), 16_000)
        assert int(torch.fft.rfft(window).abs().argmax()) == pytest.approx(hz, abs=2)
