"""The ledger of one sweep as a long table of scores."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from timbre_ray.ledger import Ledger, partner_of, short_name
from timbre_ray.stage_keys import unread_settings

FRAME_COLUMNS = ("trial_id", "arm", "target", "seed", "step", "final", "metric", "value", "num_clips")
POINT_KEYS_WITH_A_COLUMN = frozenset({"clips.path", "seed"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the tables: an arm, or an arm at one point of a grid over more than targets and seeds."""

    label: str
    name: str
    """In the sweep's file."""
    point: str
    """The grid's settings that vary, in words; empty where none does."""
    method: str
    teacher: bool
    """GPT-2 was taught by AudioMAE before Dreambooth."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What the ledger holds of a sweep's planned trials."""

    sweep: Mapping[str, Any]
    arms: tuple[Arm, ...]
    """In the sweep's order; arms of which no trial has begun are missing."""
    targets: tuple[str, ...]
    trials: tuple[Mapping[str, Any], ...]
    """Every recorded trial that is still planned, whatever its status."""
    num_planned: int | None
    """None where the sweep's record does not say (key ``planned``: trial ids, or a number)."""
    baselines: Mapping[str, Mapping[str, Any]]
    labels: Mapping[str, str]
    """Trial id -> the label of its arm."""
    frame: pd.DataFrame
    """Finished trials only, one score a line: FRAME_COLUMNS; ``final`` marks a trial's last step."""

    @property
    def name(self) -> str:
        return str(self.sweep.get("name", "sweep"))

    @property
    def is_search(self) -> bool:
        """Its trials are points of one arm, no arms to be compared."""
        return bool(self.sweep.get("objectives"))

    @functools.cached_property
    def embedders(self) -> tuple[str, ...]:
        """Suffixes of the FAD metrics: "" for the first embedder, "/clap" and the like for others."""
        found = {m.removeprefix("fad_held_out") for m in self.frame["metric"].unique() if m.startswith("fad_held_out")}
        return tuple(sorted(found))

    @functools.cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(int(step) for step in self.frame["step"].unique()))

    @functools.cached_property
    def untouched(self) -> pd.DataFrame:
        """Step 0 of the backbone as it came, nothing taught and nothing trained: of each target and seed one arm's lines.

        All arms without teacher share these clips, so any of them will do where the first has no finished trial. One whose clips
        are others by their keys, those of another backbone say, will not.
        """
        plain = sorted((arm for arm in self.arms if not arm.teacher), key=lambda arm: arm.method != "direct")
        places = {label: place for place, label in enumerate(self._of_one_backbone([arm.label for arm in plain]))}
        own = self.frame[(self.frame["step"] == 0) & self.frame["arm"].isin(places)]
        own = own.sort_values("arm", key=lambda labels: labels.map(places), kind="stable")
        first = own.drop_duplicates(["target", "seed"])["trial_id"]
        return own[own["trial_id"].isin(first)]

    def _of_one_backbone(self, labels: Iterable[str]) -> list[str]:
        """Of these arms the first, and those whose step 0 nowhere has other audio than those before them."""
        clips: dict[str, dict[tuple[str, int], Any]] = defaultdict(dict)
        for trial in self.with_status("finished"):
            for evaluation in trial["evaluations"]:
                if evaluation["step"] == 0 and evaluation.get("audio"):
                    clips[self.labels[trial["trial_id"]]][str(trial["target"]), int(trial["seed"])] = evaluation["audio"]
        kept, known = [], dict[tuple[str, int], Any]()
        for label in labels:
            own = clips.get(label, {})
            if all(known.get(place, audio) == audio for place, audio in own.items()):
                kept.append(label)
                known = own | known
        return kept

    @functools.cached_property
    def partner(self) -> str:
        """How the report calls the known instrument whose survival is measured: "piano" and the like."""
        return partner_of(self.trials)

    def instrument(self, target: str) -> str:
        """What the target's recordings play, as the trials' specs name it."""
        specs = (trial["spec"].get("clips", {}) for trial in self.trials if str(trial["target"]) == target)
        names = {str(clips.get("instrument", "instrument")) for clips in specs}
        return names.pop() if len(names) == 1 else "instrument"

    @functools.cached_property
    def by_id(self) -> Mapping[str, Mapping[str, Any]]:
        return {trial["trial_id"]: trial for trial in self.trials}

    def with_status(self, status: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(trial for trial in self.trials if trial["status"] == status)

    @functools.cached_property
    def points(self) -> tuple[str, ...]:
        """Of the grid over more than targets and seeds, in the sweep's order."""
        return tuple(dict.fromkeys(arm.point for arm in self.arms))

    def at(self, point: str) -> Results:
        """What was found at one point of the grid."""
        arms = tuple(arm for arm in self.arms if arm.point == point)
        return dataclasses.replace(self, arms=arms, frame=self.frame[self.frame["arm"].isin([arm.label for arm in arms])])

    @functools.cached_property
    def not_begun(self) -> tuple[str, ...]:
        """Names of the arms of which no trial is recorded yet."""
        begun = {arm.name for arm in self.arms}
        return tuple(str(name) for name in self.sweep.get("arms", ()) if name not in begun)

    @functools.cached_property
    def specs(self) -> Mapping[str, Mapping[str, Any]]:
        """Label of an arm -> the spec of a trial of it; others differ in target and seed alone."""
        return {self.labels[trial["trial_id"]]: trial["spec"] for trial in reversed(self.trials)}

    def arms_of(self, method: str, *, teacher: bool) -> list[Arm]:
        return [arm for arm in self.arms if arm.method == method and arm.teacher == teacher]

    def of_arm(self, arm: str) -> pd.DataFrame:
        """The arm's lines of ``frame``, in its order; none for an arm of which no trial has finished."""
        return self.frame.iloc[self._lines_of_arms.get(arm, [])]

    def of_score(self, arm: str, metric: str) -> pd.DataFrame:
        """The arm's lines of one metric."""
        return self.frame.iloc[self._lines_of_scores.get((arm, metric), [])]

    @functools.cached_property
    def _lines_of_arms(self) -> Mapping[str, np.ndarray]:
        """Found once: a report asks for every arm, and looking through ten thousand trials for each takes minutes."""
        return self.frame.groupby("arm").indices

    @functools.cached_property
    def _lines_of_scores(self) -> Mapping[tuple[str, str], np.ndarray]:
        return self.frame.groupby(["arm", "metric"]).indices

    def lines(self, arm: str, step: int | None, metric: str) -> pd.DataFrame:
        """The arm's lines of one metric at one step; None: each trial's last."""
        frame = self.of_score(arm, metric)
        return frame[frame["final"] if step is None else frame["step"] == step]

    def values(self, arm: str, metric: str, *, step: int | None) -> pd.Series:
        """Scores by (target, seed); ``step`` None: each trial's last step."""
        return self.lines(arm, step, metric).set_index(["target", "seed"])["value"].sort_index()


def load(folder: Path) -> Results:
    """Read results/<sweep>/. Orphaned trials (no longer planned) are left out."""
    ledger = Ledger(folder)
    sweep = ledger.sweep()
    trials = _still_planned(ledger.trials(), sweep)
    if not trials:
        raise ValueError(f"{folder}: no trial is recorded there, so there is nothing to report; run the sweep first")
    labels = {t["trial_id"]: short_name(t["trial_id"]) for t in trials} if sweep.get("objectives") else _labels(trials)
    frame = _frame([trial for trial in trials if trial["status"] == "finished"], labels)
    targets = tuple(sorted({str(trial["target"]) for trial in trials}))
    return Results(
        sweep=sweep,
        arms=_arms(trials, labels, _places(trials, sweep)),
        targets=targets,
        trials=tuple(trials),
        num_planned=_num_planned(sweep),
        baselines={name: record for name, record in ledger.baselines().items() if name in targets},
        labels=labels,
        frame=frame,
    )


def _still_planned(records: Sequence[Mapping[str, Any]], sweep: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    planned = sweep.get("planned")
    names = set(planned) if isinstance(planned, list) else None
    kept = [r for r in records if not r.get("orphaned") and (names is None or r["trial_id"] in names)]
    return sorted(kept, key=lambda r: str(r["trial_id"]))


def _num_planned(sweep: Mapping[str, Any]) -> int | None:
    planned = sweep.get("planned")
    return len(planned) if isinstance(planned, list) else planned


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of a spec in a record."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unread_of(spec: Mapping[str, Any]) -> frozenset[str]:
    """``unread_settings`` of a spec in a record, which may be older than some settings."""
    dreambooth, teacher = spec["dreambooth"], spec.get("teacher", {})
    hears_mixtures = bool(teacher.get("epochs") and teacher.get("mixture_weight"))
    return unread_settings(dreambooth["method"], dreambooth.get("train_language_model", False), hears_mixtures)


def point_in_force(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a search chose for a trial, what its method reads: not a LoRA rank without LoRA, drawn and without effect."""
    unread = unread_of(trial["spec"])
    return {key: value for key, value in trial["point"].items() if key.removeprefix("dreambooth.") not in unread}


def _labels(trials: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Trial -> its arm's name, with the grid's settings that have no column of their own and differ between any two trials: also
    of an arm that has begun at one point only.
    """
    found: dict[str, str] = {}
    varying = _varying(trials)
    for trial in trials:
        point = _point(trial, varying)
        found[trial["trial_id"]] = f"{trial['arm']} ({point})" if point else str(trial["arm"])
    return found


def _varying(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = {key for trial in trials for key in trial.get("point", {})} - POINT_KEYS_WITH_A_COLUMN
    return sorted(key for key in keys if any(_setting(trial, key) != _setting(trials[0], key) for trial in trials))


def _setting(trial: Mapping[str, Any], key: str) -> Any:
    """As its spec has it where the grid had no such key yet when it ran: the trial was kept, being the same."""
    if key in trial.get("point", {}):
        return trial["point"][key]
    value: Any = trial["spec"]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _point(trial: Mapping[str, Any], varying: Sequence[str]) -> str:
    shown = [(key, value) for key in varying if (value := _setting(trial, key)) is not None]
    return ", ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in shown)


def _places(trials: Sequence[Mapping[str, Any]], sweep: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Trial -> where it comes in the tables: by its arm's place in the sweep, then its own; in a search by its last score, the
    best first.
    """
    arms, planned = list(sweep.get("arms", ())), sweep.get("planned")
    order = {name: place for place, name in enumerate(planned if isinstance(planned, list) else ())}
    places = {
        t["trial_id"]: (arms.index(t["arm"]) if t["arm"] in arms else len(arms), order.get(t["trial_id"], math.inf))
        for t in trials
    }
    for metric, mode in list((sweep.get("objectives") or {}).items())[:1]:
        last = {t["trial_id"]: t["evaluations"][-1]["metrics"].get(metric) for t in trials if t["status"] == "finished"}
        losses = {name: value if mode == "min" else -value for name, value in last.items() if value is not None}
        places = {t["trial_id"]: (losses.get(t["trial_id"], math.inf), 0.0) for t in trials}
    return places


def _arms(
    trials: Sequence[Mapping[str, Any]], labels: Mapping[str, str], places: Mapping[str, tuple[float, float]]
) -> tuple[Arm, ...]:
    found: dict[str, Arm] = {}
    for trial in sorted(trials, key=lambda trial: (places[trial["trial_id"]], labels[trial["trial_id"]])):
        spec, label, name = trial["spec"], labels[trial["trial_id"]], str(trial["arm"])
        method, teacher = spec["dreambooth"]["method"], spec["teacher"]["epochs"] > 0
        point = label.removeprefix(name).removeprefix(" (").removesuffix(")")
        found.setdefault(label, Arm(label=label, name=name, point=point, method=method, teacher=teacher))
    return tuple(found.values())


def _frame(finished: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> pd.DataFrame:
    lines = []
    for trial in finished:
        last = max(evaluation["step"] for evaluation in trial["evaluations"])
        for evaluation in trial["evaluations"]:
            for metric, value in evaluation["metrics"].items():
                if not isinstance(value, int | float) or not math.isfinite(value):
                    raise ValueError(
                        f"trials/{trial['trial_id']}.json: evaluations[step={evaluation['step']}].metrics.{metric}={value!r}: "
                        "a finished trial's score must be a finite number; delete the file (of a sweep behind a URL, there too), "
                        "then run the sweep again"
                    )
                step = int(evaluation["step"])
                lines.append(
                    (trial["trial_id"], labels[trial["trial_id"]], str(trial["target"]), int(trial["seed"]), step, step == last)
                    + (metric, float(value), int(evaluation["num_clips"]))
                )
    frame = pd.DataFrame(lines, columns=list(FRAME_COLUMNS))
    return frame.astype({"final": bool, "step": int, "value": float})
