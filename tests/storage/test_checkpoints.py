"""A training whose node is gone goes on elsewhere: its checkpoint lies behind the URL too, one at a time, while it is of use."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from timbre_ray import remote_care
from timbre_ray.leaving import Leaving
from timbre_ray.object_storage import ObjectStorage
from timbre_ray.remote_tier import RemoteTier
from timbre_ray.resumable import Resumable
from timbre_ray.specs import ClipsSpec, DreamboothSpec, EvaluateSpec, SamplerSpec, TrialSpec
from timbre_ray.stages import TrialStages
from timbre_ray.store import Store
from timbre_ray.train import checkpoint
from timbre_ray.trial_progress import Progress

KEY = "dreambooth/k"
SPEC = TrialSpec(
    clips=ClipsSpec(path="mini:chinese_flute_v1"),
    dreambooth=DreamboothSpec(steps=4, lr=1e-4, gradient_accumulation=1),
    evaluate=EvaluateSpec(at_steps=(4,), num_clips=2, sampler=SamplerSpec(num_inference_steps=2, mel_inversion="griffin_lim")),
)


def node(tmp_path: Path, name: str, url: str) -> Store:
    return Store(tmp_path / name, RemoteTier(ObjectStorage(url)))


def kept(url: str) -> list[str]:
    return sorted(entry.name for entry in ObjectStorage(url).entries("checkpoints"))


def write(path: Path, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weight = torch.nn.Parameter(torch.full((1000,), float(step)))
    checkpoint.save(path, step, {"w": weight}, torch.optim.AdamW([weight]), [{"loss": 0.0}] * step)


def sent(saved: Resumable, step: int, url: str) -> None:
    """Writes a checkpoint at this step and waits until it is there. The one before it may still be under way: then it waits its
    turn, as a training's later steps let it."""
    write(saved.path, step)

    def there() -> bool:
        saved.mirror(step)
        return kept(url) == [f"checkpoints/{KEY}/{step:08d}.pt"]

    wait_for(there)


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def always(step: int) -> bool:
    return True


def test_the_checkpoint_furthest_on_is_taken_whichever_node_wrote_it(tmp_path, bucket):
    one, two = (Resumable(node(tmp_path, name, bucket), "dreambooth", "k") for name in ("one", "two"))
    assert one.take(always) == 0
    one.mirror(1)  # nothing written: nothing is sent
    sent(one, 2, bucket)
    sent(one, 5, bucket)
    assert two.take(always) == 5 and torch.load(two.path, weights_only=True)["step"] == 5
    sent(two, 7, bucket)
    assert one.take(always) == 7, "this node's own is older"
    write(one.path, 9)
    assert Resumable(node(tmp_path, "one", bucket), "dreambooth", "k").take(always) == 9, "this node's own was not sent any more"
    two.remove()
    assert kept(bucket) == [] and not two.path.parent.exists()


def test_one_that_is_of_no_use_goes_everywhere(tmp_path, bucket):
    one = Resumable(node(tmp_path, "one", bucket), "dreambooth", "k")
    sent(one, 5, bucket)
    two = Resumable(node(tmp_path, "two", bucket), "dreambooth", "k")
    assert two.take(lambda step: step <= 3) == 0
    assert kept(bucket) == [] and not two.path.exists()
    write(two.path, 1)  # the training that begins anew has where to write


def test_one_that_cannot_be_read_is_none_and_one_that_would_run_code_is_named(tmp_path, bucket):
    one = Resumable(node(tmp_path, "one", bucket), "dreambooth", "k")
    sent(one, 5, bucket)
    storage = ObjectStorage(bucket)
    storage.write(f"checkpoints/{KEY}/00000008.pt", storage.read(f"checkpoints/{KEY}/00000005.pt")[:1000])
    two = Resumable(node(tmp_path, "two", bucket), "dreambooth", "k")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert two.take(always) == 0
    assert two.take(always) == 5, "the broken one no longer stands before it"

    trace = tmp_path / "trace"
    torch.save({"step": 9, "model": Crafted(trace)}, tmp_path / "crafted.pt")
    storage.upload(f"checkpoints/{KEY}/00000009.pt", tmp_path / "crafted.pt")
    with pytest.raises(ValueError, match=rf"{bucket}/checkpoints/{KEY}/00000009\.pt: .*no checkpoint of timbre-ray"):
        two.take(always)
    assert not trace.exists() and two.path.exists()


class Crafted:
    """Unpickled by plain pickle it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_url_that_fails_costs_no_training(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    store = Store(tmp_path / "one", RemoteTier(ObjectStorage(bucket, patience_s=1)))
    saved = Resumable(store, "dreambooth", "k")
    write(saved.path, 1)
    saved.mirror(1)

    write(saved.path, 2)
    with pytest.warns(UserWarning, match="checkpoint kept on this node alone: .*cannot upload"):
        saved.flush(2)
    assert checkpoint.reached(saved.path) == 2


def test_garbage_is_what_was_published_or_is_old(tmp_path, bucket):
    store = node(tmp_path, "one", bucket)
    store.get_or_compute("dreambooth", "done", lambda folder: (folder / "weights").touch(), description={})
    for key in ("done", "under-way"):
        store.remote.storage.write(f"checkpoints/dreambooth/{key}/00000005.pt", b"x" * 10)
    (found,) = remote_care.collect_garbage(store.remote, days=30, remove=True)
    assert (found.folder, found.reason) == (f"{bucket}/checkpoints/dreambooth/done", "its stage is published")
    (found,) = remote_care.collect_garbage(store.remote, days=0, remove=False)
    assert found.folder.endswith("under-way") and "untouched for 0 days" in found.reason
    assert kept(bucket) == ["checkpoints/dreambooth/under-way/00000005.pt"]
    before = sum(row.num_bytes for row in remote_care.usage(store.remote))
    remote_care.collect_garbage(store.remote, days=0, remove=True)
    assert kept(bucket) == [] and before - sum(row.num_bytes for row in remote_care.usage(store.remote)) == 10


def test_a_trial_whose_node_is_wiped_goes_on_on_another_at_that_step(tmp_path, bucket, monkeypatch):
    steps: list[str] = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append("step"))
    try:
        whole = TrialStages(SPEC, Store(tmp_path / "whole"), "cpu")
        list(whole.train(4))
        steps.clear()

        def leave_at_3(progress: Progress) -> None:
            if progress.stage == "dreambooth" and progress.done == 3:
                raise Leaving("spot")

        with pytest.raises(Leaving, match="spot"):
            list(TrialStages(SPEC, node(tmp_path, "gone", bucket), "cpu", leave_at_3).train(4))
        key = whole.dreambooth_key(4)
        assert len(steps) == 3 and kept(bucket) == [f"checkpoints/dreambooth/{key}/00000003.pt"]
        shutil.rmtree(tmp_path / "gone")

        other = node(tmp_path, "other", bucket)
        assert [step for step, _ in TrialStages(SPEC, other, "cpu").train(4)] == [4]
    finally:
        handle.remove()
    assert len(steps) == 4, "no step was computed twice"
    weights = [store.get("dreambooth", key).file("unet.safetensors").read_bytes() for store in (whole.store, other)]
    assert weights[0] == weights[1]
    assert kept(bucket) == [], "its stage is published"
