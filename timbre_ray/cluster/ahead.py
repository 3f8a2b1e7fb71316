"""What the driver knows of trials before they start: which find their weights, and how long each may be expected to take."""

from __future__ import annotations

import functools
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from timbre_ray.clip_sets import recording_digests
from timbre_ray.cluster.board import AT_ONCE, Kind
from timbre_ray.object_storage import StorageError
from timbre_ray.stage_keys import StageKeys
from timbre_ray.store import Store
from timbre_ray.sweep import PlannedTrial


def stored(trials: Sequence[PlannedTrial], store: Store) -> frozenset[str]:
    """Trials of which the store has the weights."""
    try:
        places = store.keys("dreambooth") if trials else set()
    except StorageError:  # nothing but the time left and who trains whom depends on it
        return frozenset()
    common, recordings = dict[Hashable, Any](), functools.cache(recording_digests)
    found = set()
    for trial in trials:
        last = trial.spec.evaluate.at_steps[-1]
        keys = StageKeys(trial.spec, recordings(trial.spec.clips), common)
        if not last or keys.dreambooth(last).key in places:
            found.add(trial.trial_id)
    return frozenset(found)


def kinds(trials: Sequence[PlannedTrial], stored: Collection[str], along: Mapping[str, tuple[str, ...]]) -> dict[str, Kind]:
    """What each trial may be expected to take: as others of its arm that have as much to train."""
    led = {other for others in along.values() for other in others}
    ways = {trial: AT_ONCE for trial in (*stored, *led)}
    ways |= {leader: f"trains {len(others)} along" for leader, others in along.items()}
    return {trial.trial_id: (trial.arm, ways.get(trial.trial_id, "trains")) for trial in trials}
