"""A trial's Dreambooth stage: from what the store holds to the weights of every scored step, of one arm or of several at once.

Nothing here knows Ray. ``stages.TrialStages.train`` is the way in.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

from timbre_ray.leaving import Leaving
from timbre_ray.resumable import Resumable
from timbre_ray.train.dreambooth import Arm, train_together, trained_parameters

if TYPE_CHECKING:
    from timbre_ray.stages import TrialStages

#: Seconds between two checkpoints of a training under way.
CHECKPOINT_EVERY_S = 60.0

Steps = Generator[tuple[int, list[dict[str, float]]], None, None]


class _Run:
    """One arm's training, and its place in the store. Whoever has taken it holds its lock."""

    def __init__(self, stages: TrialStages, until: int) -> None:
        self.stages = stages
        self.spec = dataclasses.replace(stages.spec.dreambooth, steps=until)
        self.wanted = [step for step in stages.spec.evaluate.at_steps if 0 < step <= until]
        self.key = stages.keys.dreambooth(until).key
        self.history: list[dict[str, float]] = []
        self.lost = False
        """Trained beside another, it diverged: its own trial will say so."""

    @property
    def is_done(self) -> bool:
        return all(self._is_kept(step) for step in self.wanted)

    def _is_kept(self, step: int) -> bool:
        return self.stages.store.is_whole("dreambooth", self.stages.keys.dreambooth(step).key)

    def take(self) -> None:
        """Its examples, computed where the store lacks them, and its checkpoint."""
        stages, prior = self.stages, self.stages.prior()
        self.instance = stages.examples("encode", stages.encode().key, stages.prompts.instance)
        self.remembered = stages.examples(prior.stage, prior.key, prior.prompt) if prior else None
        self.saved = Resumable(stages.store, "dreambooth", self.key)
        # One beyond a step whose weights are wanted and not there is of no use.
        self.reached = self.saved.take(lambda at: all(step >= at or self._is_kept(step) for step in self.wanted))

    def arm(self, parameters: Mapping[str, torch.nn.Parameter], save: Callable[[Path], None]) -> Arm:
        self.save = save
        return Arm(
            instance=self.instance, prior=self.remembered, spec=self.spec, seed=self.stages.spec.seed, parameters=parameters,
            resume_from=self.saved.path,
        )  # fmt: skip

    def note(self, row: dict[str, float] | None) -> None:
        self.lost = row is None
        if row is not None:
            self.history.append(row)
            self.saved.mirror(len(self.history))

    def publish(self, gpt2: GPT2LMHeadModel | None, seconds: float, since: int) -> None:
        """The weights at the step just reached. seconds: of the training since step ``since``; the artifact's own are those of
        writing it."""
        step = len(self.history)

        def produce(folder: Path) -> None:
            self.save(folder)
            if gpt2 is not None:
                state = {k: v.contiguous().cpu() for k, v in gpt2.transformer.state_dict().items()}
                save_file(state, folder / "language_model.safetensors")
            (folder / "losses.json").write_text(json.dumps(self.history))

        stages = self.stages
        spent = {"seconds": seconds, "work": stages.keys.clips_trained(step - since)}
        description = {**stages.keys.dreambooth(step).description(), "step": step, "method": stages.method.name, "spent": spent}
        stages.store.get_or_compute("dreambooth", stages.dreambooth_key(step), produce, description=description)


