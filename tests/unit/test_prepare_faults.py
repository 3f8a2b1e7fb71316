"""Files that are no recordings, or broken ones: none costs the songs beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from melodies import damage, melody, write
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.clip_sets import ClipError, find_files, recordings_in
from timbre_ray.data.inspection import inspect_target
from timbre_ray.data.prepare import decode
from timbre_ray.data.songs import find_songs
from timbre_ray.manifest import read_manifest
from timbre_ray.specs import ClipsSpec
from timbre_ray.sweep import SweepError, load_sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three songs, and what else macOS and people put beside them."""
    for i in range(3):
        write(tmp_path / "songs" / f"{i}.flac", melody(i, 3.0))
    (tmp_path / "songs" / "._0.flac").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    (tmp_path / "songs" / "takes.wav").mkdir()
    (tmp_path / "songs" / ".cache").mkdir()
    (tmp_path / "songs" / ".cache" / "0.wav").write_bytes(b"x")
    return tmp_path / "songs"


def test_hidden_files_and_folders_are_no_recordings(folder: Path) -> None:
    songs = [folder / f"{i}.flac" for i in range(3)]
    assert list(recordings_in(folder)) == list(recordings_in(folder, below=True)) == decode.find_songs([folder]) == songs
    files = find_files(ClipsSpec(path=str(folder)))
    assert [*files.train, *files.held_out] == songs
    assert not inspect_target(ClipsSpec(path=str(folder)), 40_960).problems
    assert sorted(song.files for song in find_songs([("flute", folder)])) == [(song,) for song in songs]


def test_a_folder_with_a_recordings_name_is_a_song_of_a_classifier(folder: Path) -> None:
    take = write(folder / "takes.wav" / "b.flac", melody(7, 3.0))
    first = write(folder / "takes.wav" / "a.flac", melody(8, 3.0))
    (folder / "takes.wav" / "._a.flac").write_bytes(b"x")
    assert (first, take) in [song.files for song in find_songs([("flute", folder)])]


def test_a_song_that_is_named_twice_stands_where_it_is_named_first(folder: Path) -> None:
    (folder / "link.flac").symlink_to("2.flac")
    songs = decode.find_songs([folder / "link.flac", folder, folder / "0.flac"])
    assert songs == [folder / "link.flac", folder / "0.flac", folder / "1.flac"]


def test_a_link_that_leads_nowhere_is_named(folder: Path) -> None:
    (folder / "b.wav").symlink_to("gone.wav")
    words = r"b\.wav: a link to gone\.wav, which is not there; mend the link, or remove it"
    with pytest.raises(ClipError, match=words):
        decode.find_songs([folder])
    with pytest.raises(ClipError, match=words):
        find_files(ClipsSpec(path=str(folder)))
    with pytest.raises(ClipError, match=words):
        find_songs([("flute", folder)])
    (folder.parent / "sweep.yaml").write_text("name: s\nbase: {clips: {path: songs}}\n")
    with pytest.raises(SweepError, match=r"base\.clips\.path='songs': .*" + words):
        load_sweep(folder.parent / "sweep.yaml")


def test_a_link_that_no_run_reads_is_a_doubt(folder: Path) -> None:
    (folder / "b.m4a").symlink_to("gone.m4a")
    found = inspect_target(ClipsSpec(path=str(folder)), 40_960)
    assert not found.problems and "b.m4a: a link to gone.m4a, which is not there" in found.doubts[0]


def test_all_that_cannot_be_opened_are_named_before_the_work(folder: Path) -> None:
    (folder / "a.wav").write_bytes(b"no audio")
    (folder / "b.mp3").write_bytes(b"")
    with pytest.raises(ClipError) as caught:
        decode.find_songs([folder])
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(folder / "a.wav"), str(folder / "b.mp3")]
    assert all(line.endswith("convert it to wav or flac, or take it out") for line in lines)


def test_an_m4a_without_sound_is_named_before_the_work(folder: Path) -> None:
    pytest.importorskip("av")
    (folder / "a.m4a").write_bytes(b"no audio")
    with pytest.raises(ClipError, match=r"a\.m4a: cannot be read as audio"):
        decode.find_songs([folder])


def test_a_name_that_no_manifest_holds_is_told_before_the_work(folder: Path) -> None:
    name = os.fsencode(folder) + b"/fl\xf6te.flac"
    os.rename(folder / "0.flac", name)
    with pytest.raises(ClipError, match=r"fl\\xf6te\.flac': the name is not UTF-8; rename it"):
        decode.find_songs([folder])


def prepare(folder: Path) -> list[str]:
    return ["data", "prepare", str(folder), "--out", str(folder.parent / "out"), "--clip-seconds", "2.56", "--no-solo-filter"]


def test_a_song_that_ends_in_the_middle_costs_no_other(folder: Path) -> None:
    damaged = damage(folder / "1.flac")
    result = CliRunner().invoke(cli.app, prepare(folder))
    assert result.exit_code == cli_errors.OK, result.output
    manifest = read_manifest(folder.parent / "out")
    assert {Path(clip.source).name for clip in manifest.clips} == {"0.flac", "2.flac"}
    (dropped,) = [dropped for dropped in manifest.dropped if dropped.source == str(damaged)]
    assert dropped.reason.startswith("unusable: cannot be read as audio (") and dropped.reason.endswith("or take it out")
    assert "[2/3] 1.flac: left out, unusable: cannot be read" in result.stderr
    assert f"1 of 3 songs left out:\n  {damaged}: unusable: cannot be read as audio" in result.stderr
    assert any("1.flac" in line and "unusable" in line for line in result.stdout.splitlines()), "the table"


def test_nothing_kept_is_an_error(folder: Path) -> None:
    for i in range(3):
        damage(folder / f"{i}.flac")
    result = CliRunner().invoke(cli.app, prepare(folder))
    assert result.exit_code == cli_errors.BAD_INPUT and "no clip was kept" in result.stderr and "3 unusable" in result.stderr
    assert not (folder.parent / "out").exists()
