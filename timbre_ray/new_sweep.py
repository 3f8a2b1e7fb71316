"""A commented sweep for one's own recordings, checked before it is written."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import jinja2

from timbre_ray.sweep import load_sweep

TEMPLATE = "new_sweep.yaml.j2"


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
        if self.num_seeds < 1:
            raise ValueError(f"seeds={self.num_seeds}: must be at least 1")


def render(answers: Answers, path: Path) -> str:
    """The sweep's YAML; a folder of recordings is written as seen from the file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    clips = answers.clips
    if not clips.startswith("mini:"):
        clips = os.path.relpath(Path(clips).expanduser().resolve(), path.parent.resolve())
    is_mini = answers.backbone == "mini"
    values = dataclasses.asdict(answers) | {"clips": clips, "seeds": list(range(answers.num_seeds)), "is_mini": is_mini}
    values |= {"file": path.as_posix(), "name": path.stem, "model": "the miniature" if is_mini else answers.backbone}
    return environment.get_template(TEMPLATE).render(values)


def write_sweep(answers: Answers, path: Path) -> int:
    """Writes the file and returns its number of trials.

    Raises FileExistsError rather than write over a file, and SweepError (nothing is written) where the answers make no valid
    sweep: a missing folder, an unknown class.
    """
    if path.exists():
        raise FileExistsError(f"{path}: is there already; choose another name, or remove it first")
    text = render(answers, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Checked in its own folder, so that its relative paths mean what they will mean.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".yaml", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        sweep = load_sweep(draft.name)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return len(sweep.trials)
