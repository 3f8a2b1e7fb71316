"""What the pages say is true: sweeps load, commands parse, code compiles, links lead somewhere, the reference is not stale."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from click.testing import CliRunner  # typer's own takes no command whose callbacks were replaced

from docs_tools.pages import reference_pages
from tests.docs.blocks import PAGES, ROOT, WITH_README, Block, blocks, commands
from timbre_ray.cli import app
from timbre_ray.report import paper
from timbre_ray.sweep import load_sweep

SHIPPED = "mini:chinese_flute_v1"
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def by_place(found: list[Block]) -> list[object]:
    return [pytest.param(block, id=block.place) for block in found]


@pytest.mark.parametrize("name", reference_pages())
def test_the_reference_is_what_the_code_says(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    assert page.read_text(encoding="utf-8") == reference_pages()[name], f"{page.name} is stale: python -m docs_tools"


OF_THE_PAPER = [block for block in blocks("yaml") if block.text.startswith("# results/mini-ablation/paper_values.yaml")]


@pytest.mark.parametrize("block", by_place([block for block in blocks("yaml") if block not in OF_THE_PAPER]))
def test_every_sweep_loads(block: Block, tmp_path: Path) -> None:
    """A part of a sweep is laid over the least that a sweep needs; recordings are the shipped ones."""
    values = yaml.safe_load(block.text)
    whole = values if "name" in values else {"name": "part", "base": {"clips": {"path": SHIPPED}}} | values
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    assert load_sweep(file, clips=SHIPPED).trials, block.place


@pytest.mark.parametrize("block", by_place(OF_THE_PAPER))
def test_the_papers_values_are_read(block: Block, tmp_path: Path) -> None:
    """By the arms and targets of the sweep that the block names."""
    arms, targets = load_sweep(ROOT / "sweeps" / "mini-ablation.yaml").arms, ("chinese_flute_v1", "chinese_flute_v2")
    sweep = SimpleNamespace(arms=[SimpleNamespace(label=arm) for arm in arms], targets=targets)
    file = tmp_path / "paper_values.yaml"
    file.write_text(block.text, encoding="utf-8")
    values = paper.load(file, sweep)
    assert values is not None and set(values) == set(yaml.safe_load(block.text)), block.place


def test_the_papers_values_are_described() -> None:
    assert [block.page.name for block in OF_THE_PAPER] == ["ablation.md"], "the report sends its readers there"


def parser() -> typer.core.TyperGroup:
    """The real command line; its commands do nothing once their words are understood."""
    command = typer.main.get_command(app)
    below = [command]
    while below:
        one = below.pop()
        if isinstance(one, typer.core.TyperGroup):
            below += one.commands.values()
        else:
            one.callback = lambda **_: typer.echo("understood")
    return command


def understands(words: list[str]) -> str:
    """Empty if the command line takes these words, else what it says of them."""
    result = CliRunner().invoke(parser(), words)
    helped = "--help" in words or "--version" in words
    return "" if result.exit_code == 0 and (helped or "understood" in result.output) else result.output or repr(result.exception)


@pytest.mark.parametrize("block", by_place(blocks("sh", "bash", pages=WITH_README)))
def test_every_command_exists(block: Block) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(block):
        match words:
            case ["timbre-ray", *options]:
                assert not (problem := understands(options)), f"{block.place}: {' '.join(words)}: {problem}"
            case ["make", target, *_]:
                assert target in targets, f"{block.place}: make {target}"
            case ["python" | "torchrun", *_] if "-m" in words:
                module = words[words.index("-m") + 1]
                assert importlib.util.find_spec(module), f"{block.place}: python -m {module}"


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert "No such option" in understands(["plan", "sweep.yaml", "--clip", "x"])
    assert "No such command" in understands(["plot", "sweep.yaml"])
    block = Block(
        page=ROOT / "README.md",
        language="sh",
        line=1,
        text="A=b timbre-ray plan x.yaml  # why\ncd y && timbre-ray run \\\n  z.yaml &\n",
    )
    assert commands(block) == [["timbre-ray", "plan", "x.yaml"], ["cd", "y"], ["timbre-ray", "run", "z.yaml"]]


@pytest.mark.parametrize("block", by_place(blocks("python", pages=WITH_README)))
def test_every_piece_of_python_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("page", WITH_README, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [str(page) for page in PAGES if f": {page.relative_to(ROOT / 'docs')}\n" not in menu] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
