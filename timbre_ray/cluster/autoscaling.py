"""What the autoscaler of a cluster may still start: a head without GPUs must not refuse a sweep whose workers are not up yet."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

#: What `ray up` writes on the head for its autoscaler. Ray 2.60 has no API for the node types of such a cluster.
CONFIG = "~/ray_bootstrap_config.yaml"
READ_TIMEOUT_S = 300

_NAMES = {"CPU": "cpu", "GPU": "gpu"}
HEAD = "node:__internal_head__"
_NODE_GROUP = "ray.io/node-group"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeType:
    """One of the cluster file's ``available_node_types``."""

    name: str
    count: int
    """Nodes of it that may be started beside those that are up."""
    resources: Mapping[str, float]
    """In a sweep's words; empty where the file does not say, as for machines of one's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Startable:
    """What may be started, in the order in which it is tried."""

    types: tuple[NodeType, ...] = ()
    num_nodes: int = 0
    """Of all types together."""


def in_words_of_a_sweep(resources: Mapping[str, float]) -> dict[str, float]:
    """Ray's CPU and GPU are a sweep's cpu and gpu."""
    return {_NAMES.get(name, name): amount for name, amount in resources.items()}


def startable_nodes() -> Startable:
    """What the autoscaler of the cluster one is connected to may still start; nothing, where `ray up` did not start it."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    head = next((node["NodeID"] for node in nodes if HEAD in node["Resources"]), None)
    if head is None:
        return Startable()
    strategy = NodeAffinitySchedulingStrategy(head, soft=False)
    text = ray.get(ray.remote(_read_config).options(num_cpus=0, scheduling_strategy=strategy).remote(), timeout=READ_TIMEOUT_S)
    if text is None:
        return Startable()
    return startable(yaml.safe_load(text), groups=[node.get("Labels", {}).get(_NODE_GROUP) for node in nodes])


def _read_config() -> str | None:
    path = Path(CONFIG).expanduser()
    return path.read_text(encoding="utf-8") if path.is_file() else None


def startable(config: Mapping[str, Any], *, groups: Sequence[str | None]) -> Startable:
    """config: a cluster file with Ray's defaults filled in. groups: node type of each living node, the head among them."""
    up, head = Counter(groups), config["head_node_type"]
    up[head] = max(0, up[head] - 1)  # max_workers does not count the head, whose node may also carry no type
    left = max(0, config["max_workers"] - (len(groups) - 1))
    by_priority = sorted(config["available_node_types"].items(), key=lambda item: -item[1].get("priority", 0))
    types = [
        NodeType(
            name=name,
            count=min(left, kind.get("max_workers", 0) - up[name]),
            resources=in_words_of_a_sweep(kind.get("resources") or {}),
        )
        for name, kind in by_priority
    ]
    return Startable(types=tuple(kind for kind in types if kind.count > 0), num_nodes=left)