def train(stages: TrialStages, until: int, companions: Sequence[TrialStages] = ()) -> Steps:
    """Trains to step ``until``, publishing the weights at every scored step; yields (step, losses so far) after each.

    companions: trials of the same kind (``companions.kind``) whose weights are trained in the same passes of the U-Net; those
    that are done, under way elsewhere, at another step or without recordings are left out. Leaving, raised by ``on_progress`` or
    thrown in, goes on once the checkpoints of the latest step are written.
    """
    run = _Run(stages, until)
    with contextlib.ExitStack() as locks:
        locks.enter_context(stages.store.holding("dreambooth_run", run.key))
        if run.is_done:
            stages.store.drop_checkpoint("dreambooth", run.key)  # of a process that had to leave while it kept the last weights
            for step in run.wanted:
                yield step, stages.losses(step)
            return
        run.take()
        runs = [run]
        for other in companions:
            if joined := _joined(other, runs, locks):
                runs.append(joined)
        try:
            yield from _train(runs, until)
        except FloatingPointError:  # the first one's
            for other in runs[1:]:
                other.saved.flush(len(other.history))
            raise
        for run in runs:
            run.saved.remove()


def _joined(stages: TrialStages, runs: Sequence[_Run], locks: contextlib.ExitStack) -> _Run | None:
    """The companion's training, taken, if it can go along from here; its lock is then among ``locks``."""
    with contextlib.ExitStack() as own:
        try:
            run = _Run(stages, runs[0].spec.steps)
            if run.key in [other.key for other in runs]:  # arms that differ in what is scored alone
                return None
            if not own.enter_context(stages.store.holding_if_free("dreambooth_run", run.key)) or run.is_done:
                return None
            run.take()
        except Leaving:
            raise
        except Exception as error:  # such as recordings out of reach: its own trial meets it, and says so under its name
            warnings.warn(f"a companion trains alone: {type(error).__name__}: {error}", UserWarning, stacklevel=2)
            return None
        if run.reached != runs[0].reached:
            return None
        locks.enter_context(own.pop_all())
        return run


def _train(runs: Sequence[_Run], until: int) -> Steps:
    first, backbone = runs[0], runs[0].stages.backbone
    unet, gpt2, arms = _attached(runs)
    clock, reached = time.perf_counter(), first.reached
    backbone.set_aside()
    training = train_together(
        unet, backbone.new_scheduler(), arms, device=first.stages.device, gpt2=gpt2, checkpoint_every_s=CHECKPOINT_EVERY_S
    )
    kept = False
    for step, rows in enumerate(training, start=1):
        for run, row in zip(runs, rows, strict=True):
            run.note(row)
        try:
            first.stages.progress("dreambooth", step, until, loss=first.history[-1]["loss"])
            if step in first.wanted:
                seconds = (time.perf_counter() - clock) / len(runs)
                for run in runs:
                    if not run.lost:
                        run.publish(gpt2, seconds, reached)
                kept = step == until
                yield step, list(first.history)
                backbone.set_aside()  # what the audio of this step was made with
                clock, reached = time.perf_counter(), max(step, reached)
        except Leaving as leaving:
            if kept:  # the weights are published, and the checkpoints' folders went with that
                raise
            try:
                training.throw(leaving)  # writes them, and raises it again
            finally:
                for run in runs:
                    run.saved.flush(step)


def _attached(runs: Sequence[_Run]) -> tuple[torch.nn.Module, GPT2LMHeadModel | None, list[Arm]]:
    """The U-Net with what trains in it, GPT-2 if that trains too, and the arms."""
    stages, spec = runs[0].stages, runs[0].spec
    unet, gpt2 = stages.backbone.copy_unet(), None
    if len(runs) > 1:
        attached = stages.method.together(unet, [run.spec for run in runs], [run.stages.spec.seed for run in runs])
        return unet, None, [run.arm(one.parameters, one.save) for run, one in zip(runs, attached, strict=True)]
    if spec.train_language_model:
        gpt2 = copy.deepcopy(stages.language_model(stages.teach()))
        gpt2.transformer.requires_grad_(True)
    torch.manual_seed(stages.spec.seed)  # the adapter's first weights
    stages.method.attach(unet, spec)
    save = functools.partial(stages.method.save, unet=unet, spec=spec)
    return unet, gpt2, [runs[0].arm(trained_parameters(unet, gpt2), save)]
