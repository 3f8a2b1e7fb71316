"""YAML -> validated trials. ``base``, ``arms`` (or an ``ablation``, which makes them) and ``grid`` are the identity of results;
``run``, where and how, never is.

    # Question: does a class prior keep the piano?
    name: ablation
    base: {clips: {path: "mini:chinese_flute_v1"}, dreambooth: {method: direct}}
    arms: {large-gpt2: {}, large-gpt2-prior: {dreambooth: {method: prior}}}
    grid: {seed: [0, 1, 2], clips.path: ["mini:chinese_flute_v1", "mini:chinese_flute_v2"]}
    run: {resources: {train: {gpu: 1}}}
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from timbre_ray.ablation import AblationSpec, idle
from timbre_ray.backbones import resolved_backbone
from timbre_ray.clap_choice import resolved_clap
from timbre_ray.classifier_choice import resolved_classifier
from timbre_ray.clip_sets import resolved_clips, target_name
from timbre_ray.identity import JUDGES, VERSIONS, backbone_digest
from timbre_ray.inputs import Inputs
from timbre_ray.ledger import SWEEP_NAME
from timbre_ray.run_specs import CLAP_METRICS, RangeSpec, RunSpec, SearchSpec
from timbre_ray.specs import BackboneSpec, ClipsSpec, EvaluateSpec, TrialSpec, as_dict, digest
from timbre_ray.sweep_yaml import SweepError, Tree, check, flatten, has_key, nearest, read_yaml, unknown_key
from timbre_ray.vggish_choice import resolved_vggish

__all__ = ["PlannedTrial", "RangeSpec", "RunSpec", "SearchSpec", "Sweep", "SweepError", "load_sweep"]

_KEYS = ("name", "base", "arms", "ablation", "grid", "search", "run")
#: Bytes of a target's name in a trial's id, once it is quoted for a file's name.
MAX_QUOTED = 100
_QUESTION = re.compile(r"#\s*Question:\s*(.*\S)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One arm at one point of the grid."""

    trial_id: str
    """Arm, target, seed and the first digits of the key: the name of its record."""
    arm: str
    target: str
    """Name of the clip set."""
    point: dict[str, Any]
    """Dotted key -> value, as the grid (or the search) gave it."""
    spec: TrialSpec
    key: str
    """Digest of the spec and the inputs."""
    inputs: Inputs | None = None
    """What was read from disk for the plan, which a node must find too; None: it is not compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    name: str
    question: str
    """First line of the YAML after ``# Question:``; empty where it has none."""
    path: Path
    arms: tuple[str, ...]
    trials: tuple[PlannedTrial, ...]
    """Breadth first over seeds: every arm of the first seed comes first. Of a search, the base arm alone (see ``suggested``)."""
    ablation: AblationSpec | None
    """What made the arms; None where they were written out."""
    search: SearchSpec | None
    run: RunSpec
    text: str
    """The YAML itself."""

    def suggested(self, values: Mapping[str, Any]) -> PlannedTrial:
        """The base arm of a search with these values, by dotted key, over it. Raises SweepError if they make no valid spec.

        With ``dreambooth.steps`` among them, the trial is evaluated at the base's steps below that, and at its end.
        """
        trial, problems = _suggested(self.trials[0], values)
        if trial is None:
            raise SweepError(self.path, problems)
        return trial


def load_sweep(path: Path | str, *, clips: str | None = None) -> Sweep:
    """Reads and checks a sweep, its clip folders included. Raises SweepError that lists everything found wrong.

    clips: recordings (a folder, from the working folder, or ``mini:NAME``) to learn in every trial instead of those in the file.
    """
    path = Path(path).expanduser().resolve()
    data, text = read_yaml(path)
    if clips is not None:
        data = _with_clips(data, clips if clips.startswith("mini:") else str(Path(clips).expanduser().absolute()))
    reader = _Reader(path.parent, data)
    arms, trials, search, run = reader.arms(), reader.trials(), reader.search(), reader.run()
    if search and trials:
        reader.check_search(search, trials[0])
    if reader.problems or run is None:
        raise SweepError(path, reader.problems)
    question = _QUESTION.match(text)
    return Sweep(
        name=data["name"], question=question[1] if question else "", path=path, arms=tuple(arms), trials=tuple(trials),
        ablation=reader.ablation, search=search, run=run, text=text,
    )  # fmt: skip


