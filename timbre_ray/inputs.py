"""What decides a trial's result outside its spec: recordings, weights, judges, code. Read for the plan, and again on the node."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Mapping
from typing import Any

from timbre_ray.clip_sets import ClipError, recording_digests
from timbre_ray.identity import JUDGES, VERSIONS, backbone_digest, judges_digest
from timbre_ray.patience import may_pass
from timbre_ray.specs import TrialSpec


class OtherInputsError(RuntimeError):
    """A node has other recordings, weights or code than the plan was made of: the result would be kept under the planned key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Digests, wherever the files lie."""

    recordings: Mapping[str, list[str]]
    """Of each file, by split."""
    backbone: str
    judges: str
    versions: Mapping[str, int]
    """Of the code of each stage."""

    @classmethod
    def of(cls, spec: TrialSpec) -> Inputs:
        return cls(
            recordings=recording_digests(spec.clips), backbone=backbone_digest(spec.backbone), judges=_judges(spec),
            versions=VERSIONS,
        )  # fmt: skip

    def check(self, spec: TrialSpec) -> None:
        """For any node. Raises OtherInputsError naming this node, what differs from the plan there, and the remedy."""
        found: list[tuple[str, Any, Callable[[], Any]]] = [
            (f"the recordings (clips.path={spec.clips.path!r})", self.recordings, lambda: recording_digests(spec.clips)),
            (f"the backbone (backbone.name={spec.backbone.name!r})", self.backbone, lambda: backbone_digest(spec.backbone)),
            (f"what judges ({_named(spec)})", self.judges, lambda: _judges(spec)),
            ("the version of timbre-ray", self.versions, lambda: VERSIONS),
        ]
        if other := [what for what, planned, read in found if _read(read) != planned]:
            raise OtherInputsError(
                f"node {socket.gethostname()}: {' and '.join(other)} there: not what the sweep was planned with. "
                "If files were changed since the run began, run the same command again; else copy the driver's files to that "
                "node or install the same version there, or name a folder that every node shares"
            )


def _read(read: Callable[[], Any]) -> Any:
    """What is not there is other, too."""
    try:
        return read()
    except (OSError, ClipError) as error:
        if may_pass(error):
            raise
        return error


def _judges(spec: TrialSpec) -> str:
    return judges_digest(*(getattr(spec.evaluate, name) for name in JUDGES))


def _named(spec: TrialSpec) -> str:
    return ", ".join(f"evaluate.{name}={getattr(spec.evaluate, name)!r}" for name in JUDGES)
