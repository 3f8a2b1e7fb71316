"""A trial, whole: stages in order, scores while training goes on. Nothing here knows Ray."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import soundfile

from timbre_ray.clap_choice import MIN_CLIPS
from timbre_ray.clip_sets import ClipError
from timbre_ray.evaluate.scorer import Pending, ScoreRequest
from timbre_ray.finished import FinishedTrial
from timbre_ray.leaving import Leaving
from timbre_ray.models.backbone import quiet
from timbre_ray.specs import TrialSpec, as_dict
from timbre_ray.stages import Lazy, TrialStages
from timbre_ray.store import Store
from timbre_ray.trial_progress import Evaluation, Progress
from timbre_ray.whole import check_free, whole_folder


def run_trial(
    spec: TrialSpec, *, store: Store, score: Callable[[ScoreRequest], Pending], device: str = "cpu",
    on_progress: Callable[[Progress], None] | None = None, companions: Sequence[TrialSpec] = (),
) -> Iterator[Evaluation]:  # fmt: skip
    """The whole path of one trial. Scores run while training goes on; evaluations come in the order of their steps.

    companions: trials whose weights may be trained along with this one's (``companions.companions``).
    """
    stages = TrialStages(spec, store, device, on_progress)
    _check_clips(stages)
    pending: list[tuple[int, dict[str, str], list[dict[str, float]], Pending]] = []

    def submit(step: int, losses: list[dict[str, float]]) -> None:
        audio = stages.audio(step)
        pending.append((step, {name: a.key for name, a in audio.items()}, losses, score(stages.request(audio))))

    def collect(wait: bool) -> Iterator[Evaluation]:
        while pending and (wait or pending[0][3].done()):
            step, audio, losses, handle = pending.pop(0)
            result = handle.result()
            yield Evaluation(
                step=step, num_clips=result["num_clips"], metrics=result["metrics"], confidences=result["confidences"],
                audio=audio, losses=losses,
            )  # fmt: skip

    at_steps = spec.evaluate.at_steps
    if at_steps[0] == 0:
        submit(0, [])
        yield from collect(wait=False)
    if at_steps[-1] > 0:
        training = stages.train(at_steps[-1], companions)
        for step, losses in training:
            try:
                submit(step, losses)
                yield from collect(wait=False)
            except Leaving as leaving:
                training.throw(leaving)  # it knows its checkpoint, and raises it again
    yield from collect(wait=True)


def _check_clips(stages: TrialStages) -> None:
    """Raises ClipError where a split has too few clips for CLAP's distances: here, before anything is taught or played."""
    if "clap" not in stages.spec.evaluate.fad:
        return
    folder = stages.encode().folder
    for split in ("train", "held_out"):
        if (num := len(list(folder.glob(f"{split}_*.flac")))) < MIN_CLIPS:
            raise ClipError(
                f"{stages.spec.clips.path}: {num} {split} clip, and evaluate.fad lists clap, whose distances need {MIN_CLIPS}; "
                "add recordings, hold out others (clips.held_out), or leave clap out"
            )


def generate_from(trial: FinishedTrial, prompt: str, *, num_clips: int, seed: int, out: Path, device: str = "cpu") -> list[Path]:
    """Plays a trial's weights: 16-bit WAV files in ``out``, each with a JSON file of its own that says what it is; returns the
    paths of the WAV files. Raises FileExistsError if ``out`` holds anything: nothing is written over.
    """
    check_free(out)
    spec, step = dataclasses.replace(trial.spec, evaluate=dataclasses.replace(trial.spec.evaluate, seed=seed)), trial.step
    stages = TrialStages(spec, trial.store, device, recordings=trial.recordings)
    artifact = stages.generate_prompt(step, prompt, num_clips, Lazy(lambda: stages.trained_unet(step)))
    about = {
        "trial_id": trial.trial_id, "target": trial.target, "sweep": trial.sweep, "prompt": prompt, "seed": seed, "step": step,
        "method": spec.dreambooth.method, "trained_with_seed": spec.seed,
        "backbone": spec.backbone.name, "sampler": as_dict(spec.evaluate.sampler), "artifact": f"generate/{artifact.key}",
    }  # fmt: skip
    names = []
    with whole_folder(out) as folder:
        for clip, source in enumerate(sorted(artifact.folder.glob("clip_*.flac"))):
            samples, rate_hz = soundfile.read(source, dtype="int16")  # as they are stored: no rounding
            names.append(f"{source.stem}.wav")
            soundfile.write(folder / names[-1], samples, rate_hz)
            (folder / f"{source.stem}.json").write_text(json.dumps({**about, "clip": clip}, indent=2) + "\n", encoding="utf-8")
    return [out / name for name in names]


def export(
    spec: TrialSpec, *, step: int, out: Path, store: Store, recordings: Mapping[str, list[str]] | None = None
) -> None:  # fmt: skip
    """Writes the model after ``step`` steps as a folder that plain ``AudioLDM2Pipeline.from_pretrained`` loads.

    Its AudioMAE lies beside it, so that the folder is a backbone for further sweeps too. Raises FileExistsError if ``out`` is
    there: nothing is written over, and nothing half written stays.
    """
    stages = TrialStages(spec, store, "cpu", recordings=recordings)
    with whole_folder(out) as folder, quiet():
        stages.pipeline(step).save_pretrained(folder, safe_serialization=True)
        stages.backbone.audiomae.save_pretrained(folder / "audiomae")
