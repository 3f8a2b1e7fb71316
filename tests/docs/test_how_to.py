"""The how-to's method, taken from its page, registered as the page says, and held to the contract of all methods."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from tests.contract import test_methods as contract
from tests.docs.blocks import ROOT, blocks
from timbre_ray.methods import METHODS
from timbre_ray.models.backbone import Backbone
from timbre_ray.specs import DreamboothSpec
from timbre_ray.train.losses import Examples

examples = contract.examples  # its fixture


@pytest.fixture
def how_to_method(monkeypatch: pytest.MonkeyPatch) -> str:
    """The how-to's method, registered as the page says; its name."""
    (block,) = blocks("python", pages=(ROOT / "docs" / "how-to" / "add-a-method.md",))
    module = types.ModuleType("text_attention")
    exec(compile(block.text, block.place, "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, module.METHOD.name, module.METHOD)
    return module.METHOD.name


def test_the_how_tos_method_keeps_the_contract(
    how_to_method: str, backbone: Backbone, examples: dict[str, Examples], tmp_path: Path
) -> None:
    contract.test_attaching_changes_no_weight_of_the_model(how_to_method, backbone)
    contract.test_what_should_train_changes_and_nothing_else(how_to_method, backbone, examples)
    contract.test_saved_weights_load_into_an_untouched_copy(how_to_method, backbone, examples, tmp_path)
    contract.test_merged_is_a_plain_unet_that_answers_the_same(how_to_method, backbone, examples)
    _, trained = contract.attached(backbone, DreamboothSpec(method=how_to_method))
    assert trained and all(re.search(r"\.attn2\.to_[kv]\.", name) for name in trained)
