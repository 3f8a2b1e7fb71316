"""What a search found out about its settings: Optuna's importances over the finished trials."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from timbre_ray.ledger import short_name
from timbre_ray.report.numbers import NOTHING, number
from timbre_ray.report.results import Results, point_in_force
from timbre_ray.run_specs import RangeSpec

if TYPE_CHECKING:  # a report of an ablation must not cost the time of optuna
    import optuna

MIN_TRIALS = 15
MAX_TRIALS = 300
"""The forest takes seconds for so many, half a minute for a thousand and more than in proportion beyond."""
SEED = 0
SHOWN = 50
CSV_HEADER = ("setting", "metric", "share")
ALIKE = 1e-6
"""Scores nearer to each other than that are the same: a forest would find nothing in them, or split what rounding left."""
READING = (
    "Optuna’s importances (fANOVA): the share of the score’s variance over the space that one setting alone accounts for, by a "
    "random forest on the finished trials. They add up to 1 whether or not anything matters, and a setting that the search "
    "seldom varied cannot show: a ranking to look closer at, no test. Trials that ASHA ended early count with their last score."
)
"""Not Optuna's default, PED-ANOVA: it looks at the best tenth, two trials of twenty (docs/explanation.md has figures)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """One finished trial of a search."""

    trial_id: str
    point: Mapping[str, Any]
    """Dotted key -> what Optuna chose."""
    values: tuple[float, ...]
    """Its last score in each objective."""
    last_step: int
    """Where that was: ASHA ends most trials early."""
    in_force: Mapping[str, Any]
    """Of ``point`` what its method reads (``results.point_in_force``)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    objectives: Mapping[str, str]
    """Metric -> min or max."""
    space: Mapping[str, RangeSpec]
    trials: tuple[Drawn, ...]
    """Finished, within the ranges of today, the oldest first."""
    varied: tuple[str, ...]
    """Objectives in which trials differ."""
    shares: Mapping[str, tuple[float, ...]]
    """Setting -> its importance for each of ``varied``, the most important for the first of them first; empty below MIN_TRIALS
    and where nothing varied."""

    @property
    def sentence(self) -> str:
        if len(self.trials) < MIN_TRIALS:
            return f"{len(self.trials)} trials have finished; importances are not estimated from fewer than {MIN_TRIALS}."
        alike = " and the same ".join(metric for metric in self.objectives if metric not in self.varied)
        if not self.shares:
            return f"All {len(self.trials)} finished trials have the same {alike}, so there are no importances to estimate."
        key, (share, *_) = next(iter(self.shares.items()))
        of_all = f"Over {len(self.trials)} finished trials"
        if len(self.trials) > MAX_TRIALS:
            of_all = f"Over {MAX_TRIALS} of {len(self.trials)} finished trials, spread evenly from the first to the last,"
        rest = f" All have the same {alike}, for which nothing matters." if alike else ""
        return f"{of_all} {key} matters most for {self.varied[0]}, with a share of {share:.2f}.{rest}"

    @property
    def headers(self) -> tuple[str, ...]:
        return "setting", *(f"share of {metric}" for metric in self.varied)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        return tuple((key, *(f"{share:.2f}" for share in shares)) for key, shares in self.shares.items())

    @property
    def trial_headers(self) -> tuple[str, ...]:
        short = [key.rpartition(".")[2] for key in self.space]
        return "trial", *self.objectives, "at step", *(short if len(set(short)) == len(short) else self.space)

    @property
    def trial_rows(self) -> tuple[tuple[str, ...], ...]:
        """The best in the first objective, at most SHOWN of them, the best first."""
        sign = 1 if next(iter(self.objectives.values())) == "min" else -1
        best = sorted(self.trials, key=lambda trial: sign * trial.values[0])[:SHOWN]
        return tuple(
            (
                short_name(t.trial_id),
                *map(number, t.values),
                str(t.last_step),
                *(_setting(t.in_force.get(k)) for k in self.space),
            )
            for t in best
        )


def _setting(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def gather(results: Results) -> Search | None:
    """None unless the sweep is a search of which a trial has finished."""
    objectives, ranges = dict(results.sweep.get("objectives") or {}), results.sweep.get("space") or {}
    finished = sorted((t for t in results.with_status("finished") if t["evaluations"]), key=lambda t: t.get("started") or 0)
    if not objectives or not ranges or not finished:
        return None
    from timbre_ray.search_space import distributions, inside

    space = {key: RangeSpec(**{**values, "choices": tuple(values["choices"])}) for key, values in ranges.items()}
    drawn_from = distributions(space)
    trials = []
    for trial in finished:
        point = {key: trial["point"][key] for key in space if key in trial["point"]}
        if set(point) == set(space) and inside(point, drawn_from):
            last = trial["evaluations"][-1]
            values, chosen = tuple(last["metrics"][metric] for metric in objectives), point_in_force(trial)
            trials.append(Drawn(trial_id=trial["trial_id"], point=point, values=values, last_step=last["step"], in_force=chosen))
    spread = [trials[place] for place in sorted({round(p) for p in np.linspace(0, len(trials) - 1, MAX_TRIALS)})]
    varied = _varied(spread, objectives)
    shares = _shares(spread, objectives, varied, drawn_from) if varied and len(trials) >= MIN_TRIALS else {}
    return Search(objectives=objectives, space=space, trials=tuple(trials), varied=varied, shares=shares) if trials else None


def frame(search: Search) -> pd.DataFrame:
    """One setting and objective a line."""
    lines = [
        (key, metric, share) for key, shares in search.shares.items() for metric, share in zip(search.varied, shares, strict=True)
    ]
    return pd.DataFrame(lines, columns=list(CSV_HEADER))


def _varied(trials: Sequence[Drawn], objectives: Mapping[str, str]) -> tuple[str, ...]:
    values = zip(*(trial.values for trial in trials), strict=True)
    pairs = zip(objectives, values, strict=False)  # without trials there are no values
    return tuple(metric for metric, own in pairs if not math.isclose(min(own), max(own), abs_tol=ALIKE))


def _shares(
    trials: Sequence[Drawn],
    objectives: Mapping[str, str],
    varied: Collection[str],
    space: Mapping[str, optuna.distributions.BaseDistribution],
) -> dict[str, tuple[float, ...]]:
    """Of every objective in ``varied``: Optuna raises an error where all trials have the same value."""
    import optuna

    even = {key: _even(distribution) for key, distribution in space.items()}
    distributions = {key: distribution for key, (distribution, _) in even.items()}
    with _quiet():
        study = optuna.create_study(directions=[f"{mode}imize" for mode in objectives.values()])
    for trial in trials:
        params = {key: even[key][1](value) for key, value in trial.point.items()}
        study.add_trial(optuna.create_trial(values=list(trial.values), params=params, distributions=distributions))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=SEED)
    found = [
        optuna.importance.get_param_importances(study, evaluator=evaluator, target=lambda trial, i=i: trial.values[i])
        for i, metric in enumerate(objectives)
        if metric in varied
    ]
    return {key: tuple(float(shares[key]) for shares in found) for key in found[0]}


def _even(
    distribution: optuna.distributions.BaseDistribution,
) -> tuple[optuna.distributions.BaseDistribution, Callable[[Any], Any]]:
    """A range that is drawn over the logarithm, as its logarithms: Optuna's fANOVA takes variance over the plain numbers, most of
    which lie in the highest decade."""
    import optuna

    if not getattr(distribution, "log", False):
        return distribution, lambda value: value
    return optuna.distributions.FloatDistribution(math.log(distribution.low), math.log(distribution.high)), math.log


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna greets every study on the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
