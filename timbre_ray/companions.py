"""Which trials train together: those whose method lays several arms over one frozen U-Net. No torch.

A pass of the U-Net then serves all of them, and each keeps its own weights under its own key: a trial that comes later finds its
training done. Who may train whom is decided when the sweep starts; whether their weights are still lacking, as training begins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from timbre_ray.specs import TrialSpec, as_dict, digest
from timbre_ray.stage_keys import unread_settings
from timbre_ray.sweep import PlannedTrial

#: Methods whose ``Method.together`` is not None.
METHODS = frozenset({"lora"})
#: Of ``dreambooth``, what each arm has for itself.
OWN = frozenset({"lr", "weight_decay", "max_grad_norm", "lora_alpha", "steps"})


def kind(spec: TrialSpec) -> str | None:
    """Trials of one kind can train together; None for one that trains alone. Recordings, prompts, teacher and seed may differ."""
    settings = spec.dreambooth
    if settings.method not in METHODS or settings.train_language_model or settings.mixed_precision == "fp16":
        return None  # of fp16 there is one loss scale: an arm that overflows would hold up the others
    if not spec.evaluate.at_steps[-1]:
        return None
    left_out = OWN | unread_settings(settings.method, settings.train_language_model)
    shared = {name: value for name, value in as_dict(settings).items() if name not in left_out}
    return digest({"backbone": as_dict(spec.backbone), "dreambooth": shared, "at_steps": list(spec.evaluate.at_steps)})


def companions(trials: Iterable[PlannedTrial], *, at_once: int, slots: int) -> dict[str, tuple[str, ...]]:
    """Id of a trial -> ids of those that it trains beside its own; none has two that train it.

    trials: in the order in which they start. ``slots`` of them run at a time: so many that start one after another do not wait
    for each other, and each takes ``at_once - 1`` of those that come after them.
    """
    kinds = defaultdict[str, list[str]](list)
    for trial in trials:
        if (of_trial := kind(trial.spec)) is not None:
            kinds[of_trial].append(trial.trial_id)
    found = {}
    for ids in kinds.values():
        for first in range(0, len(ids), at_once * slots):
            block = ids[first : first + at_once * slots]
            found |= {leader: tuple(block[i + slots :: slots]) for i, leader in enumerate(block[:slots])}
    return {leader: others for leader, others in found.items() if others}
