"""A commented sweep for one's own recordings, checked before it is written."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import tempfile
from pathlib import Path

import jinja2
import yaml

from timbre_ray.sweep import SweepError, load_sweep
from timbre_ray.whole import check_no_file

TEMPLATE = "new_sweep.yaml.j2"
MAX_SEEDS = 1000
"""More is a slip: every seed is a training of every arm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What a newcomer is asked."""

    clips: str = "mini:chinese_flute_v1"
    """Folder of recordings, or a shipped set."""
    instrument: str = "flute"
    partner: str = "piano"
    target_class: str = "chinese flute"
    token: str = "sks"
    backbone: str = "mini"
    num_seeds: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.num_seeds <= MAX_SEEDS:
            raise ValueError(f"seeds={self.num_seeds}: must lie in [1, {MAX_SEEDS}]")


def quoted(text: str) -> str:
    """As a YAML string whatever it holds."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize).rstrip("\n")


def plain(text: str) -> str:
    """As it stands where YAML reads it back as this string, before a comment; else quoted: ``yes``, ``1``, ``#piano``."""
    try:
        is_plain = yaml.safe_load(f"key: {text}  # why") == {"key": text}
    except yaml.YAMLError:
        is_plain = False
    return text if is_plain else quoted(text)


def one_line(text: str) -> str:
    """For a comment."""
    return " ".join(text.split())


def render(answers: Answers, path: Path) -> str:
    """The sweep's YAML; a folder of recordings is written as seen from the file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"quoted": quoted, "plain": plain, "one_line": one_line}
    clips = answers.clips
    if not clips.startswith("mini:"):
        clips = os.path.relpath(Path(clips).expanduser().resolve(), path.parent.resolve())
    is_mini = answers.backbone == "mini"
    values = dataclasses.asdict(answers) | {"clips": clips, "seeds": list(range(answers.num_seeds)), "is_mini": is_mini}
    values |= {"file": shlex.quote(path.as_posix()), "name": path.stem, "model": "the miniature" if is_mini else answers.backbone}
    return environment.get_template(TEMPLATE).render(values)


def write_sweep(answers: Answers, path: Path) -> int:
    """Writes the file and returns its number of trials.

    Raises FileExistsError rather than write over a file, and SweepError (nothing is written) where the answers make no valid
    sweep: a missing folder, an unknown class.
    """
    check_no_file(path.parent, str(path.parent))
    if path.exists():
        raise FileExistsError(f"{path}: is there already; choose another name, or remove it first")
    text = render(answers, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Checked in its own folder, so that its relative paths mean what they will mean.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".yaml", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        try:
            sweep = load_sweep(draft.name)
        except SweepError as error:
            raise SweepError(path, error.problems) from None
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return len(sweep.trials)
