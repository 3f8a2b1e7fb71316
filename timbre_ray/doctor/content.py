"""Whether what the sweep asks for makes sense: its classes, its token, its recordings and the number of its clips."""

from __future__ import annotations

import math
from pathlib import Path

from timbre_ray.backbones import at_hand
from timbre_ray.clap_choice import MIN_CLIPS
from timbre_ray.classifier_choice import classifier_folder, unknown_classes
from timbre_ray.doctor.case import Case, Finding
from timbre_ray.identity import weights_of
from timbre_ray.model_sizes import SAMPLES_PER_S, clip_seconds
from timbre_ray.quantities import duration
from timbre_ray.vocabulary import known_word

#: Rows that a Frechet distance should have for each dimension. Two samples of one Gaussian in 128 dimensions are 0.31 of its
#: variance apart at 100 rows each and 0.065 at 500.
ROWS_PER_DIMENSION = 4


def classes(case: Case) -> Finding:
    problems = []
    for spec in (trial.spec for trial in case.trials):
        problems += unknown_classes(spec, classifier_folder(spec.evaluate.classifier), lambda key: f"base.{key}")
    if problems:
        remedy = "correct the name, or train a classifier that knows it (`timbre-ray classifier train`)"
        return Finding(level="error", found="; ".join(dict.fromkeys(problems)), remedy=remedy)
    by_mini = [trial.spec.backbone.name for trial in case.trials if trial.spec.evaluate.classifier == "mini"]
    foreign = {name for name in by_mini if name != "mini"}
    if foreign:
        found = f"the miniature's classifier, which learnt from a sound font, judges {', '.join(sorted(foreign))}"
        return Finding(level="warning", found=found, remedy="train one of your own and name it in evaluate.classifier")
    heard = dict.fromkeys(f"{t.spec.clips.partner} and {t.spec.clips.target_class}" for t in case.trials)
    return Finding(level="ok", found=f"{'; '.join(heard)} are classes of the classifier")


def embedders(case: Case) -> Finding:
    """Whose weights the distances come from: the miniature's are for comparing arms, not for what others have published."""
    specs = [trial.spec for trial in case.trials]
    foreign = {spec.backbone.name for spec in specs if spec.backbone.name != "mini"}
    by_mini = dict.fromkeys(name for spec in specs for name in spec.evaluate.fad if weights_of(name, spec.evaluate) == "mini")
    if not foreign or not by_mini:
        return Finding(level="ok", found=", ".join(dict.fromkeys(name for spec in specs for name in spec.evaluate.fad)))
    found = f"the miniature's {' and '.join(by_mini)} hear the clips of {', '.join(sorted(foreign))}"
    named = " and ".join(f"evaluate.{name}" for name in by_mini if name != "audiomae")
    remedy = "compare arms by these distances, and none with a published one"
    return Finding(level="warning", found=found, remedy=f"{remedy}; or name weights in {named}" if named else remedy)


def token(case: Case) -> Finding:
    known, unchecked = {}, []
    for backbone, word in dict.fromkeys((trial.spec.backbone, trial.spec.clips.token) for trial in case.trials):
        models = known_word(backbone, word)
        if models is None:
            unchecked.append(backbone.name)
        elif any(models.values()):
            known[word] = " and ".join(name for name, found in models.items() if found)
    if known:
        found = "; ".join(f"clips.token={word!r} is a word of {models}'s vocabulary" for word, models in known.items())
        return Finding(level="warning", found=found, remedy="choose one without a meaning, if the model has learnt one for it")
    if unchecked:
        return Finding(level="ok", found=f"not checked: the tokenizers of {', '.join(unchecked)} are not here")
    return Finding(level="ok", found="no word of the vocabulary")


def recordings(case: Case) -> Finding:
    problems, doubts, words = [], [], []
    for target, found in case.inspections.items():
        problems += found.problems
        doubts += found.doubts
        rates = "/".join(f"{rate:g}" for rate in found.rates_hz)
        words.append(f"{target}: {found.num_files} files, {rates} Hz, {duration(found.duration_s)}, "
                     f"{found.num_train} clips to learn from, {found.num_held_out} held out")  # fmt: skip
    if problems:
        remedy = "mend or remove these files; `timbre-ray data prepare` drops silence"
        return Finding(level="error", found="; ".join(problems), remedy=remedy)
    if doubts:
        shown = [*doubts[:3], f"{len(doubts) - 3} more"] if len(doubts) > 3 else doubts
        return Finding(level="warning", found="; ".join((*words, *shown)), remedy="use better copies, or leave these files out")
    return Finding(level="ok", found="; ".join(words))


def distances(case: Case) -> Finding:
    """Whether there are clips enough for a Frechet distance in as many dimensions as the embedder has."""
    import torch

    from timbre_ray.models.embedders import load_embedder

    few, enough, none = [], [], []
    for trial in {(t.target, t.spec.evaluate.num_clips, t.spec.evaluate.fad): t for t in case.trials}.values():
        samples = round(clip_seconds(trial.spec.backbone) * SAMPLES_PER_S)
        noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        splits = case.inspections[trial.target]
        if "clap" in trial.spec.evaluate.fad and min(splits.num_train, splits.num_held_out) < MIN_CLIPS:
            none.append(f"clap, {trial.target}: {splits.num_train} clips to learn from and {splits.num_held_out} held out")
        for name in trial.spec.evaluate.fad:
            weights = weights_of(name, trial.spec.evaluate)
            if weights != "mini" and not Path(weights).exists() and at_hand(weights, None, "text_encoder/config.json") is None:
                enough.append(f"{name}, {trial.target}: not checked, {weights} is not here")
                continue
            _, rows, dimensions = load_embedder(name, weights=weights)(noise).shape
            clips = {"generated": trial.spec.evaluate.num_clips, "held-out": splits.num_held_out}
            fewest = min(clips, key=lambda kind: clips[kind])
            words = f"{name}, {trial.target}: {clips[fewest] * rows} rows of {fewest} clips in {dimensions} dimensions"
            wanted = math.ceil(ROWS_PER_DIMENSION * dimensions / rows)
            (few if clips[fewest] < wanted else enough).append(words + f", {wanted} clips wanted" * (clips[fewest] < wanted))
    if none:
        remedy = f"hold out {MIN_CLIPS} clips or more and learn from as many, or leave clap out of evaluate.fad"
        return Finding(level="error", found="; ".join(none), remedy=remedy)
    if few:
        remedy = "raise evaluate.num_clips or hold out more; else compare arms at this number of clips alone, and read KAD too"
        return Finding(level="warning", found="the Frechet distance is biased upwards: " + "; ".join(few), remedy=remedy)
    return Finding(level="ok", found="; ".join(enough))
