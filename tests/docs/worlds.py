"""What lies around the reader of a page: a checkout whose sweeps are small, songs, recordings, notes in NSynth's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from tests.docs.blocks import ROOT, blocks
from tests.unit.classifier.instruments import write_split

CLIPS = ROOT / "timbre_ray" / "mini" / "clips"
RATE_HZ = 16_000
#: Of base: two optimizer steps, two clips a row, two denoising steps. What is learnt and played is not the question here.
SMALL = {
    "dreambooth": {"steps": 2, "batch_size": 1, "num_class_clips": 2},
    "evaluate": {"at_steps": [0, 2], "num_clips": 2},
}
SMALL_SAMPLER = {"num_inference_steps": 2, "mel_inversion": "griffin_lim"}

OLD_CHECKPOINT = "store/scratch/dreambooth/0123456789abcdef0123/checkpoint.pt"


def checkout(folder: Path) -> None:
    """For README.md and the reference: the sweeps with the arms that their commands name, and all that their commands read."""
    copy_sweeps(folder)
    make_small(folder / "sweeps" / "mini-ablation.yaml", arms=("large-gpt2", "large-gpt2-prior", "large-gpt2-lora"))
    make_small(folder / "sweeps" / "demo.yaml", arms=("large-gpt2",))
    songs(folder)
    recordings(folder / "recordings" / "flute", "chinese_flute_v1")
    recordings(folder / "recordings" / "my_flute", "chinese_flute_v2")
    recordings(folder / "data" / "flute", "chinese_flute_v1")
    recordings(folder / "data" / "lute", "chinese_lute")
    for version in ("flute_v1", "flute_v2"):
        recordings(folder / "data" / version, f"chinese_{version}")
    for seed, (split, num) in enumerate((("train", 3), ("valid", 2), ("test", 2))):
        notes = [(family, f"{family}_{split}_{i:03d}") for family in ("bass", "flute", "keyboard") for i in range(num)]
        write_split(folder / "data" / "nsynth" / f"nsynth-{split}", notes, seed=100 * seed)


def two_arms(folder: Path) -> None:
    """A checkout with two arms of mini-ablation."""
    copy_sweeps(folder)
    make_small(folder / "sweeps" / "mini-ablation.yaml", arms=("large-gpt2", "large-gpt2-lora"))


def two_factors(folder: Path) -> None:
    """A checkout with one seed of mini-factorial."""
    copy_sweeps(folder)
    make_small(folder / "sweeps" / "mini-factorial.yaml")


def full_size(folder: Path) -> None:
    """A checkout with songs of two flutes."""
    copy_sweeps(folder)
    songs(folder)
    songs(folder, "songs_v2", "chinese_flute_v2")


def copy_sweeps(folder: Path) -> None:
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")


def make_small(sweep: Path, *, arms: Collection[str] = ()) -> None:
    """Rewrites the file: the given arms (none given: all) at one seed, of a size that takes seconds."""
    text = sweep.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    for section, settings in SMALL.items():
        values["base"][section].update(settings)
    values["base"]["evaluate"]["sampler"].update(SMALL_SAMPLER)
    if arms:
        values["arms"] = {name: values["arms"][name] for name in arms}
    values["grid"] = {"seed": [0]}
    _teach_one_epoch(values)
    question = text.partition("\n")[0]
    sweep.write_text(f"{question}\n{yaml.safe_dump(values, sort_keys=False)}", encoding="utf-8")


def _teach_one_epoch(values: dict[str, Any]) -> None:
    for one in (*values.get("arms", {}).values(), *values.get("ablation", {}).get("factors", {}).values()):
        if "teacher" in one:
            one["teacher"] = {"epochs": 1}


def first_look(folder: Path) -> None:
    """The reader of the tutorial puts its arms and its seed into the file that ``init`` wrote; and it becomes small."""
    (part,) = blocks("yaml", pages=(ROOT / "docs" / "tutorial.md",))
    sweep = folder / "my-flute.yaml"
    text = sweep.read_text(encoding="utf-8")
    values = yaml.safe_load(text) | yaml.safe_load(part.text)
    sweep.write_text(f"{text.partition(chr(10))[0]}\n{yaml.safe_dump(values, sort_keys=False)}", encoding="utf-8")
    make_small(sweep, arms=tuple(values["arms"]))


def songs(folder: Path, name: str = "songs", clip_set: str = "chinese_flute_v1") -> None:
    """Four songs of 13 s, each of five of the shipped clips."""
    clips = sorted((CLIPS / clip_set / "train").glob("*.flac"))
    (folder / name).mkdir(parents=True)
    for number, suffix in enumerate(("wav", "flac", "mp3", "mp3")):
        samples = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in clips[5 * number : 5 * number + 5]])
        soundfile.write(folder / name / f"song_{number}.{suffix}", samples, RATE_HZ)


def recordings(folder: Path, clip_set: str) -> None:
    """A plain folder of eight recordings."""
    folder.mkdir(parents=True)
    for path in sorted((CLIPS / clip_set / "train").glob("*.flac"))[:8]:
        shutil.copy(path, folder)


def old_checkpoint(folder: Path) -> None:
    """Leaves in the store what a training that never went on leaves."""
    checkpoint = folder / OLD_CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"of a training that was given up")
    for path in (checkpoint, checkpoint.parent):
        os.utime(path, (0, 0))
