"""Row 2: the whole ablation, six arms and three seeds, against eighteen scripts that share nothing."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioLDM2Pipeline
from transformers.utils.logging import disable_progress_bar

from benchmarks import baseline
from benchmarks.measure import ROOT, Figure, Row, in_turns, seconds, speedup
from timbre_ray.backbones import MINI
from timbre_ray.clip_sets import find_files
from timbre_ray.data.clips import read_audio, read_clips, write_clips
from timbre_ray.data.features import mix, normalise_waveform
from timbre_ray.estimate import Records
from timbre_ray.evaluate.scorer import classify_clips, score_clips
from timbre_ray.methods import METHODS
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.embedders import VGGishEmbedder, load_embedder
from timbre_ray.models.judges import load_judges
from timbre_ray.models.vggish import VGGish
from timbre_ray.priors import PRIORS
from timbre_ray.specs import SamplerSpec, TrialSpec
from timbre_ray.stage_keys import ScoreRequest, StageKeys
from timbre_ray.stages import CLASS_AUDIO_SEED, mixed_targets
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial, load_sweep
from timbre_ray.trial import run_trial

#: A twentieth of the sweep's optimizer steps, epochs and denoising steps in all, so that their proportions stay.
EPOCHS, STEPS, AT_STEPS, NUM_CLIPS = 3, 15, (0, 1, 15), 2
NUM_SEEDS = 3  # of the sweep's six
SAMPLER = SamplerSpec(num_inference_steps=4, scheduler="dpmsolver++", batch_size=10)


def reduced(spec: TrialSpec) -> TrialSpec:
    """The same trial with less of everything."""
    teacher = dataclasses.replace(spec.teacher, epochs=min(spec.teacher.epochs, EPOCHS))
    dreambooth = dataclasses.replace(spec.dreambooth, steps=STEPS, num_class_clips=NUM_CLIPS)
    evaluate = dataclasses.replace(spec.evaluate, at_steps=AT_STEPS, num_clips=NUM_CLIPS, sampler=SAMPLER)
    return dataclasses.replace(spec, teacher=teacher, dreambooth=dreambooth, evaluate=evaluate)


def trials() -> list[PlannedTrial]:
    """Six arms at three seeds on the first flute, at their real settings."""
    sweep = load_sweep(ROOT / "sweeps" / "mini-ablation.yaml")
    return [trial for trial in sweep.trials if trial.spec.clips.path == "mini:chinese_flute_v1" and trial.spec.seed < NUM_SEEDS]


class Scored:
    """A score that is there at once: no second process."""

    def __init__(self, request: ScoreRequest, store: Store) -> None:
        self._scores = score_clips(request, store)

    def done(self) -> bool:
        return True

    def result(self) -> dict[str, Any]:
        return self._scores


def run_ours(specs: Sequence[TrialSpec], folder: Path) -> Store:
    store = Store(folder)
    for spec in specs:
        for _ in run_trial(spec, store=store, score=lambda request: Scored(request, store)):
            pass
    return store


# -- one script ----------------------------------------------------------------------------------------------------------------


class Script:
    """What a peers' script does with one configuration: class audio, teaching, training, validations."""

    def __init__(self, spec: TrialSpec, backbone: Backbone, folder: Path) -> None:
        self.spec, self.backbone, self.folder = spec, backbone, folder
        self.prompts = spec.prompts.filled(spec.clips)
        self.files = find_files(spec.clips)
        parts = {"unet": backbone.copy_unet(), "language_model": backbone.copy_language_model()}
        self.pipeline = AudioLDM2Pipeline(**{**backbone.pipeline.components, **parts})
        self.pipeline.set_progress_bar_config(disable=True)
        self.vggish = VGGish.from_pretrained(MINI / "vggish")

    def run(self) -> dict[int, float]:
        """-> step: distance to the held-out recordings."""
        spec = self.spec
        prior = PRIORS[spec.dreambooth.method](self, self.prompts, spec.dreambooth) if spec.dreambooth.method in PRIORS else None
        if spec.teacher.epochs:
            gpt2, audiomae = self.pipeline.language_model, self.backbone.audiomae
            lesson = (self.files.train, self.prompts.instance)
            list(baseline.teach(self.pipeline, audiomae, gpt2, *lesson, spec.teacher, seed=spec.seed))
        scores = {0: self.validate(0)}
        unet = self.pipeline.unet
        torch.manual_seed(spec.seed)  # an adapter's first weights
        METHODS[spec.dreambooth.method].attach(unet, spec.dreambooth)
        instance = (self.files.train, self.prompts.instance)
        source = (sorted((self.folder / prior.key).glob("*.flac")), prior.prompt) if prior else None
        steps = baseline.train(self.pipeline, unet, instance, source, spec.dreambooth, seed=spec.seed)
        for step, _ in enumerate(steps, start=1):
            if step in spec.evaluate.at_steps:
                unet.eval()
                scores[step] = self.validate(step)
                unet.train()
        return scores

    def validate(self, step: int) -> float:
        """Saves the whole pipeline, generates the three prompts clip by clip, scores file by file."""
        evaluate, found = self.spec.evaluate, {}
        self.pipeline.save_pretrained(self.folder / f"pipeline_{step}")
        for name in ("instance", "duet", "partner"):
            clips = baseline.generate(
                self.backbone, self.pipeline, getattr(self.prompts, name), num_clips=evaluate.num_clips, seed=evaluate.seed,
                sampler=evaluate.sampler,
            )  # fmt: skip
            found[name] = self._write(clips, f"{name}_{step}")
        judges = load_judges()
        for path in itertools.chain.from_iterable(found.values()):
            classify_clips(judges, read_audio(path)[None])
        return baseline.distance(self.vggish, self.files.held_out, found["instance"], VGGishEmbedder.HOP_FRAMES)

    def generated(self, prompt: str) -> tuple[str, str]:
        clips = baseline.generate(
            self.backbone, self.pipeline, prompt, num_clips=self.spec.dreambooth.num_class_clips,
            seed=CLASS_AUDIO_SEED + self.spec.seed, sampler=self.spec.evaluate.sampler,
        )  # fmt: skip
        self._write(clips, "class")
        return "class", "class"

    def mixed(self, partner_prompt: str, gain_db: float) -> tuple[str, str]:
        self.generated(partner_prompt)
        partners = read_clips(self.folder / "class")
        target = normalise_waveform(torch.stack([read_audio(path) for path in self.files.train]))
        self._write(mix(target[mixed_targets(len(partners), len(target))], partners, gain_db), "mixed")
        return "mixed", "mixed"

    def _write(self, clips: torch.Tensor, name: str) -> list[Path]:
        (self.folder / name).mkdir(parents=True)
        write_clips(clips, self.folder / name)
        return sorted((self.folder / name).glob("*.flac"))


