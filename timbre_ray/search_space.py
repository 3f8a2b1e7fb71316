"""The ranges of a search as Optuna's distributions: for who draws from them, and for who reads what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from timbre_ray.run_specs import RangeSpec

Space = Mapping[str, optuna.distributions.BaseDistribution]


def distributions(space: Mapping[str, RangeSpec]) -> dict[str, optuna.distributions.BaseDistribution]:
    """By dotted key."""
    return {key: _distribution(dimension) for key, dimension in space.items()}


def inside(point: Mapping[str, Any], space: Space) -> bool:
    """False for a point that an edited search no longer covers."""
    try:
        optuna.create_trial(value=0.0, params=dict(point), distributions=dict(space))
    except ValueError:
        return False
    return True


def _distribution(dimension: RangeSpec) -> optuna.distributions.BaseDistribution:
    if dimension.type == "categorical":
        return optuna.distributions.CategoricalDistribution(tuple(dimension.choices))
    if dimension.type == "int":
        return optuna.distributions.IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
