"""Credentials in a storage URL are refused wherever one can be named, and not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from timbre_ray import cli, cli_errors
from timbre_ray.object_storage import check_place

SECRET = "wJalrXUtnFEMI"
URLS = (
    f"s3://AKIA:{SECRET}@bucket/runs", f"s3://{SECRET}@bucket", f"s3://bucket/runs?secret={SECRET}", f"s3://bucket/runs#{SECRET}",
)  # fmt: skip
runner = CliRunner()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_sweep(folder: Path, **run: str) -> str:
    body = {"name": "x", "base": {"clips": {"path": "mini:chinese_flute_v1"}}, "arms": {"a": {}}, "run": run}
    (folder / "x.yaml").write_text("# Question: who can read this?\n" + yaml.safe_dump(body))
    return "x.yaml"


@pytest.mark.parametrize("url", URLS)
def test_credentials_in_a_sweep_are_refused(folder, url):
    for words in (["plan"], ["run"], ["run", "--address", "http://127.0.0.1:9", "--detach"]):
        refused([*words, write_sweep(folder, storage=url)], folder, "run.storage=")


@pytest.mark.parametrize("url", URLS)
def test_credentials_on_the_command_line_are_refused(folder, url):
    sweep = write_sweep(folder)
    for words in (
        ["plan", sweep], ["run", sweep], ["run", sweep, "--address", "http://127.0.0.1:9", "--detach"], ["report", "x"],
        ["store", "verify"], ["store", "du"], ["store", "gc"],
    ):  # fmt: skip
        refused([*words, "--storage", url], folder, "storage=")


def refused(words: list[str], folder: Path, key: str) -> None:
    before = sorted(folder.rglob("*"))
    result = runner.invoke(cli.app, words)
    assert result.exit_code == cli_errors.BAD_INPUT, result.output
    assert f"{key}'s3://bucket/...': a URL with credentials or parameters" in result.output
    assert SECRET not in result.output
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("place", ["store", "/a/folder", "file:///a/folder", "s3://bucket", "gs://bucket/some/prefix", "a:b@c/d"])
def test_places_without_credentials_are_taken(place):
    check_place(place, key="run.storage")


@pytest.mark.parametrize("place", ["http://host/x", "s3:///prefix", "s3://bucket/../other", "file://host/x", "ftp://x"])
def test_other_urls_are_refused_with_the_choices(place):
    with pytest.raises(ValueError, match=r"run\.storage=.*must be a folder, file:///folder, s3://bucket/prefix or gs://"):
        check_place(place, key="run.storage")