def run_theirs(specs: Sequence[TrialSpec], backbone: Backbone, folder: Path) -> None:
    for number, spec in enumerate(specs):
        Script(spec, backbone, folder / str(number)).run()


# -- the row -------------------------------------------------------------------------------------------------------------------


def cost_curve(planned: Sequence[PlannedTrial], records: Records) -> list[Figure]:
    """Seconds of the first 1, 2, ... arms, unshared over shared: stages counted by key times their median in ``records``."""
    arms = list(dict.fromkeys(trial.arm for trial in planned))
    figures = []
    for count in range(1, len(arms) + 1):
        stages = [s for t in planned if t.arm in arms[:count] for s in StageKeys(t.spec).all()]
        distinct = {(stage.name, stage.key): stage for stage in stages}.values()
        costs = [[records.seconds(stage) for stage in some] for some in (stages, distinct)]
        assert not any(cost.unknown for cost in costs[0]), "a stage of this very run was not measured"
        alone, shared = (sum(cost.known for cost in some) for some in costs)
        figures.append(Figure(
            name=f"unshared over shared seconds, arms: {count}", values=(alone / shared,), kind="computed",
            sides={"shared_s": (shared,), "unshared_s": (alone,)},
        ))  # fmt: skip
    return figures


def measure(repeats: int, num_arms: int = 6, num_seeds: int = 3) -> list[Figure]:
    """Seed by seed, in turns. Once, whatever ``repeats`` says: eighteen scripts take as long as the other rows together."""
    torch.set_num_threads(1)
    disable_progress_bar()  # of saving, in either side's output
    arms = list(dict.fromkeys(trial.arm for trial in trials()))[:num_arms]
    planned = [trial for trial in trials() if trial.arm in arms and trial.spec.seed < num_seeds]
    small = [dataclasses.replace(trial, spec=reduced(trial.spec)) for trial in planned]
    blocks = [[trial.spec for trial in small if trial.spec.seed == seed] for seed in range(num_seeds)]
    backbone = load_backbone(small[0].spec.backbone)
    load_judges(), load_embedder("vggish")  # of either side, before the clock starts
    with tempfile.TemporaryDirectory() as name:
        folder, turns = Path(name), {"ours": iter(blocks), "theirs": enumerate(blocks)}
        run_theirs(blocks[0][:1], backbone, folder / "warm-up")
        run_ours(blocks[0][:1], folder / "warm-up" / "store")

        def theirs() -> None:
            number, block = next(turns["theirs"])
            run_theirs(block, backbone, folder / f"theirs{number}")

        times = in_turns(seconds(lambda: run_ours(next(turns["ours"]), folder / "ours")), seconds(theirs), num_seeds)
        whole = tuple((sum(side),) for side in times)
        return [
            speedup("all trials, times faster", *whole, goal=3.0), speedup("by seed, times faster", *times, goal=None),
            *cost_curve(small, Records(Store(folder / "ours"))),
        ]  # fmt: skip


ROW = Row(
    name="ablation", title="Six arms by three seeds", measure=measure,
    setup=f"Eighteen trials of sweeps/mini-ablation.yaml on one flute, reduced: {EPOCHS} epochs, {STEPS} steps, scored at "
    f"{AT_STEPS}, {NUM_CLIPS} clips a prompt, {SAMPLER.num_inference_steps} sampler steps, the vocoder. Once, seed by seed, "
    "sides in turns; our later seeds find what the first left in the store. Each side in one process with its models loaded "
    "before the clock starts: neither Ray's start nor the scripts' is counted. The curve is computed, not measured: stages by "
    "their keys, all or the distinct ones, times this run's medians at the same reduced sizes.",
)  # fmt: skip
