"""How a sweep runs and what a search may choose: settings that are no part of a result's identity. Standard library only."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from timbre_ray.object_storage import PATIENCE_S, check_place
from timbre_ray.specs import _at_least, _Strict

#: Measured where ``evaluate.fad`` lists clap.
CLAP_METRICS = ("clap_t", "clap_a")
#: What an evaluation measures; with several embedders ``fad_held_out/clap`` and the like beside them.
METRICS = (
    "fad_held_out", "fad_train", "kad_held_out", "kad_train", "solo_target_confidence", "duet_partner_rank",
    "duet_partner_confidence", "duet_target_confidence", "partner_confidence", "partner_rank", *CLAP_METRICS,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResourcesSpec(_Strict):
    """Ray resources by name: cpu, gpu (fractions allowed), or a custom one. What the YAML leaves out keeps its default."""

    train: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"cpu": 1.0, "gpu": 0.0})
    """Of one trial."""
    score: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"cpu": 0.0, "gpu": 0.0})
    """Of one evaluation actor, which works on the CPU."""

    def __post_init__(self) -> None:
        for name, amounts in (("train", self.train), ("score", self.score)):
            for resource, amount in amounts.items():
                _at_least(f"{name}.{resource}", amount, 0)
        if (gpus := self.train.get("gpu", 0)) > 1 and gpus % 1:
            raise ValueError(f"train.gpu={gpus:g}: above 1 Ray gives whole GPUs alone, and a trial uses one; give 1, or a share")
        if self.score.get("gpu"):
            raise ValueError(
                f"score.gpu={self.score['gpu']:g}: the models that score listen on the CPU, and a GPU held for them would be "
                "taken from a trial; give score cpu alone, and for speed more run.num_scorers"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec(_Strict):
    """Where and how a sweep runs. Changing it changes no key, and no result beyond rounding (another machine's, or that of
    ``train_together``)."""

    resources: ResourcesSpec = dataclasses.field(default_factory=ResourcesSpec)
    num_scorers: int = 1
    """Evaluation actors."""
    max_concurrent: int | None = None
    """Trials at once; None: as many as the resources hold."""
    train_together: int = 1
    """Trials of method lora that train at once, by one pass of the frozen U-Net for all of their adapters; they must have one
    backbone, rank, batch size and scored steps. The first computes for the others, which find their weights in the store: they
    are what each would have trained alone, but for rounding. Takes the memory of a batch so many times as large. 1: each alone,
    equal to the bit however often it was interrupted. Behind a URL a trial that another node begins meanwhile is trained twice,
    and the first result stands."""
    max_failures: int = 1
    """How often a trial is tried again after a failure that may pass (a killed worker, no memory)."""
    hang_timeout_s: float | None = None
    """A trial that makes no progress for this many seconds, or an evaluation actor at one score, writes its stack to the results
    and ends; the trial is tried again, as often as ``max_failures`` says, the score a few times more. None: never. Choose more
    than the longest stage takes."""
    threads: int = 1
    """Torch threads of a trial."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a trial computes; auto: on a GPU where it was given one."""
    time_budget_s: float | None = None
    """The sweep stops after this many seconds, trials under way too (the next run goes on from their
    checkpoints); None: no limit."""
    storage: str = "store"
    """Folder of the artifacts, from the working folder, that every node must see; or
    ``s3://bucket/prefix``, ``gs://bucket/prefix``."""
    storage_patience_s: float = PATIENCE_S
    """For how long a failing read or write of ``storage`` or ``results`` is repeated, with growing pauses, before its
    trial fails."""
    cache: str = "~/.cache/timbre-ray"
    """Where ``storage`` is a URL: folder of a node's copies."""
    results: str = "results"
    """Folder of the ledgers, from the working folder; where ``storage`` is a URL they lie below that too."""
    exporters: tuple[Literal["wandb", "mlflow", "aim"], ...] = ()
    """Where scores go beside the ledger and TensorBoard (packages: wandb, mlflow-skinny, aim); one that fails is
    switched off and harms no sweep."""

    def __post_init__(self) -> None:
        at_least = {
            "num_scorers": 1, "train_together": 1, "threads": 1, "max_failures": 0, "max_concurrent": 1, "time_budget_s": 0,
            "storage_patience_s": 0,
        }  # fmt: skip
        for name, bound in at_least.items():
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), bound)
        check_place(self.storage, key="storage")
        if self.hang_timeout_s is not None and not self.hang_timeout_s > 0:
            raise ValueError(f"hang_timeout_s={self.hang_timeout_s}: must be above 0; leave it out for no limit")
        if self.device == "cuda" and not any(amount for name, amount in self.resources.train.items() if name != "cpu"):
            raise ValueError(
                "device='cuda': trials that ask for no GPU would all share the first; set resources.train.gpu to 1, or a share"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeSpec(_Strict):
    """The values that a search may give to one setting."""

    type: Literal["float", "int", "categorical"]
    """Numbers, whole numbers, or one of ``choices``."""
    low: int | float | None = None
    """Inclusive."""
    high: int | float | None = None
    """Inclusive."""
    log: bool = False
    """Draw evenly over the logarithm."""
    choices: tuple[Any, ...] = ()
    """With ``type: categorical``."""

    def __post_init__(self) -> None:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("choices=[]: a categorical range needs them")
            if self.log or self.low is not None or self.high is not None:
                raise ValueError("type='categorical': takes choices alone, no low, high or log")
            return
        if self.choices:
            raise ValueError(f"choices={list(self.choices)}: only with type: categorical")
        for name, value in (("low", self.low), ("high", self.high)):
            if value is None or (self.type == "int" and not isinstance(value, int)):
                raise ValueError(f"{name}={value}: type {self.type} needs a {'whole ' * (self.type == 'int')}number")
        if not self.low < self.high:
            raise ValueError(f"high={self.high}: must be above low={self.low}")
        if self.log and not self.low > 0:
            raise ValueError(f"low={self.low}: must be above 0 with log: true")

    def ends(self) -> tuple[Any, ...]:
        """The values that validation tries: every choice, or both ends."""
        return self.choices or (self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AshaSpec(_Strict):
    """Stops the worse trials early (asynchronous successive halving), at their evaluations."""

    name: Literal["asha"] = "asha"
    """The only scheduler so far."""
    grace_period: int = 25
    """Dreambooth steps before which no trial is stopped."""
    reduction_factor: float = 2.0
    """Of this many trials one goes on at each rung."""

    def __post_init__(self) -> None:
        _at_least("grace_period", self.grace_period, 1)
        if not self.reduction_factor > 1:
            raise ValueError(f"reduction_factor={self.reduction_factor}: must be above 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpec(_Strict):
    """Optuna over settings of the base arm."""

    space: Mapping[str, RangeSpec]
    """Dotted key of a trial's spec -> its range. Where ``dreambooth.steps`` is drawn, a trial is scored at those of
    ``evaluate.at_steps`` that lie below its own, and at its end."""
    metric: str | tuple[str, ...] = "fad_held_out"
    """What a good trial has little or much of: a name of the table of metrics. Of several (a list) no sum is made: trials that
    none beats in all are the answer, and ASHA goes by the first."""
    mode: str | tuple[str, ...] = "min"
    """min or max; one for each metric."""
    num_trials: int = 20
    """Trials that Optuna suggests."""
    seed: int = 0
    """Of Optuna's sampler; the trials' own seed is ``base.seed``. A trial can be repeated from its settings, the sequence of
    trials cannot: it goes by when trials end, and a search that was resumed draws others than one that was not."""
    scheduler: AshaSpec | None = None
    """What stops the worse trials early; None: nothing."""

    def __post_init__(self) -> None:
        _at_least("num_trials", self.num_trials, 1)
        if not self.space:
            raise ValueError("space={}: a search needs at least one range")
        metrics, modes = _as_tuple(self.metric), _as_tuple(self.mode)
        for metric in metrics:
            if metric.split("/")[0] not in METRICS:
                near = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.0)
                raise ValueError(f"metric={metric!r}: nothing of that name is measured; nearest: {near[0]}")
        if not metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"metric={list(metrics)}: must be distinct metrics, at least one")
        for mode in modes:
            if mode not in ("min", "max"):
                raise ValueError(f"mode={mode!r}: must be min or max")
        if len(modes) != len(metrics):
            raise ValueError(f"mode={list(modes)}: {len(metrics)} metric(s) need as many modes, min or max")

    @property
    def objectives(self) -> dict[str, str]:
        """Metric -> min or max, in the order given."""
        return dict(zip(_as_tuple(self.metric), _as_tuple(self.mode), strict=True))


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
