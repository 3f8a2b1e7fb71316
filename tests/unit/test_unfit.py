"""When a node leaves the sweep: for a fault of its own, if another can do its work, and never the driver's or the head."""

from __future__ import annotations

import dataclasses
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from timbre_ray.cluster import functions, unfit
from timbre_ray.cluster.board import Board
from timbre_ray.cluster.functions import Functions, Worker
from timbre_ray.cluster.progress import SweepCallback
from timbre_ray.cluster.scoring import ScorerPool
from timbre_ray.cluster.trainable import TrialContext, run_planned_trial
from timbre_ray.leaving import Leaving
from timbre_ray.shared_disk import SharedDisk
from timbre_ray.specs import ClipsSpec, TrialSpec
from timbre_ray.sweep import PlannedTrial


def node(**resources: float) -> dict[str, Any]:
    return {"Resources": resources, "NodeManagerAddress": "10.0.0.7", "Alive": True}


NODES = {
    "head": node(**{"node:__internal_head__": 1.0, "CPU": 8.0, "GPU": 1.0}), "driver": node(CPU=8.0, GPU=1.0),
    "own": node(CPU=8.0, GPU=1.0), "small": node(CPU=8.0), "twin": node(CPU=8.0, GPU=1.0),
}  # fmt: skip


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    disk = SharedDisk.of("run.storage", tmp_path / "store")
    return Worker(
        store_root=disk.folder, device="cpu", threads=1, disks=(disk,), patience_s=0.0, resources={"cpu": 6.0, "gpu": 1.0},
        driver_node="driver",
    )  # fmt: skip


def test_who_can_stand_in_has_room_and_stays(worker: Worker) -> None:
    assert unfit.stand_ins("own", NODES, worker=worker, draining=()) == ["head", "driver", "twin"]
    assert unfit.stand_ins("own", NODES, worker=worker, draining=("twin",)) == ["head", "driver"]
    small = dataclasses.replace(worker, resources={"cpu": 6.0})
    assert "small" in unfit.stand_ins("own", NODES, worker=small, draining=())
    assert unfit.stand_ins("driver", NODES, worker=worker, draining=()) == []
    assert unfit.stand_ins("head", NODES, worker=worker, draining=()) == []


def test_a_trial_that_starts_has_a_place_and_no_process() -> None:
    def group(node_id: str, state: str = "CREATED") -> dict[str, Any]:
        return {"state": state, "bundles_to_node_id": {0: node_id}}

    def actor(node_id: str, state: str = "ALIVE", name: str = unfit.TRIAL_CLASS, job: str = "01") -> dict[str, Any]:
        return {"State": state, "Address": {"NodeID": node_id}, "ActorClassName": name, "JobID": job}

    groups = {"a01": group("own"), "b01": group("own"), "c01": group("twin"), "d01": group("own", "REMOVED"), "e02": group("own")}
    actors = {"p": actor("own"), "q": actor("own", "PENDING_CREATION"), "r": actor("twin"), "s": actor("own", name="Scorer"),
              "t": actor("own", job="02")}  # fmt: skip
    assert unfit.num_starting("own", "01", groups, actors) == 1
    assert unfit.num_starting("own", "01", groups, {**actors, "q": actor("own")}) == 0
    assert unfit.num_starting("twin", "01", groups, actors) == 0


def failing(number: int) -> Callable[..., None]:
    def write(folder: Path, patience_s: float) -> None:
        raise OSError(number, "refused")

    return write


def test_what_is_wrong_on_a_node(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    host, root = socket.gethostname(), worker.store_root
    assert unfit.fault_here(worker) is None and [path.name for path in root.iterdir()] == [".timbre-ray-disk"]
    unmounted = dataclasses.replace(worker, disks=(dataclasses.replace(worker.disks[0], folder=root / "absent"),))
    assert f"node {host} cannot read" in unfit.fault_here(unmounted) and not (root / "absent").exists()
    gpu = dataclasses.replace(worker, device="cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert unfit.fault_here(gpu).startswith(f"node {host}: the trial computes on a GPU")
    cache = dataclasses.replace(worker, disks=(), remote_url="s3://bucket/prefix")
    assert unfit.fault_here(cache) is None
    monkeypatch.setattr(unfit, "_write", failing(errno.EROFS))
    assert f"run.storage='{root}': node {host} cannot write there (refused)" in unfit.fault_here(worker)
    assert f"run.cache='{root}': node {host} cannot write there (refused)" in unfit.fault_here(cache)
    monkeypatch.setattr(unfit, "_write", failing(errno.ENOSPC))
    assert unfit.fault_here(worker) is None, "one disk is full for all nodes"
    assert "Make room" in unfit.fault_here(cache), "its own is full for this one alone"


@dataclasses.dataclass
class Cluster:
    """Ray, as leave_if_unfit sees it from the node ``own``."""

    faults: list[str | None]
    """Of the node, at each look; the last one stays."""
    fit: bool = True
    refusal: str | None = None
    all_have_started: bool = True
    draining_by_then: tuple[str, ...] = ("twin",)
    asked: list[list[str]] = dataclasses.field(default_factory=list)
    drained: list[str] = dataclasses.field(default_factory=list)

    def fault_here(self, worker: Worker, needs: unfit.Needs | None, patience_s: float = 0.0) -> str | None:
        return self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]

    def one_is_fit(self, node_ids: list[str], worker: Worker, needs: unfit.Needs | None) -> bool:
        self.asked.append(node_ids)
        return self.fit and bool(node_ids)

    def drain(self, seconds: float, message: str) -> str | None:
        self.drained.append(message)
        return self.refusal


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def make(*faults: str | None, **settings: Any) -> Cluster:
        made = Cluster(list(faults), **settings)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "own"))
        monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
        monkeypatch.setattr(ray, "nodes", lambda: [{**value, "NodeID": name} for name, value in NODES.items()])
        looks = iter([["twin"]])
        monkeypatch.setattr(unfit, "draining_nodes", lambda: next(looks, made.draining_by_then))
        monkeypatch.setattr(unfit, "fault_here", made.fault_here)
        monkeypatch.setattr(unfit, "_one_is_fit", made.one_is_fit)
        monkeypatch.setattr(unfit, "_all_have_started", lambda own: made.all_have_started)
        monkeypatch.setattr(unfit, "drain_own_node", made.drain)
        return made

    return make


