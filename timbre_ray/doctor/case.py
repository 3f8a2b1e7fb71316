"""What the checks look at, and what they say: a sweep with the machine it is to run on, and a finding."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from timbre_ray.estimate import Estimate, estimate
from timbre_ray.model_sizes import SAMPLES_PER_S, clip_seconds
from timbre_ray.remote_tier import open_store
from timbre_ray.sweep import PlannedTrial, Sweep

if TYPE_CHECKING:
    from timbre_ray.data.inspection import Inspection


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
        return run.device != "cpu" and bool(self.gpus_a_trial or run.device == "cuda")
