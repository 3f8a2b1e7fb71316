"""Fixtures over the embedded miniature. One BLAS thread: two processes of tests share two cores."""

from __future__ import annotations

import pytest
import torch

from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.specs import BackboneSpec

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone(BackboneSpec())
