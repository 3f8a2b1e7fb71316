"""NSynth's layout: what is read, in what order, and how its mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from timbre_ray.data import nsynth as layout
from timbre_ray.data.nsynth import FAMILIES, read_notes, split_folder, stream_entries
from timbre_ray.data.recordings import DatasetError
from timbre_ray.mini import nsynth as rendered
from timbre_ray.mini.corpus import TARGET_PROGRAMMES


def test_notes_come_in_the_order_of_the_index(nsynth: Path) -> None:
    notes = list(read_notes(nsynth, "test", {"mallet": "marimba"}))
    assert [note.label for note in notes] == ["marimba", "marimba", "flute", "flute", "bass", "bass"]
    assert notes[0].source == "mallet_test_000" and notes[0].index == 0
    assert notes[0].path == nsynth / "nsynth-test" / "audio" / "mallet_test_000-060-100.wav"


def test_a_split_may_do_without_the_prefix(nsynth: Path) -> None:
    (nsynth / "nsynth-valid").rename(nsynth / "valid")
    assert split_folder(nsynth, "valid") == nsynth / "valid"


@pytest.mark.parametrize("chunk_chars", [1, 7, 64, 1 << 20])
def test_the_index_is_read_in_chunks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_chars: int) -> None:
    entries = {'a "quoted" }': {"x": [1, 2], "y": {"z": "}, {"}}, "é": {}, "b": {"pitch": 60.5}}
    path = tmp_path / "examples.json"
    monkeypatch.setattr(layout, "_CHUNK_CHARS", chunk_chars)
    for text in (json.dumps(entries), json.dumps(entries, indent=4) + "\n"):
        path.write_text(text, encoding="utf-8")
        assert dict(stream_entries(path)) == entries
    path.write_text("{}")
    assert list(stream_entries(path)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": {"x": 1}', "not valid JSON after 1 notes"),
        ('{"a": {"x": 1}} {"b": {}}', "not valid JSON after 1 notes"),
        ('{"a": {"x": oops}}', "not valid JSON after 0 notes"),
        ('{"a": [1]}', r'"a"=\[1\]: must be an object'),
        ("[]", "no JSON object of notes"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "examples.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"examples\.json: {words}"):
        list(stream_entries(tmp_path / "examples.json"))


def test_mistakes_in_a_split_are_named(nsynth: Path) -> None:
    index = nsynth / "nsynth-test" / "examples.json"
    good = json.loads(index.read_text())
    name = "mallet_test_000-060-100"

    def said(change: dict) -> str:
        index.write_text(json.dumps({**good, name: {**good[name], **change}}))
        with pytest.raises(DatasetError) as caught:
            list(read_notes(nsynth, "test"))
        return str(caught.value)

    unknown = said({"instrument_family_str": "malet"})
    assert unknown == f"{index}: {name}.instrument_family_str='malet': no family of NSynth; nearest: mallet"
    assert f"{name}.instrument_str=3: must be text" in said({"instrument_str": 3})
    (index.parent / "audio" / f"{name}.wav").unlink()
    assert f"{name}.wav: missing, though examples.json names it" in said({})


def test_a_missing_split_names_the_nearest(nsynth: Path, tmp_path: Path) -> None:
    (nsynth / "nsynth-test").rename(nsynth / "nsynth-tset")
    with pytest.raises(DatasetError, match="neither nsynth-test nor test in it; nearest: nsynth-tset"):
        split_folder(nsynth, "test")
    with pytest.raises(DatasetError, match="absent: no such folder; NSynth's layout is wanted"):
        split_folder(tmp_path / "absent", "test")


class _Tones:
    """Plays a sine for every note, and nothing above pitch 80."""

    def render(self, programme: int, notes: list, num_samples: int) -> np.ndarray:
        (start, end, pitch, velocity), time_s = notes[0], np.arange(num_samples) / 16_000
        assert (start, end, num_samples) == (0, 48_000, 64_000)
        return velocity / 127 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time_s) * (pitch <= 80)


def test_the_rendered_set_is_held_out_by_programme(tmp_path: Path) -> None:
    assert set(rendered.PROGRAMMES) == set(FAMILIES)
    every = [p for programmes, _ in rendered.PROGRAMMES.values() for p in programmes]
    assert len(every) == len(set(every)) and not TARGET_PROGRAMMES & set(every)
    num_notes = rendered.render_dataset(tmp_path / "set", notes_per_programme=1, renderer=_Tones())
    assert sum(num_notes.values()) == len(every)
    sources = {split: [n.source for n in read_notes(tmp_path / "set", split)] for split in ("train", "valid", "test")}
    assert {split: len(own) for split, own in sources.items()} == num_notes
    assert len({source for own in sources.values() for source in own}) == len(every), "no instrument is in two splits"
    assert "Held out by instrument" in (tmp_path / "set" / "about.md").read_text()
    with pytest.raises(FileExistsError, match="not written over"):
        rendered.render_dataset(tmp_path / "set", renderer=_Tones())


def test_a_programme_without_enough_notes_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--notes 999: General MIDI programme .* ask for fewer"):
        rendered.render_dataset(tmp_path / "set", notes_per_programme=999, renderer=_Tones())
    assert list(tmp_path.iterdir()) == []
