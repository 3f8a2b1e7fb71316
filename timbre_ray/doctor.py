"""What a sweep lacks on this machine, found before a night of GPU time is lost. One function a check, in one table.

Nothing is fetched, trained or written; torch is imported only by the checks that need it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from timbre_ray.backbones import PUBLISHED_AUDIOMAE, at_hand, pipeline_at_hand
from timbre_ray.classifier_choice import classifier_folder, unknown_classes
from timbre_ray.estimate import Estimate, estimate
from timbre_ray.model_sizes import SAMPLES_PER_S, clip_seconds, model_size, training_memory
from timbre_ray.quantities import duration, size
from timbre_ray.remote_tier import local_root, open_store
from timbre_ray.specs import BackboneSpec
from timbre_ray.sweep import PlannedTrial, Sweep, SweepError
from timbre_ray.vocabulary import known_word

if TYPE_CHECKING:
    from timbre_ray.data.inspection import Inspection

#: Parts of a pipeline that are nothing without weights.
WEIGHED = ("unet", "vae", "vocoder", "language_model", "projection_model", "text_encoder", "text_encoder_2")
#: A U-Net of more parameters is not trained on a CPU in a night.
LARGE = 100_000_000
#: Share of the memory or the disk that is called tight.
TIGHT = 0.9
#: Rows that a Frechet distance should have for each dimension. Two samples of one Gaussian in 128 dimensions are 0.31 of its
#: variance apart at 100 rows each and 0.065 at 500.
ROWS_PER_DIMENSION = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    level: Literal["ok", "warning", "error"]
    found: str
    remedy: str = ""


def gpu_memory() -> tuple[int, ...]:
    """Bytes of each GPU that torch can use here."""
    import torch

    return tuple(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def hub_refusal(name: str, revision: str | None) -> str:
    """Why the hub does not answer for a model; empty if it does. Asks for its description alone."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except Exception as error:  # whatever the client and its transport raise, the answer is no
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep and the machine it is to run on."""

    sweep: Sweep
    gpus: Callable[[], tuple[int, ...]] = gpu_memory
    hub_refusal: Callable[[str, str | None], str] = hub_refusal

    @functools.cached_property
    def trials(self) -> tuple[PlannedTrial, ...]:
        """Every trial; of a search, the base and one at each end of each range."""
        search = self.sweep.search
        ends = [{key: end} for key, range_ in search.space.items() for end in range_.ends()] if search else []
        return (*self.sweep.trials, *(self.sweep.suggested(values) for values in ends))

    @functools.cached_property
    def estimate(self) -> Estimate:
        todo = {trial.trial_id for trial in self.sweep.trials}
        return estimate(self.sweep.trials, open_store(self.sweep.run.storage, self.sweep.run.cache), todo=todo)

    @functools.cached_property
    def inspections(self) -> dict[str, Inspection]:
        from timbre_ray.data.inspection import inspect_target

        targets = {trial.target: trial.spec for trial in self.trials}
        return {
            name: inspect_target(spec.clips, round(clip_seconds(spec.backbone) * SAMPLES_PER_S)) for name, spec in targets.items()
        }

    @property
    def gpus_a_trial(self) -> float:
        return self.sweep.run.resources.train.get("gpu", 0)

    @property
    def asks_for_gpu(self) -> bool:
        run = self.sweep.run
        return run.device != "cpu" and bool(self.gpus_a_trial or run.resources.score.get("gpu", 0) or run.device == "cuda")


def gpu(case: Case) -> Finding:
    run = case.sweep.run
    if not case.asks_for_gpu:
        sizes = [found.unet for trial in case.trials if (found := model_size(trial.spec.backbone))]
        if max(sizes, default=0) > LARGE:
            found = f"none is asked for, and a U-Net of {max(sizes) / 1e6:.0f} M parameters learns slowly on a CPU"
            return Finding(level="warning", found=found, remedy="set run.resources.train: {gpu: 1}")
        return Finding(level="ok", found="none is asked for: the trials run on the CPU")
    there, wanted = len(case.gpus()), case.gpus_a_trial + run.num_scorers * run.resources.score.get("gpu", 0)
    found = f"{there} here; a trial and {run.num_scorers} scorer(s) take {wanted:g}"
    if there and there >= wanted:
        return Finding(level="ok", found=found)
    remedy = "run doctor on a node that has them, or lower run.resources"
    return Finding(level="error", found=found, remedy=f"{remedy}; `nvidia-smi` says whether the driver sees any")


def memory(case: Case) -> Finding:
    if not case.asks_for_gpu:
        return Finding(level="ok", found="no GPU is asked for")
    needs = {}
    for trial in case.trials:
        known = model_size(trial.spec.backbone)
        name = trial.arm if not case.sweep.search else str(trial.point or "base")
        needs[name] = training_memory(trial.spec, known) if known else None
    measured = {name: need for name, need in needs.items() if need is not None}
    if not measured:
        return Finding(level="warning", found="the size of the backbone is not known", remedy="watch the first trial's memory")
    worst = max(measured, key=lambda name: measured[name])
    shared = max(1, math.floor(1 / case.gpus_a_trial)) if case.gpus_a_trial else 1
    need, have = shared * measured[worst], min(case.gpus(), default=0)
    found = f"about {size(need)} for {shared} trial(s) of {worst} (weights, gradients, AdamW, activations by a rough rule)"
    if not have:
        return Finding(level="error", found=f"{found}; no GPU here", remedy="run it where a GPU has so much memory")
    found += f"; {size(have)} on the smallest GPU here"
    if need <= TIGHT * have:
        return Finding(level="ok", found=found)
    remedy = "lower dreambooth.batch_size (and raise gradient_accumulation), give a trial a whole GPU, or use method lora"
    return Finding(level="error" if need > have else "warning", found=found, remedy=remedy)


def weights(case: Case) -> Finding:
    errors, warnings, fine = [], [], []
    for backbone in dict.fromkeys(trial.spec.backbone for trial in case.trials):
        folder = pipeline_at_hand(backbone)
        absent = [part for part in WEIGHED if folder and not any((folder / part).glob("*.safetensors"))]
        lacking = [f"{backbone.name} lacks {part}" for part in absent]
        lacking += [] if folder else [f"{backbone.name} is not in the hub's cache"]
        lacking += [] if _audiomae_at_hand(backbone) else [f"{backbone.audiomae or PUBLISHED_AUDIOMAE} is not in the hub's cache"]
        if not lacking:
            fine.append(f"{backbone.name} is here")
        elif Path(backbone.name).is_dir() or backbone.name == "mini":
            errors += lacking
        elif refusal := case.hub_refusal(backbone.name, backbone.revision):
            errors.append(f"{'; '.join(lacking)}, and the hub does not bring it ({refusal})")
        else:
            warnings.append(f"{'; '.join(lacking)}; the hub answers, and the first trial fetches it")
    remedy = "fetch it while there is a network (`hf download NAME`), or copy a whole folder and name it in backbone.name"
    level = "error" if errors else "warning" if warnings else "ok"
    return Finding(level=level, found="; ".join((*errors, *warnings, *fine)), remedy=remedy if level != "ok" else "")


def _audiomae_at_hand(backbone: BackboneSpec) -> bool:
    pipeline = pipeline_at_hand(backbone)
    if backbone.audiomae is None and pipeline and (pipeline / "audiomae").is_dir():
        return True
    name = backbone.audiomae or PUBLISHED_AUDIOMAE
    return Path(name).is_file() or at_hand(name, None, "model.safetensors") is not None


def disk(case: Case) -> Finding:
    times = case.sweep.search.num_trials if case.sweep.search else 1
    cost, at_once = case.estimate.num_bytes, _trials_at_once(case)
    need = times * cost.known + at_once * (case.estimate.checkpoint_bytes or 0)
    place = _existing(local_root(case.sweep.run.storage, case.sweep.run.cache))
    free = shutil.disk_usage(place).free
    found = f"{size(need)} to write at most, {at_once} trial(s) at once; {size(free)} free at {place}"
    if cost.unknown:
        found += f"; not counted: {', '.join(cost.unknown)}"
    remedy = "set run.storage to a larger disk, score fewer steps (the weights of each are kept), or lower run.max_concurrent"
    if need > TIGHT * free:
        return Finding(level="error" if need > free else "warning", found=found, remedy=remedy)
    if cost.unknown and not cost.known:
        return Finding(level="warning", found=found, remedy="look at the store after the first trial")
    return Finding(level="ok", found=found)


def _trials_at_once(case: Case) -> int:
    train = case.sweep.run.resources.train
    slots = [len(case.gpus()) / train["gpu"]] if train.get("gpu") else []
    slots += [(os.cpu_count() or 1) / train["cpu"]] if train.get("cpu") else []
    slots += [case.sweep.run.max_concurrent] if case.sweep.run.max_concurrent else []
    return max(1, math.floor(min([*slots, len(case.sweep.trials) if not case.sweep.search else case.sweep.search.num_trials])))


def folders(case: Case) -> Finding:
    problems = []
    run = case.sweep.run
    for key, folder in (("storage", local_root(run.storage, run.cache)), ("results", Path(run.results))):
        place = _existing(folder)
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            problems.append(f"run.{key}={getattr(run, key)!r}: nothing can be written at {place} ({error.strerror})")
    if problems:
        return Finding(level="error", found="; ".join(problems), remedy="change the folder's rights, or name another")
    return Finding(level="ok", found="store and results can be written")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.expanduser().resolve()
    return next(place for place in (path, *path.parents) if place.exists())


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

    few, enough = [], []
    for trial in {(t.target, t.spec.evaluate.num_clips, t.spec.evaluate.fad): t for t in case.trials}.values():
        samples = round(clip_seconds(trial.spec.backbone) * SAMPLES_PER_S)
        noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        for name in trial.spec.evaluate.fad:
            _, rows, dimensions = load_embedder(name)(noise).shape
            clips = {"generated": trial.spec.evaluate.num_clips, "held-out": case.inspections[trial.target].num_held_out}
            fewest = min(clips, key=lambda kind: clips[kind])
            words = f"{name}, {trial.target}: {clips[fewest] * rows} rows of {fewest} clips in {dimensions} dimensions"
            wanted = math.ceil(ROWS_PER_DIMENSION * dimensions / rows)
            (few if clips[fewest] < wanted else enough).append(words + f", {wanted} clips wanted" * (clips[fewest] < wanted))
    if few:
        remedy = "raise evaluate.num_clips or hold out more; else compare arms at this number of clips alone, and read KAD too"
        return Finding(level="warning", found="the Frechet distance is biased upwards: " + "; ".join(few), remedy=remedy)
    return Finding(level="ok", found="; ".join(enough))


CHECKS: Mapping[str, Callable[[Case], Finding]] = {
    "GPU": gpu,
    "GPU memory": memory,
    "weights": weights,
    "disk": disk,
    "folders": folders,
    "classes": classes,
    "token": token,
    "recordings": recordings,
    "distances": distances,
}


def examine(sweep: Sweep) -> dict[str, Finding]:
    """Every check, by name."""
    case = Case(sweep=sweep)
    return {name: check(case) for name, check in CHECKS.items()}


def unusable(error: SweepError) -> dict[str, Finding]:
    """A sweep that cannot be read: each mistake a finding, and no check can say more."""
    remedy = f"correct {error.path}"
    return {f"sweep, {i + 1}": Finding(level="error", found=problem, remedy=remedy) for i, problem in enumerate(error.problems)}
