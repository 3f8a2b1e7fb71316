"""``timbre-ray init``: what it writes is a valid sweep, and what would be none is not written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors, new_sweep
from timbre_ray.specs import TrialSpec
from timbre_ray.sweep import PlannedTrial, load_sweep

runner = CliRunner()
SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    for number in range(4):
        (tmp_path / "recordings" / f"{number}.wav").write_bytes(f"never read: {number}".encode())
    return tmp_path


def test_the_sweep_takes_ones_own_recordings_from_where_it_lies(folder: Path) -> None:
    result = runner.invoke(
        cli.app, ["init", "sweeps/mine.yaml", "--clips", "recordings", "--instrument", "marimba", "--seeds", "2"]
    )
    assert result.exit_code == 0, result.output
    assert "sweeps/mine.yaml: 12 trials. Next: timbre-ray plan sweeps/mine.yaml" in result.output
    assert yaml.safe_load(Path("sweeps/mine.yaml").read_text())["base"]["clips"]["path"] == "../recordings"
    sweep = load_sweep("sweeps/mine.yaml")
    assert (sweep.name, sweep.question) == ("mine", "which way of teaching the miniature my marimba keeps its piano?")
    clips = sweep.trials[0].spec.clips
    assert (Path(clips.path), clips.instrument, clips.token) == (folder / "recordings", "marimba", "sks")
    assert {trial.spec.seed for trial in sweep.trials} == {0, 1}
    assert not list(Path("sweeps").glob(".*"))


def test_the_published_model_gets_the_papers_settings(folder: Path) -> None:
    result = runner.invoke(cli.app, ["init", "large.yaml", "--clips", "recordings", "--backbone", "cvssp/audioldm2-large"])
    assert result.exit_code == 0, result.output
    written, shipped = load_sweep("large.yaml"), load_sweep(SWEEPS / "ablation.yaml", clips="recordings")
    assert written.run == shipped.run
    assert list(map(_settings, written.trials)) == list(map(_settings, shipped.trials))
    assert written.trials[0].spec.evaluate.sampler.num_inference_steps == 200, "those of the paper, not the miniature's"


def _settings(trial: PlannedTrial) -> TrialSpec:
    """What no answer decides: the instrument's name aside."""
    return dataclasses.replace(trial.spec, clips=dataclasses.replace(trial.spec.clips, instrument="flute"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--clips", "nowhere"], "no such folder"),
        (["--clips", "recordings", "--target-class", "chinese fluet"], "nearest: chinese flute"),
        (["--clips", "recordings", "--partner", "pianoo"], "nearest: piano"),
    ],
)
def test_answers_that_make_no_sweep_write_nothing(folder: Path, arguments: list[str], complaint: str) -> None:
    result = runner.invoke(cli.app, ["init", "mine.yaml", *arguments])
    assert result.exit_code == cli_errors.BAD_INPUT and complaint in result.output, result.output
    assert not Path("mine.yaml").exists()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("token", "yes"), ("token", "1"), ("token", "1e3"), ("token", "null"), ("token", "it's"), ("token", "🎵"),
        ("token", "{a}"),
        ("token", "2024-01-01"), ("token", " sks "), ("token", "sks # new"), ("token", 'say "sks"'), ("token", "a\nb: c"),
        ("token", "<sks>"), ("instrument", "flute: x"), ("instrument", "- flute"), ("instrument", "two\nlines"),
        ("instrument", "Blockflöte"), ("clips", "yes"), ("clips", "it's {mine} # 1"),
    ],
)  # fmt: skip
def test_an_answer_is_read_back_as_it_was_given(folder: Path, option: str, text: str) -> None:
    recordings = folder / (text if option == "clips" else "recordings")
    (folder / "recordings").rename(recordings)
    path = folder / "a b" / "2024.yaml"
    values = {"clips": str(recordings), "instrument": "marimba"} | ({option: text} if option != "clips" else {})
    assert new_sweep.write_sweep(new_sweep.Answers(**values), path) == 18
    sweep = load_sweep(path)
    clips = sweep.trials[0].spec.clips
    assert sweep.name == "2024" and "timbre-ray plan '" in path.read_text(encoding="utf-8")
    assert (clips.path, getattr(clips, option, clips.path)) == (str(recordings), values.get(option))


def test_ordinary_answers_stand_without_quotes(folder: Path) -> None:
    assert runner.invoke(cli.app, ["init", "mine.yaml", "--clips", "recordings"]).exit_code == 0
    text = Path("mine.yaml").read_text()
    for line in ("name: mine\n", "token: sks  #", "instrument: flute  #", "partner: piano  #", "target_class: chinese flute  #"):
        assert line in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["my flute.yaml"], "my flute.yaml: name='my flute': a name of letters"),
        (["mine.yaml", "--partner", "#piano"], "mine.yaml: base.clips.partner='#piano'"),
        (["mine.yaml", "--clips", "nowhere"], "mine.yaml: base.clips.path='nowhere': no such folder"),
        (["mine.yaml", "--target-class", "erhu"], "mine.yaml: base.clips.target_class='erhu'"),
        (["recordings/0.wav/mine.yaml"], "recordings/0.wav: is a file; name a folder"),
        (["mine.yaml", "--seeds", "100000"], "less than or equal to 1000"),
    ],
)
def test_mistakes_are_named_by_the_file_that_was_asked_for(folder: Path, arguments: list[str], complaint: str) -> None:
    result = runner.invoke(cli.app, ["init", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == cli_errors.BAD_INPUT and complaint in result.output, result.output
    assert f"{folder}/." not in result.output, "the draft that was checked"
    assert not list(folder.glob("*.yaml"))


def test_as_many_seeds_as_the_command_takes() -> None:
    assert new_sweep.Answers(num_seeds=new_sweep.MAX_SEEDS).num_seeds == 1000
    with pytest.raises(ValueError, match=r"seeds=1001: must lie in \[1, 1000\]"):
        new_sweep.Answers(num_seeds=1001)


def test_nothing_is_written_over(folder: Path) -> None:
    Path("mine.yaml").write_text("precious")
    result = runner.invoke(cli.app, ["init", "mine.yaml", "--clips", "recordings"])
    assert result.exit_code == cli_errors.BAD_INPUT and "is there already" in result.output
    assert Path("mine.yaml").read_text() == "precious"