class _Reader:
    """The sections of one file; what is wrong gathers in ``problems``."""

    def __init__(self, folder: Path, data: Mapping[str, Any]) -> None:
        self._folder, self._data = folder, data
        # Looked at once, not once a trial.
        self._sound: dict[tuple[ClipsSpec, BackboneSpec, EvaluateSpec], tuple[TrialSpec, Inputs]] = {}
        self.problems = [f"{key}={data[key]!r}: unknown key; {nearest(key, _KEYS)}" for key in data if key not in _KEYS]
        self._check_name("name", data.get("name"))
        self.ablation = self._ablation()

    def arms(self) -> dict[str, list[tuple[Mapping[str, Any], str]]]:
        """Arm -> what is laid over base, in order, and where in the file it stands."""
        if self.ablation is not None:
            factors = self.ablation.factors
            return {arm: [(factors[name], f"ablation.factors.{name}") for name in on] for arm, on in self.ablation.arms.items()}
        arms = self._section("arms") or {"search" if self._data.get("search") else "base": {}}
        for name, values in arms.items():
            self._check_name(f"arms.{name}", name)
            if values is not None and not isinstance(values, Mapping):
                self.problems.append(f"arms.{name}={values!r}: must be a mapping of what differs from base; {{}} for nothing")
        return {str(name): [(values, f"arms.{name}")] if isinstance(values, Mapping) else [] for name, values in arms.items()}

    def _ablation(self) -> AblationSpec | None:
        values = self._section("ablation")
        if not values:
            return None
        if self._data.get("arms"):
            self.problems.append("ablation: it makes the arms, and arms are written out as well; keep one of the two")
        ablation, problems = check(AblationSpec, Tree(dict(values), {}), "ablation")
        self.problems += problems
        return ablation

    def trials(self) -> list[PlannedTrial]:
        base, points = Tree({}, {}).merged(self._section("base"), "base"), list(self._points())
        trees = {arm: functools.reduce(lambda tree, one: tree.merged(*one), layers, base) for arm, layers in self.arms().items()}
        planned = [self._trial(arm, tree, point) for point in points for arm, tree in trees.items()]
        trials = [trial for trial in planned if trial is not None]
        self._check_distinct(trials)
        if self.ablation is not None:
            self.problems += idle(self.ablation, [(trial.arm, trial.key) for trial in trials])
        return trials

    def run(self) -> RunSpec | None:
        run, problems = check(RunSpec, Tree(as_dict(RunSpec()), {}).merged(self._section("run"), "run"), "run")
        self.problems += problems
        return run

    def search(self) -> SearchSpec | None:
        values = self._section("search")
        if not values:
            return None
        search, problems = check(SearchSpec, Tree(dict(values), {}), "search")
        self.problems += problems
        if self._data.get("grid"):
            self.problems.append("grid: a search draws its own points; move the keys to search.space, or to base with one value")
        if len(arms := self.arms()) > 1:
            section = "arms" if self.ablation is None else "ablation"
            self.problems.append(f"{section}={list(arms)}: a search starts from one arm; put what varies into search.space")
        return search

    def check_search(self, search: SearchSpec, base: PlannedTrial) -> None:
        for metric in search.objectives:
            embedder, has = "clap" if metric in CLAP_METRICS else metric.partition("/")[2], list(base.spec.evaluate.fad)
            if embedder and embedder not in has:
                self.problems.append(f"search.metric={metric!r}: base.evaluate.fad={has} has no {embedder}; add it there")
        for key, range_ in search.space.items():
            if not has_key(TrialSpec, key):
                self.problems.append(f"search.space.{key}: {unknown_key(TrialSpec, key.split('.'))}")
            elif key.split(".")[0] in ("clips", "evaluate"):
                self.problems.append(f"search.space.{key}: trials on other clips or evaluations cannot be compared; use base")
            else:
                self.problems += [problem for value in range_.ends() for problem in _suggested(base, {key: value})[1]]

    def _points(self) -> Iterator[dict[str, Any]]:
        """Points of the grid, the seed changing slowest."""
        grid = dict(flatten(self._section("grid")))
        for key, values in grid.items():
            if not has_key(TrialSpec, key):
                self.problems.append(f"grid.{key}: {unknown_key(TrialSpec, key.split('.'))}")
            elif not isinstance(values, list) or not values:
                self.problems.append(f"grid.{key}={values!r}: must be a list of values")
        usable = {key: values for key, values in grid.items() if has_key(TrialSpec, key) and isinstance(values, list) and values}
        order = sorted(usable, key=lambda key: key != "seed")
        for values in itertools.product(*(usable[key] for key in order)):
            found = dict(zip(order, values, strict=True))
            yield {key: found[key] for key in usable}

    def _trial(self, arm: str, tree: Tree, point: dict[str, Any]) -> PlannedTrial | None:
        tree = _with_plain_method(tree.merged(point, "grid"))
        spec, problems = check(TrialSpec, tree, "base")
        self.problems += problems
        if spec is None:
            return None
        outside = spec.clips, spec.backbone, spec.evaluate
        if outside not in self._sound:
            resolved, problems = self._resolved(spec, tree)
            self.problems += problems
            if problems:
                return None
            self._sound[outside] = resolved, Inputs.of(resolved)
        sound, inputs = self._sound[outside]
        spec = dataclasses.replace(spec, clips=sound.clips, backbone=sound.backbone, evaluate=sound.evaluate)
        return _planned(arm, point, spec, inputs)

    def _resolved(self, spec: TrialSpec, tree: Tree) -> tuple[TrialSpec, list[str]]:
        """The trial with absolute paths of what lies outside the file, and what is wrong with that."""
        clips, problems = resolved_clips(spec.clips, self._folder, lambda field: tree.origin(f"clips.{field}", "base"))
        backbone, more = resolved_backbone(spec.backbone, self._folder, lambda field: tree.origin(f"backbone.{field}", "base"))
        for resolved in (resolved_classifier, resolved_vggish, resolved_clap):
            spec, found = resolved(spec, self._folder, lambda key: tree.origin(key, "base"))
            more += found
        return dataclasses.replace(spec, clips=clips, backbone=backbone), problems + more

    def _check_distinct(self, trials: list[PlannedTrial]) -> None:
        by_id: dict[str, PlannedTrial] = {}
        sets: dict[str, tuple[str, str | None]] = {}
        for trial in trials:
            if trial.trial_id in by_id:
                self.problems.append(f"grid: {trial.point} repeats {by_id[trial.trial_id].point}; remove one")
            by_id[trial.trial_id] = trial
            clips = (trial.spec.clips.path, trial.spec.clips.held_out)
            if sets.setdefault(trial.target, clips) != clips:
                first = sets[trial.target]
                self.problems.append(f"clips {clips} and {first} share the name {trial.target!r}, which rows go by; rename one")

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self._data.get(name)
        if section is not None and not isinstance(section, Mapping):
            self.problems.append(f"{name}={section!r}: must be a mapping")
        return section if isinstance(section, Mapping) else {}

    def _check_name(self, place: str, name: Any) -> None:
        if not isinstance(name, str) or not SWEEP_NAME.fullmatch(name):
            self.problems.append(
                f"{place}={name!r}: a name of letters (A to Z, a to z), digits and . _ - is needed, as it names files"
            )


