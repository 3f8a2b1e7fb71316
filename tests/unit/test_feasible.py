"""Whether a cluster can ever hold a sweep: with the nodes that are up and those that its autoscaler may start."""

from __future__ import annotations

import pytest

from timbre_ray.cluster.autoscaling import NodeType, Startable, startable
from timbre_ray.cluster.resources import InfeasibleError, Layout, check_feasible, cluster_address

HEAD = {"cpu": 0}
GPU_NODE = {"cpu": 8, "gpu": 1}
CONFIG = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "max_workers": 0},
        "on_demand": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 3},
        "spot": {"resources": {"CPU": 8, "GPU": 1, "disk": 2}, "max_workers": 2, "priority": 10},
    },
}


def layout(*, nodes=(HEAD,), startable=Startable(), train=None, score=None, num_scorers=1) -> Layout:  # noqa: B008 (frozen)
    train = {"gpu": 1, "cpu": 1} if train is None else train
    return check_feasible(train=train, score=score or {"cpu": 0}, num_scorers=num_scorers, nodes=list(nodes), startable=startable)


def slots(**asked) -> int:
    return layout(**asked).slots


def gpu_nodes(count: int, *, total: int | None = None) -> Startable:
    return Startable(types=(NodeType(name="gpu", count=count, resources=GPU_NODE),), num_nodes=count if total is None else total)


def test_nodes_that_are_not_up_yet_count():
    with pytest.raises(InfeasibleError, match=r"run\.resources\.train\.gpu=1: no node has that much; the largest of 1 node"):
        slots()
    assert slots(startable=gpu_nodes(3)) == 3
    assert slots(startable=gpu_nodes(3, total=2)) == 2
    assert slots(nodes=(HEAD, GPU_NODE), startable=gpu_nodes(2)) == 3
    assert slots(startable=gpu_nodes(2), train={"cpu": 4, "gpu": 0.5}) == 4


def test_scorers_take_their_room_on_nodes_to_come():
    assert slots(startable=gpu_nodes(3), score={"gpu": 0.5}, num_scorers=2) == 2
    with pytest.raises(InfeasibleError, match="after 2 scorer"):
        slots(startable=gpu_nodes(2), score={"gpu": 1}, num_scorers=2)
    with pytest.raises(InfeasibleError, match="room for 2"):
        slots(startable=gpu_nodes(2), score={"gpu": 1}, num_scorers=3)


def test_scorers_take_as_little_of_the_trials_room_as_can_be():
    """Whatever the order in which Ray lists the nodes; and they are then put there."""
    mixed = {"train": {"cpu": 8, "gpu": 1}, "score": {"cpu": 1}}
    for nodes, place in (((GPU_NODE, {"cpu": 8}), 1), (({"cpu": 8}, GPU_NODE), 0)):
        assert layout(nodes=nodes, **mixed) == Layout(slots=1, scorers=(place,))
    pair = ({"cpu": 2}, {"cpu": 2})
    assert layout(nodes=pair, train={"cpu": 2}, score={"cpu": 1}, num_scorers=2) == Layout(slots=1, scorers=(0, 0))
    roomy = {"train": {"gpu": 1, "cpu": 4}, "score": {"cpu": 1}, "num_scorers": 2}
    assert layout(nodes=(GPU_NODE, HEAD, {"cpu": 8}), **roomy).scorers == (2, 2), "not on a node that trials use"
    assert layout(nodes=(GPU_NODE,), train={"gpu": 0.25}, score={"cpu": 1}) == Layout(slots=4, scorers=(0,))
    assert layout(startable=gpu_nodes(1), score={"cpu": 1}).scorers == (None,), "its node is not there yet"
    assert layout(nodes=(GPU_NODE,), score={"cpu": 0}).scorers == (None,), "what takes no room goes where Ray likes"


def test_what_neither_has_is_named_with_the_node_types():
    with pytest.raises(InfeasibleError, match=r"train\.gpu=2: .*could be started.* node types gpu has 1 gpu"):
        slots(startable=gpu_nodes(2), train={"gpu": 2})
    with pytest.raises(InfeasibleError, match="none has 16 cpu \\+ 1 gpu together"):
        slots(nodes=({"cpu": 32},), startable=gpu_nodes(2), train={"cpu": 16, "gpu": 1})


def test_machines_whose_resources_are_not_known_yet_are_named():
    unknown = Startable(types=(NodeType(name="local.cluster.node", count=2, resources={}),), num_nodes=2)
    with pytest.raises(InfeasibleError, match=r"2 more of local\.cluster\.node.*wait until `ray status` lists them"):
        slots(startable=unknown)


def test_a_cluster_file_becomes_what_may_be_started():
    found = startable(CONFIG, groups=["head"])
    assert [(kind.name, kind.count) for kind in found.types] == [("spot", 2), ("on_demand", 3)]
    assert found.num_nodes == 3 and found.types[0].resources == {"cpu": 8, "gpu": 1, "disk": 2}
    assert slots(startable=found) == 3

    later = startable(CONFIG, groups=["head", "spot", "spot"])
    assert [(kind.name, kind.count) for kind in later.types] == [("on_demand", 1)] and later.num_nodes == 1
    assert startable(CONFIG, groups=["head", "spot", "spot", "on_demand"]) == Startable()
    untyped = startable(CONFIG, groups=[None, None])
    assert [(kind.name, kind.count) for kind in untyped.types] == [("spot", 2), ("on_demand", 2)] and untyped.num_nodes == 2


def test_machines_of_ones_own_share_the_head_s_type():
    config = {"max_workers": 2, "head_node_type": "node", "available_node_types": {"node": {"resources": {}, "max_workers": 2}}}
    assert startable(config, groups=["node"]).types == (NodeType(name="node", count=2, resources={}),)
    assert startable(config, groups=["node", "node"]).num_nodes == 1


def test_the_cluster_is_the_one_that_is_named(monkeypatch):
    """A Ray that happens to run on this machine is nobody's answer."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert (cluster_address(None), cluster_address("local"), cluster_address("10.0.0.1:6379")) == (None, None, "10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert (cluster_address(None), cluster_address("10.0.0.1:6379")) == ("auto", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
