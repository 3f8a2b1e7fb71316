"""Whose VGGish embeds a sweep's clips: ``mini``, or a file of weights, checked before anything starts. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from timbre_ray.clap_choice import unheard
from timbre_ray.specs import TrialSpec

SUFFIXES = (".pth", ".safetensors")
#: torchvggish's names (harritaylor/torchvggish), which are ours.
NAMES = tuple(
    f"{part}.{layer}.{kind}"
    for part, layers in (("features", (0, 3, 6, 8, 11, 13)), ("embeddings", (0, 2, 4)))
    for layer in layers
    for kind in ("weight", "bias")
)


def resolved_vggish(spec: TrialSpec, folder: Path, place: Callable[[str], str]) -> tuple[TrialSpec, list[str]]:
    """The same trial with an absolute path of its VGGish, and what is wrong with that file.

    folder: of the sweep's YAML; a relative path is looked up there first, then in the working folder.
    place: dotted key -> dotted key where it stands in the YAML. The names in a ``.pth`` are checked when it is loaded.
    """
    wanted = spec.evaluate.vggish
    if wanted == "mini":
        return spec, []
    where = f"{place('evaluate.vggish')}={wanted!r}"
    if problem := unheard("vggish", spec, place):
        return spec, [f"{where}: {problem}"]
    tried = list(dict.fromkeys((base / Path(wanted).expanduser()).resolve() for base in (folder, Path.cwd())))
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        needed = "a file of torchvggish's weights is needed"
        return spec, [f"{where}: no such file (looked for {' and '.join(map(str, tried))}); {needed}, {' or '.join(SUFFIXES)}"]
    if found.suffix not in SUFFIXES:
        return spec, [f"{where}: unknown kind of file; {' and '.join(SUFFIXES)} are read"]
    if found.suffix == ".safetensors" and (problem := _problem_of_safetensors(found)):
        return spec, [f"{where}: {problem}"]
    return dataclasses.replace(spec, evaluate=dataclasses.replace(spec.evaluate, vggish=str(found))), []


def name_problem(names: Iterable[str]) -> str | None:
    """What is missing or unexpected among a checkpoint's names; None where they are VGGish's."""
    names = list(names)
    missing, unexpected = [n for n in NAMES if n not in names], sorted(set(names) - set(NAMES))
    parts = [f"{label}: {', '.join(found)}" for label, found in (("missing", missing), ("unexpected", unexpected)) if found]
    return f"not the names of torchvggish's weights; {'; '.join(parts)}" if parts else None


def _problem_of_safetensors(path: Path) -> str | None:
    try:
        with safe_open(path, framework="numpy") as file:
            return name_problem(file.keys())
    except SafetensorError as error:
        return f"cannot be read as safetensors ({error})"