def _with_clips(data: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The file's settings with other recordings: no arm and no grid chooses any, and held-out ones of the old set go with it."""

    def without(values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values  # the reader says what is wrong with it
        return {key: value for key, value in flatten(values) if key not in ("clips.path", "clips.held_out")}

    changed = {name: without(data[name]) for name in ("base", "grid") if name in data}
    if isinstance(changed.get("base"), Mapping):
        changed["base"] = {**changed["base"], "clips.path": path}
    if isinstance(data.get("arms"), Mapping):
        changed["arms"] = {arm: without(values) for arm, values in data["arms"].items()}
    return {**data, **changed}


def _suggested(base: PlannedTrial, values: Mapping[str, Any]) -> tuple[PlannedTrial | None, list[str]]:
    tree = Tree(as_dict(base.spec), {}).merged(values, "search.space")
    steps = values.get("dreambooth.steps")
    if isinstance(steps, int) and steps > 0:
        at_steps = [step for step in base.spec.evaluate.at_steps if step < steps] + [steps]
        tree = tree.merged({"evaluate": {"at_steps": at_steps}}, "search.space")
    spec, problems = check(TrialSpec, _with_plain_method(tree), "base")
    if spec is None:
        return None, problems
    inputs = base.inputs  # as they were when the run began: no search draws other recordings or judges
    assert inputs is not None, "a loaded sweep has them"
    if spec.backbone != base.spec.backbone:
        inputs = dataclasses.replace(inputs, backbone=backbone_digest(spec.backbone))
    return _planned(base.arm, dict(values), spec, inputs), problems


def _planned(arm: str, point: dict[str, Any], spec: TrialSpec, inputs: Inputs) -> PlannedTrial:
    identity = as_dict(spec)
    identity["clips"] |= {"path": inputs.recordings, "held_out": None}  # the recordings, wherever they lie
    identity["backbone"] = inputs.backbone  # likewise the weights
    for name in JUDGES:
        del identity["evaluate"][name]
    identity |= {"judges": inputs.judges, "versions": VERSIONS}
    key, target = digest(identity), target_name(spec.clips)
    trial_id = re.sub(r"[^\w.-]+", "-", f"{arm}-{_short(target)}-s{spec.seed}-{key[:8]}")
    return PlannedTrial(trial_id=trial_id, arm=arm, target=target, point=point, spec=spec, key=key, inputs=inputs)


def _short(target: str) -> str:
    """As much of it as names files beside an arm's: the ledger quotes each letter of other scripts as six characters or more."""
    while len(quote(target)) > MAX_QUOTED:
        target = target[:-1]
    return target


def _with_plain_method(tree: Tree) -> Tree:
    """Tables write ``mixclass-prior``, specs ``mixclass_prior``."""
    dreambooth = tree.values.get("dreambooth")
    if not isinstance(dreambooth, Mapping) or not isinstance(dreambooth.get("method"), str):
        return tree
    return Tree({**tree.values, "dreambooth": {**dreambooth, "method": dreambooth["method"].replace("-", "_")}}, tree.origins)
