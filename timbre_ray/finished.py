"""Finds a sweep's results and a finished trial by name, and names the nearest where there is none. No torch."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timbre_ray.ledger import SWEEP_NAME, Ledger, short_name
from timbre_ray.object_storage import ObjectStorage, check_place, folder_of, is_url
from timbre_ray.remote_tier import DEFAULT_CACHE, open_store
from timbre_ray.specs import TrialSpec
from timbre_ray.store import ArtifactNotFoundError, DamagedArtifactError, Store
from timbre_ray.store_care import checked_root

NUM_LISTED = 5
"""Trials that an error lists."""


def results_folder(name: str, results: Path) -> Path:
    """Of the sweep of that name, or the folder itself. Raises ValueError."""
    for folder in (results / name, Path(name)):
        if _holds_results(folder):
            return folder
    raise ValueError(f"{name}: no results found, neither in {results / name} nor in {name}. {_known_names(name, results)}")


def _holds_results(folder: Path) -> bool:
    """From a sweep's first moment on, before any trial has begun."""
    return (folder / "trials").is_dir() or (folder / "sweep.json").is_file()


def sweeps_in(results: Path) -> list[str]:
    """Names of the sweeps that were run into a folder of results."""
    return [path.name for path in sorted(results.glob("*")) if _holds_results(path)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """A sweep's results: below a URL, or in a folder of this machine."""

    name: str
    url: str | None
    results: Path
    """Folder of the folders of results."""


DEFAULT_RESULTS = Path("results")


def whereabouts(source: str, results: Path | None, storage: str | None) -> list[Whereabouts]:
    """source: a sweep's name, the folder of its results, its YAML, or the URL where sweeps were run: then all that lie there.

    results: None for what the YAML says, and without one for ``results``. storage: where it was run, if that is no folder of this
    machine. Raises ValueError where a URL has no results.
    """
    url, asked, results = storage if storage and is_url(storage) else None, results, results or DEFAULT_RESULTS
    if is_url(source):
        check_place(source, key="NAME")
        return [Whereabouts(name=name, url=source, results=results) for name in names_behind(source)]
    if Path(source).suffix in (".yaml", ".yml") and Path(source).is_file():
        from timbre_ray.sweep_yaml import read_yaml  # slow to import

        data, _ = read_yaml(Path(source))
        run = data.get("run") if isinstance(data.get("run"), dict) else {}
        kept = str(run.get("storage", ""))
        url = url or (kept if is_url(kept) else None)
        if not isinstance(name := data.get("name"), str) or not SWEEP_NAME.fullmatch(name):
            raise ValueError(f"{source}: name={name!r}: not a sweep's name, which names the folder of its results")
        return [Whereabouts(name=name, url=url, results=asked or Path(str(run.get("results", results))))]
    return [Whereabouts(name=source, url=url, results=results)]


def names_behind(url: str) -> list[str]:
    """The sweeps whose results lie below a URL. Raises ValueError where there are none."""
    parts = (entry.name.split("/") for entry in ObjectStorage(url).entries("results"))
    names = sorted(one[1] for one in parts if len(one) == 3 and one[2] == "sweep.json" and SWEEP_NAME.fullmatch(one[1]))
    if not names:
        raise ValueError(f"{url}: no results found there; is that run.storage of a sweep?")
    return names


def fetch_results(name: str, results: Path, storage: str) -> None:
    """Takes the ledger of a sweep over from the URL where it was run into ``results``. Raises ValueError where there is none."""
    if not Ledger.of(results / name, storage).pull():
        raise ValueError(f"{storage}/results/{name}: no results found; is that run.storage and the name of the sweep?")


def store_of(folder: Path, storage: str | None) -> Store:
    """In ``storage``, or where the sweep of these results kept its artifacts. Raises FileNotFoundError where a folder that is
    named holds no store."""
    if storage:
        return open_store(storage if is_url(storage) else checked_root(folder_of(storage)))
    sweep = Ledger(folder).sweep()
    kept, cache = sweep["run"]["storage"], sweep["run"].get("cache", DEFAULT_CACHE)
    if is_url(kept):
        return open_store(kept, cache)
    # Where it was; else, as the whole may have moved, as it stood to the folder where the sweep was run, which is not kept.
    places = [sweep.get("store", kept), folder.resolve().parents[1] / folder_of(kept), kept]
    return open_store(next((place for place in places if (folder_of(place) / "artifacts").is_dir()), kept), cache)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A finished trial whose weights are in the store."""

    trial_id: str
    target: str
    sweep: str
    """Name of the folder of its results."""
    spec: TrialSpec
    step: int
    """A scored one."""
    store: Store
    recordings: Mapping[str, list[str]] | None = None
    """Digests of what it learned, where the store still knows them: they need not be on this machine, nor be what they were."""

    @property
    def line(self) -> str:
        return f"{self.trial_id} at step {self.step}, of sweep {self.sweep}"


def trained(
    source: str, storage: str | None, results: Path, *, sweep: str | None = None, target: str | None = None,
    step: int | None = None,
) -> FinishedTrial:  # fmt: skip
    """source, sweep, target: see ``find_trial``; step: None for the last. Raises ValueError where the trial, the step or its
    weights are not there."""
    folder, record = find_trial(source, results, sweep=sweep, target=target)
    from pydantic import TypeAdapter  # slow to import

    scored, store = [evaluation["step"] for evaluation in record["evaluations"]], store_of(folder, storage)
    if step is not None and step not in scored:
        there = ", ".join(map(str, scored))
        raise ValueError(f"--step={step}: {record['trial_id']} was not scored there, and no weights are kept; there are {there}")
    trial = FinishedTrial(
        trial_id=record["trial_id"], target=record["target"], sweep=folder.name,
        spec=TypeAdapter(TrialSpec).validate_python(record["spec"]), step=scored[-1] if step is None else step,
        store=store, recordings=_recordings(record, store),
    )  # fmt: skip
    _check_weights(trial, folder)
    return trial


def _recordings(record: Mapping[str, Any], store: Store) -> Mapping[str, list[str]] | None:
    """As they were noted when they were encoded."""
    for stage in record.get("stages", ()):
        if stage["stage"] == "encode":
            with contextlib.suppress(ArtifactNotFoundError, DamagedArtifactError):
                return store.description("encode", stage["key"])["spec"]
    return None


def _check_weights(trial: FinishedTrial, folder: Path) -> None:
    """Before any work: what is not there would be trained again."""
    from timbre_ray.stage_keys import StageKeys  # slow to import

    try:
        for stage in StageKeys(trial.spec, trial.recordings).model(trial.step):
            trial.store.get(stage.name, stage.key)
    except ArtifactNotFoundError:
        raise ValueError(
            f"{trial.store.place}: the weights of {trial.trial_id} at step {trial.step} are not there. Is --storage right? Were "
            f"they removed? Once its record in {folder / 'trials'} is removed too, `timbre-ray run SWEEP` makes them again."
        ) from None


def find_trial(source: str, results: Path, *, sweep: str | None = None, target: str | None = None) -> tuple[Path, dict[str, Any]]:
    """The finished trial of that id, else that arm's with the lowest seed, else the one whose id ends so (as reports call a
    search's trials), and the folder of its sweep's results.

    What is no longer planned counts only where nothing else goes by the name; of equal ones the newest is taken. sweep and
    target: look among theirs alone. Raises ValueError if there is none, and if sweeps, targets or settings share the arm's name.
    """
    folders = [results_folder(sweep, results)] if sweep else [path.parent for path in sorted(results.glob("*/trials"))]
    every = [(folder, r) for folder in folders for r in Ledger(folder).trials() if r["status"] == "finished"]
    found = [f for f in every if target is None or f[1]["target"] == target]
    if every and not found:
        raise ValueError(
            f"--target={target!r}: no finished trial. {_nearest(str(target), sorted({r['target'] for _, r in every}))}"
        )
    matches = [f for f in found if f[1]["trial_id"] == source] or [f for f in found if f[1]["arm"] == source]
    matches = matches or [f for f in found if short_name(f[1]["trial_id"]) == source]
    if not matches:
        names = [r["trial_id"] for _, r in found] + sorted({r["arm"] for _, r in found})
        place = folders[0] if sweep else results
        hint = _nearest(source, names) if names else f"{place} holds no finished trial yet: start with `timbre-ray run`."
        raise ValueError(f"{source}: no finished trial and no arm of that name in {place}. {hint}")
    matches = [f for f in matches if not f[1].get("orphaned")] or matches
    first: dict[tuple[str, ...], tuple[Path, dict[str, Any]]] = {}
    for match in sorted(matches, key=lambda f: (f[1]["seed"], -f[1]["finished"])):
        first.setdefault(_distinction(*match), match)
    if len({r["trial_id"] for _, r in first.values()}) > 1:  # the same trial in two sweeps is the same model
        raise ValueError(_ambiguous(source, list(first.values())))
    return next(iter(first.values()))


def _distinction(folder: Path, record: Mapping[str, Any]) -> tuple[str, str, str]:
    """What trials of one arm may differ in besides the seed: sweep, target, and the rest of the grid's or the search's point."""
    rest = {key: value for key, value in record["point"].items() if key not in ("seed", "clips.path")}
    return folder.name, record["target"], json.dumps(rest, sort_keys=True)


def _ambiguous(source: str, matches: list[tuple[Path, dict[str, Any]]]) -> str:
    options = {"--sweep NAME": {folder.name for folder, _ in matches}, "--target NAME": {r["target"] for _, r in matches}}
    remedies = ", ".join(["a trial's id", *(option for option, values in options.items() if len(values) > 1)])
    sweeps: dict[str, list[str]] = {}
    for folder, record in sorted(matches, key=lambda f: (f[1]["trial_id"], f[0].name)):
        sweeps.setdefault(record["trial_id"], []).append(folder.name)
    lines = [f"  {trial_id} (in {', '.join(names)})" for trial_id, names in list(sweeps.items())[:NUM_LISTED]]
    lines += [f"  and {len(sweeps) - NUM_LISTED} more"] if len(sweeps) > NUM_LISTED else []
    return "\n".join([f"{source}: {len(sweeps)} models go by that name; say which by {remedies}:", *lines])


def _known_names(name: str, results: Path) -> str:
    names = sweeps_in(results)
    return _nearest(name, names) if names else f"{results} holds no results yet: start with `timbre-ray run`."


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
    return f"Did you mean {close[0]}?" if close else f"There are: {', '.join(names[:10])}."
