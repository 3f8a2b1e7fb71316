"""``timbre-ray data prepare`` on songs made here, with notes given by hand instead of Basic Pitch's."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from melodies import RATE_HZ, melody, silence, write
from rich.console import Console
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.clip_sets import ClipError, find_files
from timbre_ray.data.clips import load_target
from timbre_ray.data.prepare import decode, picture
from timbre_ray.data.prepare.duplicates import Fingerprints, fingerprint, similarity
from timbre_ray.data.prepare.run import prepare
from timbre_ray.data.prepare.settings import PrepareSettings
from timbre_ray.data.prepare.song import judge_song
from timbre_ray.data.prepare.table import summary_table
from timbre_ray.manifest import Manifest, read_manifest
from timbre_ray.specs import ClipsSpec

SETTINGS = PrepareSettings(clip_s=2.56, solo_filter=False)
runner = CliRunner()


def prepared(tmp_path: Path, songs: list[Path], settings: PrepareSettings = SETTINGS, **options) -> Manifest:
    return prepare(songs, tmp_path / "out", settings, transcriber=None, **options)


def reasons(manifest: Manifest) -> list[str]:
    return [dropped.reason.partition(":")[0] for dropped in manifest.dropped]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_what_a_musician_has_is_decoded(tmp_path: Path, suffix: str) -> None:
    time = np.arange(44_100) / 44_100
    stereo = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros_like(time)], 1).astype(np.float32)
    recording = decode.decode(write(tmp_path / f"a{suffix}", 0.5 * stereo, 44_100))
    assert (recording.rate_hz, recording.num_channels) == (44_100, 2)
    mono = recording.mono_16_khz()
    assert len(mono) == pytest.approx(16_000, abs=800)  # an encoder may pad
    assert int(torch.fft.rfft(mono[:16_000]).abs().argmax()) == pytest.approx(440, abs=1)


def test_m4a_is_decoded_by_pyav(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32)
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    recording = decode.decode(tmp_path / "a.m4a")
    assert (recording.rate_hz, recording.num_channels) == (44_100, 1)
    assert int(torch.fft.rfft(recording.mono_16_khz()[:16_000]).abs().argmax()) == pytest.approx(440, abs=1)


def test_a_broken_m4a_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "broken.m4a").write_bytes(b"not audio")
    with pytest.raises(ClipError, match=r"broken\.m4a: cannot be read as audio"):
        decode.decode(tmp_path / "broken.m4a")


def test_m4a_without_pyav_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_has_pyav", lambda: False)
    (tmp_path / "a.m4a").write_bytes(b"")
    with pytest.raises(ClipError, match=r"a\.m4a: \.m4a needs PyAV, .*pip install av, or convert"):
        decode.find_songs([tmp_path])


def test_what_is_no_song_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.flac").write_bytes(b"not audio")
    with pytest.raises(ClipError, match=r"gone\.wav: no such file or folder"):
        decode.find_songs([tmp_path / "gone.wav"])
    with pytest.raises(ClipError, match=r"notes\.txt: \.txt is no kind of recording"):
        decode.find_songs([tmp_path / "notes.txt"])
    with pytest.raises(ClipError, match=r"broken\.flac: cannot be read as audio"):
        decode.decode(tmp_path / "broken.flac")
    with pytest.raises(ClipError, match=r"moment\.wav: shorter than 0\.1 s; take it out"):
        decode.decode(write(tmp_path / "moment.wav", melody(0, 0.05)))
    (tmp_path / "broken.flac").unlink()
    assert decode.find_songs([tmp_path, tmp_path / "moment.wav"]) == [tmp_path / "moment.wav"]


def test_songs_become_a_folder_that_a_sweep_takes(tmp_path: Path) -> None:
    songs = []
    for i in range(4):
        samples = np.concatenate([silence(0.5), melody(i, 2.4), silence(0.3), melody(10 + i, 2.4)])
        songs.append(write(tmp_path / f"{i}.flac", samples))
    manifest = prepared(tmp_path, songs)
    assert manifest == read_manifest(tmp_path / "out")
    assert [(clip.source, clip.start_s) for clip in manifest.clips[:2]] == [(str(songs[0]), 0.48), (str(songs[0]), 3.18)]
    files = find_files(ClipsSpec(path=str(tmp_path / "out")))
    assert (len(files.train), len(files.held_out)) == (6, 2)
    held = {clip.source for clip in manifest.clips if clip.split == "held_out"}
    assert len(held) == 1 and not held & {clip.source for clip in manifest.clips if clip.split == "train"}
    train, held_out = load_target(ClipsSpec(path=str(tmp_path / "out")), 40_960)
    assert (len(train), len(held_out)) == (6, 2)
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]


def test_a_clip_holds_the_samples_that_the_manifest_names(tmp_path: Path) -> None:
    samples = melody(3, 6.0)
    clip = prepared(tmp_path, [write(tmp_path / "a.wav", samples)]).clips[1]
    audio, rate_hz = soundfile.read(tmp_path / "out" / clip.file, dtype="float32")
    assert rate_hz == RATE_HZ
    start, end = round(clip.start_s * RATE_HZ), round(clip.end_s * RATE_HZ)
    assert np.abs(audio - (samples - samples.mean())[start:end]).max() < 1e-4


def test_silence_and_clipping_are_dropped_with_their_reasons(tmp_path: Path) -> None:
    loud = np.clip(8 * melody(1, 2.5), -1, 1)
    song = np.concatenate([melody(0, 2.5, level=0.2), silence(3.0), loud, silence(0.5), melody(2, 0.6)])
    manifest = prepared(tmp_path, [write(tmp_path / "a.flac", song)])
    assert len(manifest.clips) == 1
    assert reasons(manifest) == ["silence", "clipping", "too short"]
    assert manifest.dropped[2].reason.startswith("too short: 0.6") and manifest.dropped[2].reason.endswith("below 1.28 s")


def test_a_constant_offset_is_taken_away(tmp_path: Path) -> None:
    """A hundredth of full scale is 20 dB above what counts as silence."""
    song = np.concatenate([melody(0, 2.5), silence(3.0), melody(1, 2.5)])
    plain = prepared(tmp_path, [write(tmp_path / "a.flac", song)])
    (tmp_path / "out").rename(tmp_path / "plain")
    shifted = prepared(tmp_path, [write(tmp_path / "b.flac", song + 0.01)])
    assert reasons(shifted) == reasons(plain) == ["silence"]
    assert [(clip.start_s, clip.end_s) for clip in shifted.clips] == [(clip.start_s, clip.end_s) for clip in plain.clips]
    for one, other in zip(shifted.clips, plain.clips, strict=True):
        samples, expected = soundfile.read(tmp_path / "out" / one.file)[0], soundfile.read(tmp_path / "plain" / other.file)[0]
        assert np.abs(samples - expected).max() < 1e-4


def test_clipping_is_judged_on_the_file_as_it_is(tmp_path: Path) -> None:
    loud = np.clip(8 * melody(1, 2.5) + 0.1, -1, 1)
    judged = judge_song(tmp_path, decode.decode(write(tmp_path / "a.flac", loud)), SETTINGS, None)
    assert [piece.reason.partition(":")[0] for piece in judged.pieces] == ["clipping"]


def test_a_second_copy_is_dropped_though_another_encoding_and_gain(tmp_path: Path) -> None:
    samples = melody(5, 2.5)
    songs = [write(tmp_path / "a.flac", samples), write(tmp_path / "b.mp3", 0.5 * samples)]
    manifest = prepared(tmp_path, [*songs, write(tmp_path / "c.flac", melody(6, 2.5))])
    assert [Path(clip.source).name for clip in manifest.clips] == ["a.flac", "c.flac"]
    assert manifest.dropped[0].reason.startswith("duplicate: of a.flac at 0.00 s, cosine 0.9")


def test_similarity_is_one_for_the_same_and_small_for_another(tmp_path: Path) -> None:
    one, other = (fingerprint(torch.from_numpy(melody(seed, 2.5)), 40_960) for seed in (1, 2))
    same, different = similarity(one, torch.stack([one, other])).tolist()
    assert same == pytest.approx(1, abs=1e-5)
    assert different < 0.6


def test_similarity_is_the_largest_product_over_shifts() -> None:
    """Against the formula shift by shift, in double precision."""
    real = [fingerprint(torch.from_numpy(melody(seed, 2.5)), 40_960) for seed in range(4)]
    real.append(fingerprint(torch.from_numpy(np.concatenate([silence(0.1), melody(0, 2.4)])), 40_960))
    drawn = torch.randn(5, 128, 32, generator=torch.Generator().manual_seed(0))
    for prints in (torch.stack(real), drawn):
        for one in prints:
            expected = shifted_products(one.double(), prints.double())
            assert similarity(one, prints).double().sub(expected).abs().max() < 1e-5


def shifted_products(one: torch.Tensor, others: torch.Tensor, max_shift: int = 10) -> torch.Tensor:
    frames, products = len(one), []
    for shift in range(-max_shift, max_shift + 1):
        ours, theirs = one[max(0, shift) : frames + min(0, shift)], others[:, max(0, -shift) : frames - max(0, shift)]
        products.append((ours * theirs).sum((1, 2)))
    return torch.stack(products).amax(0) / (one.norm() * others.flatten(1).norm(dim=1))


def test_any_number_of_clips_is_remembered() -> None:
    known, prints = Fingerprints(), torch.randn(50, 8, 32, generator=torch.Generator().manual_seed(0))
    assert known.nearest(prints[0]) is None
    for number, print_ in enumerate(prints):
        known.add(str(number), print_)
        assert known.nearest(prints[number // 2]) == (str(number // 2), pytest.approx(1))


def test_only_the_solo_part_is_kept(tmp_path: Path) -> None:
    song = write(tmp_path / "a.flac", melody(0, 20.0))
    notes = np.array([[0.0, 20.0], [10.0, 20.0]])  # a second voice from 10 s on
    settings = PrepareSettings(clip_s=2.56)
    judged = judge_song(song, decode.decode(song), settings, lambda samples, rate_hz: notes)
    assert judged.ratio == pytest.approx(1.5)
    assert judged.kept and all(piece.end_s <= 8 and piece.ratio == 1 for piece in judged.kept)
    assert judged.dropped[-1].reason == "not solo: ratio up to 2.00 over 4 s, limit 1.4"
    assert judged.dropped[-1].end_s == 20.0


def test_a_song_without_notes_is_dropped_as_such(tmp_path: Path) -> None:
    song = write(tmp_path / "a.flac", melody(0, 5.0))
    judged = judge_song(song, decode.decode(song), PrepareSettings(clip_s=2.56), lambda samples, rate_hz: np.empty((0, 2)))
    assert judged.ratio is None and not judged.kept
    assert [piece.reason for piece in judged.dropped] == ["no note: Basic Pitch hears none"]


def test_loudness_is_that_of_the_standard(tmp_path: Path) -> None:
    """BS.1770-4: a sine of 997 Hz at full scale in one channel has -3.01 LUFS."""
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(int(2.56 * RATE_HZ)) / RATE_HZ).astype(np.float32)
    (clip,) = prepared(tmp_path, [write(tmp_path / "a.flac", tone)]).clips
    assert clip.loudness_lufs == pytest.approx(-23.01, abs=0.1)


@pytest.mark.parametrize("num_samples", [6010, 6056, 6080])
def test_the_shortest_clips_have_a_loudness(tmp_path: Path, num_samples: int) -> None:
    """A piece begins 20 ms before its sound; frames are rounded to 10 ms, the meter's block is 0.4 s."""
    song = np.concatenate([silence(0.5), melody(1, 1.0)[:num_samples]])
    settings = PrepareSettings(clip_s=2.56, min_s=0.4, solo_filter=False)
    judged = judge_song(tmp_path, decode.Recording(song[:, None], RATE_HZ), settings, None)
    assert judged.kept[0].loudness_lufs == pytest.approx(-16, abs=2)