def test_a_node_that_alone_cannot_work_leaves(worker: Worker, cluster: Callable[..., Cluster]) -> None:
    here = cluster("no disk: mount it")
    with pytest.raises(unfit.UnfitNodeError, match=r"node 10.0.0.7 \(own\) left the sweep.*no disk: mount it\. Once") as raised:
        with unfit.leaving_if_unfit(worker):
            raise ValueError("a consequence")
    assert raised.value.preempted and here.drained == [str(raised.value)] and here.asked == [["head", "driver"]] * 2


@pytest.mark.parametrize(
    ("faults", "settings", "driver_node"),
    [
        ([None], {}, "driver"),  # the trial's own mistake
        (["no disk"], {"fit": False}, "driver"),  # all are alike
        (["no disk", None], {}, "driver"),  # it has passed meanwhile
        (["no disk"], {"all_have_started": False}, "driver"),  # those that start would wait for ever
        (["no disk"], {"refusal": "no such node"}, "driver"),
        (["no disk"], {"draining_by_then": ("twin", "head", "driver")}, "driver"),  # what would stand in goes itself
        (["no disk"], {}, "own"),
        (["no disk"], {}, ""),  # there is one machine
    ],
)
def test_else_the_error_stands(
    faults: list[str | None], settings: dict[str, Any], driver_node: str, worker: Worker, cluster: Callable[..., Cluster]
) -> None:
    here, worker = cluster(*faults, **settings), dataclasses.replace(worker, driver_node=driver_node)
    with pytest.raises(ValueError, match="as it was"), unfit.leaving_if_unfit(worker):
        raise ValueError("as it was")
    assert bool(here.drained) == ("refusal" in settings)


def test_neither_a_notice_nor_a_silent_control_plane_is_a_fault(worker: Worker, cluster: Callable[..., Cluster]) -> None:
    here = cluster("no disk")
    with pytest.raises(Leaving), unfit.leaving_if_unfit(worker):
        raise Leaving("drained")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="as it was"):
        patch.setattr(ray, "nodes", lambda: 1 / 0)
        with unfit.leaving_if_unfit(worker):
            raise ValueError("as it was")
    assert not here.drained


@pytest.fixture
def context(worker: Worker, tmp_path: Path) -> TrialContext:
    def trial(spec: Any, **arguments: Any) -> Any:
        raise functions.NoGpuError("torch finds none")
        yield

    planned = PlannedTrial(
        trial_id="a-flute-s0", arm="a", target="flute", point={}, spec=TrialSpec(clips=ClipsSpec(path="flute")), key="k"
    )
    return TrialContext(
        ledger_folder=tmp_path / "results", worker=worker, functions=Functions(trial=trial), scorers=ScorerPool([]),
        plan=lambda config: planned,
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["disk", "gpu"])
def test_a_trial_of_a_node_that_leaves_has_not_failed(
    fault: str, context: TrialContext, cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "disk":
        other = dataclasses.replace(context.worker.disks[0], id="other")
        context = dataclasses.replace(context, worker=dataclasses.replace(context.worker, disks=(other,)))
    cluster("it cannot work")
    monkeypatch.setattr("timbre_ray.cluster.notice.draining_nodes", dict)
    with pytest.raises(unfit.UnfitNodeError):
        run_planned_trial({}, context=context)
    record = context.worker.ledger(context.ledger_folder).trial("a-flute-s0")
    assert record is None if fault == "disk" else record["status"] == "running" and record["error"] is None


def test_the_user_is_told_once_a_node(context: TrialContext, tmp_path: Path) -> None:
    board = Board(num_trials=2, num_kept=0, progress_folder=tmp_path, concurrency=2)
    callback = SweepCallback(context=context, board=board)
    for number, node_name in enumerate(("x", "x", "y")):
        error = unfit.UnfitNodeError(error_msg=f"node {node_name} left the sweep", preempted=True)
        (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(RayTaskError("train", "traceback", error)))
        trial = SimpleNamespace(trial_id=f"tune-{number}", config={}, pickled_error_file=tmp_path / "error.pkl", error_file=None)
        callback.on_trial_recover(1, [], trial)
    assert board.notices == ["node x left the sweep", "node y left the sweep"]
    assert all(row.state == "waiting" for row in board.rows.values())
