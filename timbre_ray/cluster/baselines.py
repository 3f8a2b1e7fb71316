"""The real-versus-real floor of each target, computed by the evaluation actors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ray.tune import Callback

from timbre_ray.clip_sets import find_files
from timbre_ray.cluster.failures import ScoringFailedError, describe, root_of
from timbre_ray.cluster.scoring import RemoteScore
from timbre_ray.cluster.trainable import TrialContext
from timbre_ray.identity import JUDGES, VERSIONS, backbone_digest, judges_digest
from timbre_ray.ledger import Ledger
from timbre_ray.specs import TrialSpec, as_dict, digest
from timbre_ray.sweep import PlannedTrial


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A floor to be computed."""

    spec: TrialSpec
    key: str


def missing_baselines(trials: Iterable[PlannedTrial], ledger: Ledger) -> dict[str, Baseline]:
    """Target -> every baseline that the ledger does not hold yet, or holds for other clips or another evaluation."""
    known = {target: record.get("key") for target, record in ledger.baselines().items()}
    wanted: dict[str, TrialSpec] = {}
    for trial in trials:
        wanted.setdefault(trial.target, trial.spec)
    found = {target: Baseline(spec=spec, key=baseline_key(spec)) for target, spec in wanted.items()}
    return {target: baseline for target, baseline in found.items() if known.get(target) != baseline.key}


def baseline_key(spec: TrialSpec) -> str:
    """Real clips are encoded, decoded and scored; nothing is trained, so nothing else of the spec matters."""
    evaluate = as_dict(spec.evaluate)
    judges = judges_digest(*(evaluate.pop(name) for name in JUDGES))
    judged = [backbone_digest(spec.backbone), judges, VERSIONS["score"]]
    return digest({"clips": find_files(spec.clips).digests(), "models": judged, "evaluate": evaluate})


class Baselines(Callback):
    """Asks for a target's floor once one of its trials has a score: its recordings are encoded then, so that an evaluation actor
    needs no backbone for it and no trial waits for a GPU. A target none of whose trials is scored has no use for a floor.
    """

    def __init__(self, missing: Mapping[str, Baseline], *, context: TrialContext, scored: Iterable[str]) -> None:
        """scored: targets of which earlier runs have scored trials."""
        self._missing, self._context, self._asked = dict(missing), context, dict[str, RemoteScore]()
        for target in scored:
            self._ask(target)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "step" in result:
            self._ask(self._context.plan(trial.config).target)

    def _ask(self, target: str) -> None:
        baseline, context = self._missing.pop(target, None), self._context
        if baseline is not None:
            self._asked[target] = context.scorers.baseline(
                context.functions.baseline, baseline.spec, target=target, key=baseline.key,
                ledger_folder=context.ledger_folder,
            )  # fmt: skip

    def wait(self) -> dict[str, dict[str, str]]:
        """Waits for all that were asked for; target -> error of those that failed."""
        errors: dict[str, dict[str, str]] = {}
        for target, asked in self._asked.items():
            try:
                asked.result()
            except ScoringFailedError as error:
                errors[target] = describe(root_of(error), stage="baseline")
        return errors
