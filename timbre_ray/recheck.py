"""Every number of a report once more: from the stored audio by the scorer itself, and from the ledger to the written texts.

Nothing is written. A number that cannot be recomputed, because its audio or its score is gone, counts as a finding too: a check
must not pass over what it did not see.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timbre_ray import report
from timbre_ray.identity import JUDGES, judges_digest
from timbre_ray.report import own_tables, stored_scores
from timbre_ray.report.results import load
from timbre_ray.report.stored_scores import Scores
from timbre_ray.store import Artifact, ArtifactNotFoundError, DamagedArtifactError, Store

TOLERANCE = 1e-3
"""Of the stored number's size, and absolute below 1: what another processor or number of threads may move (see ``differs``)."""
OTHER_JUDGES = "judged by other weights than are here now"
OTHER_VERSION = "scored by another version of timbre-ray: the sweep's command scores the audio again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One number that is not what it should be."""

    where: str
    """The file that holds it."""
    name: str
    stored: float | None
    """None: the file has no such number."""
    recomputed: float | None
    """None: it could not be recomputed."""
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Records that rest on one score: all arms without teacher forcing share that of step 0, say."""

    audio: tuple[tuple[str, str], ...]
    """(prompt, key of a generate artifact); of the floor: ("real", key of an encode artifact)."""
    trial: Mapping[str, Any]
    """The ledger's record of the first trial that has it."""
    records: tuple[tuple[str, Mapping[str, Any]], ...]
    """(file of the ledger, evaluation or baseline)."""


def differs(stored: float, recomputed: float, tolerance: float = TOLERANCE) -> bool:
    """True for what is no number, too."""
    return not abs(stored - recomputed) <= tolerance * max(1.0, abs(stored))


def tasks(folder: Path) -> list[Task]:
    """What there is to recompute for the report of these results: the floors, then each score once."""
    results = load(folder)
    finished = results.with_status("finished")
    found: dict[tuple[Any, ...], Task] = {}
    for target, record in results.baselines.items():
        trial = next((trial for trial in finished if str(trial["target"]) == target), None)
        if trial is not None:
            _add(found, tuple(record["audio"].items()), trial, f"baselines/{target}.json", record)
    for trial in finished:
        for evaluation in trial["evaluations"]:
            where = f"trials/{trial['trial_id']}.json, step {evaluation['step']}"
            _add(found, tuple(evaluation["audio"].items()), trial, where, evaluation)
    return list(found.values())


def _add(
    found: dict[tuple[Any, ...], Task], audio: tuple, trial: Mapping[str, Any], where: str, record: Mapping[str, Any]
) -> None:
    judged = json.dumps([trial["spec"]["evaluate"]["fad"], stored_scores.judges_of(trial["spec"]["evaluate"])])
    place = audio, stored_scores.recordings_of(trial), judged
    known = found.get(place)
    records = (*(known.records if known else ()), (where, record))
    found[place] = Task(audio=audio, trial=known.trial if known else trial, records=records)


def run(task: Task, store: Store, scores: Scores, tolerance: float = TOLERANCE) -> tuple[int, list[Finding]]:
    """Numbers compared, and those that differ: of scores.json and of every record that rests on it."""
    try:
        return _floor(task, store, tolerance) if task.audio[0][0] == "real" else _score(task, store, scores, tolerance)
    except (ArtifactNotFoundError, DamagedArtifactError, OSError, ValueError) as error:
        missing = [Finding(where=w, name="all scores", stored=None, recomputed=None, note=str(error)) for w, _ in task.records]
        return len(missing), missing


def _floor(task: Task, store: Store, tolerance: float) -> tuple[int, list[Finding]]:
    from pydantic import TypeAdapter  # slow to import

    from timbre_ray.evaluate.scorer import compute_floor
    from timbre_ray.specs import TrialSpec

    spec = TypeAdapter(TrialSpec).validate_python(task.trial["spec"])
    _, metrics = compute_floor(task.audio[0][1], spec.clips.target_class, spec.evaluate, store)
    held = [(where, {"metrics": record["metrics"]}) for where, record in task.records]
    return _compare_all(held, {"metrics": metrics}, tolerance)


