"""``timbre-ray init``: what it writes is a valid sweep, and what would be none is not written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.sweep import load_sweep

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    for number in range(4):
        (tmp_path / "recordings" / f"{number}.wav").write_bytes(b"never read")
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
    sweep = load_sweep("large.yaml")
    spec = sweep.trials[0].spec
    assert (spec.dreambooth.lr, spec.dreambooth.gradient_accumulation) == (1e-5, 4)
    assert spec.evaluate.sampler.num_inference_steps == 200
    assert sweep.run.resources.train["gpu"] == 1


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


def test_nothing_is_written_over(folder: Path) -> None:
    Path("mine.yaml").write_text("precious")
    result = runner.invoke(cli.app, ["init", "mine.yaml", "--clips", "recordings"])
    assert result.exit_code == cli_errors.BAD_INPUT and "is there already" in result.output
    assert Path("mine.yaml").read_text() == "precious"
