"""Under which key a score is looked up, without scoring anything."""

from __future__ import annotations

import pytest

from timbre_ray.evaluate.scorer import score_clips
from timbre_ray.stage_keys import ScoreRequest
from timbre_ray.store import Store


class _Asked(Exception):
    """Of the store, for the score with this key."""


def key_of_score(request: ScoreRequest, store: Store) -> str:
    def ask(stage: str, key: str, *_: object, **__: object) -> None:
        raise _Asked(key)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Asked) as asked:
        patch.setattr(store, "get_or_compute", ask)
        score_clips(request, store)
    return asked.value.args[0]