def _score(task: Task, store: Store, scores: Scores, tolerance: float) -> tuple[int, list[Finding]]:
    from timbre_ray.evaluate.scorer import compute_scores
    from timbre_ray.stage_keys import ScoreRequest

    artifact, description = _stored_score(task, store, scores)
    judges = stored_scores.judges_of(task.trial["spec"]["evaluate"])
    identity = {name: tuple(v) if isinstance(v, list) else v for name, v in description["spec"].items()}
    identity["audio"] = tuple((prompt, key) for prompt, key in identity["audio"])
    request = ScoreRequest(**identity, **dict(zip(JUDGES, judges, strict=True)))
    path = artifact.file("scores.json")
    held = [(str(path), json.loads(path.read_text(encoding="utf-8")))]
    kept = ("metrics", "confidences")
    held += [(where, {name: record[name] for name in kept if name in record}) for where, record in task.records]
    num, found = _compare_all(held, compute_scores(request, store), tolerance)
    note = OTHER_JUDGES if description["inputs"] != [judges_digest(*judges)] else ""
    if not note and artifact.key != request.stage().key:
        note = OTHER_VERSION
    return num, [dataclasses.replace(finding, note=note) for finding in found]


def _stored_score(task: Task, store: Store, scores: Scores) -> tuple[Artifact, Mapping[str, Any]]:
    """The score of this audio: by the judges that are here, else the newest."""
    found = stored_scores.find(scores, dict(task.audio), task.trial)
    if not found:
        raise ArtifactNotFoundError(f"{store.root}: no score of the audio {dict(task.audio)}; is --storage the sweep's store?")
    ours = [judges_digest(*stored_scores.judges_of(task.trial["spec"]["evaluate"]))]
    best = next((manifest for manifest in found if manifest["description"]["inputs"] == ours), found[0])
    return store.get("score", best["key"]), best["description"]


def _compare_all(
    held: Sequence[tuple[str, Mapping[str, Any]]], recomputed: Mapping[str, Any], tolerance: float
) -> tuple[int, list[Finding]]:
    fresh, num, found = dict(_numbers(recomputed)), 0, []
    for where, stored in held:
        values = dict(_numbers(stored))
        asked = {name for name in fresh if name.split(".")[0] in stored}  # older scores have fewer parts
        for name in sorted({*values, *asked}):
            old, new = values.get(name), fresh.get(name)
            num += 1
            if old is None or new is None or differs(old, new, tolerance):
                found.append(Finding(where=where, name=name, stored=old, recomputed=new))
    return num, found


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested dicts and lists under its dotted name; outliers by clip, for two that are level may swap places."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            by_clip = isinstance(inner, Mapping) and "clip" in inner
            yield from _numbers(inner, f"{name}.clip {inner['clip']}" if by_clip else f"{name}.{index}")
    elif isinstance(value, int | float):
        yield name, float(value)


def check_texts(
    folder: Path, store: Store, written: Path, *, baseline: str | None = None, margin: float | None = None
) -> list[Finding]:
    """report.md and the tables of the report in ``written`` against those that the results make now, as text: one finding a file.

    A table of the report's that the results no longer make is one, too.
    """
    with tempfile.TemporaryDirectory() as temporary:
        fresh, found = Path(temporary), []
        report.build_texts(folder, store, fresh, baseline=baseline, margin=margin)
        for path in (fresh / "report.md", *sorted(fresh.glob("tables/*.csv")), *sorted(fresh.glob("tables/*.tex"))):
            old = written / path.relative_to(fresh)
            if not old.is_file():
                found.append(_file(old, "is not there; write the report again"))
            elif old.read_bytes() != path.read_bytes():
                found.append(_first_line(old, path))
        surplus = [path for path in own_tables.find(written / "tables") if not (fresh / "tables" / path.name).exists()]
        found += [_file(path, "is of an earlier report; write the report again") for path in surplus]
    return found


def _file(path: Path, note: str) -> Finding:
    return Finding(where=str(path), name="the file", stored=None, recomputed=None, note=note)


def _first_line(old: Path, new: Path) -> Finding:
    lines = [path.read_text(encoding="utf-8").splitlines() for path in (old, new)]
    shared = zip(*lines, strict=False)
    number = next((i for i, (a, b) in enumerate(shared, 1) if a != b), min(map(len, lines)) + 1)
    note = "is not what the results make now; write the report again, or look for the hand that changed it"
    return Finding(where=str(old), name=f"line {number}", stored=None, recomputed=None, note=note)
