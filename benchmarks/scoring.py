"""Row 5: VGGish embeddings and Frechet distances of several models against one set of recordings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import baseline
from benchmarks.measure import Figure, Row, in_turns, seconds, speedup
from timbre_ray.backbones import MINI
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import load_windows, read_clips, write_clips
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.scorer import embed_clips, embed_references
from timbre_ray.models.embedders import VGGishEmbedder
from timbre_ray.models.vggish import VGGish
from timbre_ray.specs import ClipsSpec

NUM_MODELS, NUM_CLIPS = 9, 20
SETS = ("chinese_flute_v1", "chinese_flute_v2", "chinese_lute")


def write_folders(root: Path, num_models: int) -> tuple[Path, list[Path]]:
    """The recordings to score against (held out, and training), and as many folders of clips as there are models."""
    flute = find_files(ClipsSpec(path=f"mini:{SETS[0]}"))
    (root / "target").mkdir()
    write_clips(load_windows(flute.held_out, 40_960), root / "target", "held_out")
    write_clips(load_windows(flute.train, 40_960), root / "target", "train")
    found = []
    for i in range(num_models):
        clips = load_windows(find_files(ClipsSpec(path=f"mini:{SETS[i % 3]}")).train[:NUM_CLIPS], 40_960)
        folder = root / f"model_{i}"
        folder.mkdir()
        write_clips(torch.roll(clips, i * 997, dims=1), folder)  # no two models alike
        found.append(folder)
    return root / "target", found


def ours(target: Path, models: list[Path]) -> list[float]:
    embed_references.cache_clear()  # a fresh scorer
    distances = []
    for model in models:
        reference = embed_references("vggish", target, "mini")["held_out"]
        distances.append(frechet_distance(embed_clips("vggish", read_clips(model)), reference))
    return distances


def theirs(target: Path, models: list[Path], vggish: VGGish) -> list[float]:
    background = sorted(target.glob("held_out_*.flac"))
    return [baseline.distance(vggish, background, sorted(m.glob("*.flac")), VGGishEmbedder.HOP_FRAMES) for m in models]


def measure(repeats: int, num_models: int = NUM_MODELS) -> list[Figure]:
    torch.set_num_threads(1)
    vggish = VGGish.from_pretrained(MINI / "vggish")
    with tempfile.TemporaryDirectory() as name:
        target, models = write_folders(Path(name), num_models)
        a, b = np.array(ours(target, models)), np.array(theirs(target, models, vggish))  # warm, and compared
        times = in_turns(seconds(lambda: ours(target, models)), seconds(lambda: theirs(target, models, vggish)), repeats)
    difference = float(np.abs(a / b - 1).max())
    return [
        speedup("embeddings and distances, times faster", *times, goal=10.0),
        Figure(name="largest relative difference of a distance", values=(difference,), goal=1e-4, bound="at most"),
    ]


ROW = Row(
    name="scoring", title="Scoring", measure=measure,
    setup=f"{NUM_MODELS} models of {NUM_CLIPS} clips each against 24 recordings; the miniature's VGGish, windows every 0.48 s on "
    "both sides. Theirs follows frechet-audio-distance 0.3.4 (each file on its own through a numpy front end, both folders on "
    "every call, a complex matrix square root) but is not the package: its VGGish comes by torch.hub, which was out of reach. "
    "Ours embeds the training recordings too, once.",
)  # fmt: skip
