"""An instrument classifier from data to a folder, and from a folder to its figures. ``cli_classifier`` calls these.

A classifier's folder: ``config.json`` and ``model.safetensors`` (with its classes), ``audiomae/`` that it listens through,
``training.json`` (what it was trained on and how) and ``log.csv`` (one line an epoch). Sweeps take it as ``evaluate.classifier``.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from timbre_ray.backbones import local_path
from timbre_ray.classifier_specs import ClassifierSpec, InstrumentDataSpec
from timbre_ray.data.features import HOP
from timbre_ray.data.nsynth import FAMILIES, SPLITS, read_notes, split_folder
from timbre_ray.data.recordings import DatasetError, Window
from timbre_ray.data.songs import Song, find_songs, songs_of, split_songs
from timbre_ray.evaluate.classification import Evaluation, measure, measure_mixtures
from timbre_ray.identity import MINI, file_digest, folder_digest
from timbre_ray.models.audiomae import AudioMAE
from timbre_ray.models.classifier import InstrumentClassifier
from timbre_ray.train.classifier import Row, confidences, train_classifier
from timbre_ray.train.classifier_examples import Examples, draw_mixtures, mixture_examples, single_examples
from timbre_ray.train.feature_cache import FeatureCache
from timbre_ray.whole import check_free, whole_folder

TRAINING = "training.json"
#: A data set's own words on itself, quoted in the report.
ABOUT = "about.md"
MINI_AUDIOMAE = MINI / "audiomae"
AUDIOMAE_FILES = ("config.json", "model.safetensors")
Say = Callable[[str], None]
#: Seeds the mixtures that a classifier is tried on: the same for every classifier of a data set.
EVALUATION_SEED = 1000


def train(
    data: InstrumentDataSpec, spec: ClassifierSpec, *, out: Path, work: Path, audiomae: str = str(MINI_AUDIOMAE),
    device: str = "cpu", command: str = "", say: Say = print,
) -> list[Row]:  # fmt: skip
    """Writes a classifier's folder, whole or not at all; -> the log. Raises FileExistsError if ``out`` is there already.

    audiomae: a folder of ``AudioMAE.save_pretrained``, published weights in timm's layout or an original ``.pth``, or a hub id.
    """
    check_free(out)
    listens = _in_our_layout(local_path(audiomae, None, "--audiomae"), work)
    for split in SPLITS:
        split_folder(data.nsynth, split)
    songs = find_songs(data.folders)
    song_splits = split_songs(songs)
    cache = FeatureCache(work, listens, device)
    num_samples = _heard_samples(listens)
    windows = {split: list(_windows(data, songs, song_splits, split, num_samples)) for split in ("train", "valid")}
    for split, own in windows.items():
        if not own:
            raise DatasetError(f"{split_folder(data.nsynth, split)}: no note, and no song beside it; {split} needs some")
    classes = _classes(windows["train"], data)
    examples: dict[str, Examples] = {}
    for seed, (split, own) in enumerate(windows.items()):
        num_mixtures = round(spec.mixtures * len(own))
        say(f"{split}: {len(own)} windows, {num_mixtures} mixtures; features of AudioMAE")
        examples[split] = _examples(own, num_mixtures, [spec.seed, seed], classes, cache, num_samples)
    say(f"{cache.num_computed} features computed, the others were there; {len(classes)} classes: {', '.join(classes)}")
    model, log = train_classifier(classes, examples["train"], examples["valid"], spec, device=device, on_epoch=_every_tenth(say))
    kept = max(log, key=lambda row: row["valid_map"])
    training = {
        "spec": dataclasses.asdict(spec), "rename": dict(data.rename), "audiomae": folder_digest(listens), "kept_epoch": kept,
        "windows": {split: dict(sorted(Counter(w.label for w in own).items())) for split, own in windows.items()},
        "songs": song_splits, "command": command,
    }  # fmt: skip
    _publish(out, model.cpu(), listens, training, log)
    return log


def evaluate(
    classifier: Path, data: InstrumentDataSpec, *, split: str = "test", work: Path, device: str = "cpu", say: Say = print
) -> Evaluation:
    """The figures of a classifier on a split. Songs that it was trained on are no test songs, whatever folder they lie in now."""
    training = _read_training(classifier)
    model = InstrumentClassifier.from_pretrained(classifier).to(device)
    data = dataclasses.replace(data, rename=tuple(training["rename"].items()))
    num_samples = _heard_samples(classifier / "audiomae")
    windows = list(_windows(data, find_songs(data.folders), training["songs"], split, num_samples))
    if not windows:
        raise DatasetError(f"{split_folder(data.nsynth, split)}: no note, and no song beside it; there is nothing to evaluate on")
    _check_classes(windows, model.classes, classifier)
    cache = FeatureCache(work, classifier / "audiomae", device)
    say(f"{split}: {len(windows)} windows; features of AudioMAE")
    singles = single_examples(windows, model.classes, cache, num_samples)
    found = confidences(model, singles, device).double().numpy()
    measures = measure(model.classes, singles.labels.argmax(1).numpy(), found, singles.sources)
    mixtures = None
    if len({window.label for window in windows}) > 1:
        pairs = draw_mixtures(windows, len(windows), EVALUATION_SEED)
        mixed = mixture_examples(pairs, model.classes, cache, num_samples)
        mixtures = measure_mixtures(mixed.labels.double().numpy(), confidences(model, mixed, device).double().numpy())
    about = data.nsynth / ABOUT
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    return Evaluation(split=split, measures=measures, mixtures=mixtures, training=training, about_data=text)


def _windows(
    data: InstrumentDataSpec, songs: Sequence[Song], splits: dict[str, str], split: str, num_samples: int
) -> Iterator[Window]:
    yield from read_notes(data.nsynth, split, dict(data.rename))
    for song in songs_of(songs, split, splits):
        yield from song.windows(num_samples)


def _examples(
    windows: Sequence[Window],
    num_mixtures: int,
    seed: Sequence[int],
    classes: Sequence[str],
    cache: FeatureCache,
    num_samples: int,
) -> Examples:
    singles = single_examples(windows, classes, cache, num_samples)
    return singles.joined(mixture_examples(draw_mixtures(windows, num_mixtures, seed), classes, cache, num_samples))


def _classes(windows: Iterable[Window], data: InstrumentDataSpec) -> tuple[str, ...]:
    """The classes that have examples: NSynth's in its order, then one's own in the order given."""
    rename = dict(data.rename)
    there = {window.label for window in windows}
    wanted = [rename.get(family, family) for family in FAMILIES] + [label for label, _ in data.folders]
    return tuple(name for name in dict.fromkeys(wanted) if name in there)


def _check_classes(windows: Iterable[Window], classes: Sequence[str], classifier: Path) -> None:
    for window in windows:
        if window.label not in classes:
            near = difflib.get_close_matches(window.label, classes, n=1)
            hint = f"nearest: {near[0]}" if near else f"it knows {', '.join(classes)}"
            raise DatasetError(f"{window.path}: class {window.label!r} is none of {classifier}; {hint}")


def _heard_samples(audiomae: Path) -> int:
    """Samples that AudioMAE hears at once (2.56 s for the miniature, 10.24 s at full size)."""
    return json.loads((audiomae / "config.json").read_text())["num_frames"] * HOP


def _in_our_layout(audiomae: Path, work: Path) -> Path:
    """The folder itself, or published weights rewritten into one, once, under ``work``."""
    if AudioMAE.wrote(audiomae):
        return audiomae
    digest = folder_digest(audiomae) if audiomae.is_dir() else file_digest(audiomae)
    folder = work / f"audiomae-{digest}"
    if not folder.exists():
        with whole_folder(folder) as part:
            AudioMAE.from_pretrained(audiomae).save_pretrained(part)
    return folder


def _read_training(classifier: Path) -> dict[str, Any]:
    path = classifier / TRAINING
    if not path.is_file():
        raise ValueError(f"{classifier}: no {TRAINING} in it; a folder written by `timbre-ray classifier train` is needed")
    return json.loads(path.read_text(encoding="utf-8"))


def _publish(out: Path, model: InstrumentClassifier, audiomae: Path, training: dict[str, Any], log: Sequence[Row]) -> None:
    with whole_folder(out) as folder:
        model.save_pretrained(folder)
        (folder / "audiomae").mkdir()
        for name in AUDIOMAE_FILES:  # the bytes themselves: their digest names the cached features
            shutil.copyfile(audiomae / name, folder / "audiomae" / name)
        (folder / TRAINING).write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
        with (folder / "log.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(log[0]))
            writer.writeheader()
            writer.writerows(log)


def _every_tenth(say: Say) -> Callable[[Row], None]:
    def show(row: Row) -> None:
        if row["epoch"] == 1 or row["epoch"] % 10 == 0:
            say(" ".join(f"{name} {value:g}" if name == "epoch" else f"{name} {value:.4f}" for name, value in row.items()))

    return show
