"""Plays one fault and holds its end against the undisturbed run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from tests.integration.stub_sweeps import write_clips
from tests.survival.faults import LONGER, OTHER_ARMS, PLAIN, TRAINED, Fault
from tests.survival.scene import Scene, unmount
from tests.survival.trained import trained_sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    scene: Scene
    states: dict[str, Any]
    computed: dict[str, Counter[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """What a sweep that met a fault came to, against the undisturbed one."""

    equal: bool
    """Ledger, baselines and tables."""
    repeated: tuple[str, ...]
    """Stages computed more than once."""
    missing: tuple[str, ...]
    """Stages that the undisturbed sweep computed and this one never did."""
    retries: int


def run_undisturbed(folder: Path, cluster: Cluster) -> Undisturbed:
    """Each of the four sweeps in a store of its own."""
    clips = write_clips(folder / "flute")
    scenes = {name: new_scene(folder, name, clips=clips, cluster=cluster) for name in (PLAIN, LONGER, OTHER_ARMS)}
    changes: dict[str, dict[str, Any]] = {PLAIN: {}, LONGER: {"steps": (0, 10, 20)}, OTHER_ARMS: {"arms": ("b", "c")}}
    scenes[PLAIN].run(*(scene.write(**changes[name]) for name, scene in scenes.items()))
    scenes[TRAINED] = new_scene(folder, TRAINED, clips=clips, cluster=cluster, ends_as=TRAINED)
    scenes[TRAINED].run(scenes[TRAINED].put("stubs", trained_sweep()))
    return Undisturbed(
        scene=scenes[PLAIN],
        states={name: scene.state() for name, scene in scenes.items()},
        computed={name: scene.computed() for name, scene in scenes.items()},
    )


def new_scene(folder: Path, name: str, *, clips: Path, cluster: Cluster, ends_as: str = PLAIN) -> Scene:
    (folder / name).mkdir()
    drive = ("tests.survival.trained",) if ends_as == TRAINED else ("tests.survival.drive",)
    return Scene(folder=folder / name, clips=clips, cluster=cluster, drive=drive)


def play(fault: Fault, folder: Path, undisturbed: Undisturbed) -> Ending:
    plain = undisturbed.scene
    scene = new_scene(folder, f"fault-{fault.name}", clips=plain.clips, cluster=plain.cluster, ends_as=fault.ends_as)
    try:
        fault.play(scene)
        computed = scene.computed()
        return Ending(
            equal=scene.state() == undisturbed.states[fault.ends_as],
            repeated=tuple(sorted(stage for stage, times in computed.items() if times > 1)),
            missing=tuple(sorted(set(undisturbed.computed[fault.ends_as]) - set(computed))),
            retries=scene.num_retries(),
        )
    finally:
        unmount(scene.store)