def test_nothing_is_written_over_and_nothing_is_left_half(tmp_path: Path) -> None:
    song = write(tmp_path / "a.wav", melody(0, 2.5))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="out: is there already, and is not written over"):
        prepared(tmp_path, [song])
    (tmp_path / "out" / "mine.txt").unlink()

    def stop(song: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        prepared(tmp_path, [song], on_song=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "out"]
    assert not list((tmp_path / "out").iterdir())
    assert len(prepared(tmp_path, [song]).clips) == 1


def test_without_any_clip_the_reasons_are_counted(tmp_path: Path) -> None:
    songs = [write(tmp_path / "a.wav", melody(0, 1.0)), write(tmp_path / "b.wav", silence(5.0))]
    with pytest.raises(ValueError, match=r"no clip was kept, .*1 too short, 1 silence"):
        prepared(tmp_path, songs)
    assert not (tmp_path / "out").exists()


def test_songs_of_one_name_keep_apart(tmp_path: Path) -> None:
    for i, folder in enumerate(("x", "y")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a b.wav", melody(i, 2.5))
    manifest = prepared(tmp_path, [tmp_path / "x" / "a b.wav", tmp_path / "y" / "a b.wav"])
    assert sorted(Path(clip.file).name for clip in manifest.clips) == ["a-b-2_000.flac", "a-b_000.flac"]


def test_long_names_are_cut_to_what_a_file_system_takes(tmp_path: Path) -> None:
    songs = [write(tmp_path / folder / f"{'笛' * 83}.wav", melody(i, 2.5)) for i, folder in enumerate("xy")]
    manifest = prepared(tmp_path, songs)
    assert sorted(Path(clip.file).name for clip in manifest.clips) == [f"{'笛' * 77}-2_000.flac", f"{'笛' * 77}_000.flac"]
    assert {clip.source for clip in manifest.clips} == {str(song) for song in songs}


def test_chinese_names_are_drawn_with_the_fonts_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    picture.families.cache_clear()
    monkeypatch.setattr(picture.font_manager, "get_font_names", lambda: ["SimHei", "Noto Sans CJK SC", "Cantarell"])
    assert picture.families() == ["DejaVu Sans", "Noto Sans CJK SC", "SimHei"]
    picture.families.cache_clear()
    monkeypatch.setattr(picture.font_manager, "get_font_names", lambda: ["Cantarell"])
    prepared(tmp_path, [write(tmp_path / "笛.wav", melody(0, 2.5))])
    assert picture.families() == ["DejaVu Sans"] and not [w for w in recwarn if "Glyph" in str(w.message)]
    picture.families.cache_clear()


def test_names_are_neither_formulas_nor_markup(tmp_path: Path) -> None:
    song = write(tmp_path / r"a $\x_$ [bold] b.wav", melody(0, 2.5))
    manifest = prepared(tmp_path, [song, write(tmp_path / "copy.wav", 0.9 * melody(0, 2.5))])
    assert manifest.dropped[0].reason.startswith(r"duplicate: of a $\x_$ [bold] b.wav")
    console = Console(width=110, file=io.StringIO())
    console.print(summary_table(manifest))
    assert r"a $\x_$ [bold] b.wav" in console.file.getvalue()


def test_the_command_prints_a_table_and_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "flute.wav", melody(0, 6.0))
    command = ["data", "prepare", "flute.wav", "--out", "out", "--clip-seconds", "2.56", "--no-solo-filter"]
    result = runner.invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "[1/1] flute.wav: 2 kept, 1 dropped" in result.output
    assert "too short" in result.output and "clips: {path: out}" in result.output
    assert "No song is held out" in result.output and "clips.held_out" in result.output
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["clip_s"] == 2.56
    again = runner.invoke(cli.app, command)
    assert again.exit_code == cli_errors.BAD_INPUT and "out: is there already, and is not written over" in again.output


def test_without_basic_pitch_the_command_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "basic_pitch", None)
    write(tmp_path / "flute.wav", melody(0, 3.0))
    result = runner.invoke(cli.app, ["data", "prepare", str(tmp_path / "flute.wav"), "--out", str(tmp_path / "out")])
    assert result.exit_code == cli_errors.BAD_INPUT
    assert "pip install --no-deps basic-pitch==0.4.0" in result.output and "--no-solo-filter" in result.output
