"""Which classifier judges a sweep: ``mini``, or a folder, checked before anything starts. No torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable
from pathlib import Path

from timbre_ray.identity import MINI
from timbre_ray.specs import TrialSpec
from timbre_ray.sweep_yaml import nearest

#: What makes a folder a classifier: its own weights and those of the AudioMAE that it listens through.
FILES = ("config.json", "model.safetensors", "audiomae/config.json", "audiomae/model.safetensors")


def resolved_classifier(spec: TrialSpec, folder: Path, place: Callable[[str], str]) -> tuple[TrialSpec, list[str]]:
    """The same trial with an absolute path of its classifier, and what is wrong with the classifier or the classes asked of it.

    folder: of the sweep's YAML; a relative path is looked up there first, then in the working folder.
    place: dotted key -> dotted key where it stands in the YAML.
    """
    wanted = spec.evaluate.classifier
    where = f"{place('evaluate.classifier')}={wanted!r}"
    if wanted == "mini":
        return spec, unknown_classes(spec, classifier_folder(wanted), place)
    tried = list(dict.fromkeys((base / Path(wanted).expanduser()).resolve() for base in (folder, Path.cwd())))
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        near = difflib.get_close_matches(tried[0].name, _siblings(tried), n=1)
        hint = f"; nearest: {Path(wanted).parent / near[0]}" if near else "; `timbre-ray classifier train` makes one"
        return spec, [f"{where}: no such folder (looked for {' and '.join(map(str, tried))}){hint}"]
    missing = [name for name in FILES if not (found / name).is_file()]
    if missing:
        needed = "a folder that `timbre-ray classifier train` wrote is needed"
        return spec, [f"{where}: no {' and no '.join(missing)} in {found}; {needed}"]
    evaluate = dataclasses.replace(spec.evaluate, classifier=str(found))
    return dataclasses.replace(spec, evaluate=evaluate), unknown_classes(spec, found, place)


def classifier_folder(name: str) -> Path:
    """name: ``mini`` or a folder."""
    return MINI / "classifier" if name == "mini" else Path(name)


def unknown_classes(spec: TrialSpec, classifier: Path, place: Callable[[str], str]) -> list[str]:
    """What is wrong with the classes that a trial asks of the classifier in a folder."""
    classes = json.loads((classifier / "config.json").read_text(encoding="utf-8"))["classes"]
    return [
        f"{place(f'clips.{field}')}={name!r}: no class of the classifier {spec.evaluate.classifier}; {nearest(name, classes)}"
        for field in ("partner", "target_class")
        if (name := getattr(spec.clips, field)) not in classes
    ]


def _siblings(tried: list[Path]) -> list[str]:
    return sorted({p.name for path in tried if path.parent.is_dir() for p in path.parent.iterdir() if p.is_dir()})
