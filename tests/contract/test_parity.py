"""Every line of the parity table, and that the table can fail."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
import torch
from rich.console import Console

from timbre_ray.models.backbone import Backbone
from timbre_ray.parity.__main__ import print_table
from timbre_ray.parity.checks import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_ours_is_the_references(check: Check, backbone: Backbone) -> None:
    deviation = check.deviation(backbone)
    assert check.passes(deviation), f"{deviation} from {check.reference}; {check.tolerance} is allowed"


@pytest.mark.parametrize("off", [0.02, float("nan")])
def test_a_deviation_fails_the_table(off: float, backbone: Backbone) -> None:
    good = Check(name="same", reference="itself", tolerance=0.01, both=lambda _: (torch.ones(2), torch.ones(2)))
    bad = dataclasses.replace(good, name="other", both=lambda _: (torch.tensor([1.0, 1 + off]), torch.ones(2)))
    text = StringIO()
    assert print_table([good], backbone, Console(file=text, width=120))
    assert not print_table([good, bad], backbone, Console(file=text, width=120))
    assert text.getvalue().count("FAIL") == 1
    with pytest.raises(ValueError, match=r"parity of same: ours has the shape \(1,\), the reference \(2,\)"):
        dataclasses.replace(good, both=lambda _: (torch.ones(1), torch.ones(2))).deviation(backbone)
