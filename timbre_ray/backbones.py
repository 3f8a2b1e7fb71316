"""Where a backbone's weights lie: the miniature, a folder, or a hub id fetched once a node. Reads no weights, no torch."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from timbre_ray.specs import BackboneSpec

MINI = Path(__file__).parent / "mini" / "weights"
#: The encoder that AudioLDM2's GPT-2 learnt to predict, in timm's layout; taken where a pipeline has no ``audiomae/`` of its own.
PUBLISHED_AUDIOMAE = "gaunernst/vit_base_patch16_1024_128.audiomae_as2m"
PUBLISHED = ("cvssp/audioldm2", "cvssp/audioldm2-large", "cvssp/audioldm2-music")
#: Files of a hub's model that are read, and so fetched.
READ = ("*.json", "*.txt", "*.model", "*.safetensors")
HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class UnreachableWeightsError(ValueError):
    """The hub does not bring what is named; another node may have it."""


def resolved_backbone(spec: BackboneSpec, folder: Path, place: Callable[[str], str]) -> tuple[BackboneSpec, list[str]]:
    """The same backbone with absolute folders, and what is wrong with it.

    folder: of the sweep's YAML; relative folders are looked up there first, then in the working folder.
    place: field -> dotted key where it stands in the YAML.
    """
    problems: list[str] = []
    changes: dict[str, str] = {}
    if spec.name != "mini":
        found = existing(spec.name, folder)
        if found is not None:
            changes["name"] = str(found)
            if not (found / "model_index.json").is_file():
                problems.append(
                    f"{place('name')}={spec.name!r}: {found} has no model_index.json, so it holds no diffusers pipeline"
                )
            elif spec.audiomae is None and not (found / "audiomae").is_dir():
                problems.append(
                    f"{place('name')}={spec.name!r}: {found} has no audiomae folder; name its AudioMAE in "
                    f"backbone.audiomae (a folder, a file or a hub id such as {PUBLISHED_AUDIOMAE})"
                )
        elif not HUB_ID.fullmatch(spec.name):
            known = ", ".join(("mini", *PUBLISHED))
            problems.append(f"{place('name')}={spec.name!r}: no such folder, and no hub id (owner/name); published: {known}")
    if spec.audiomae is not None:
        found = existing(spec.audiomae, folder)
        if found is not None:
            changes["audiomae"] = str(found)
        elif not HUB_ID.fullmatch(spec.audiomae):
            problems.append(f"{place('audiomae')}={spec.audiomae!r}: no such folder or file, and no hub id (owner/name)")
    return dataclasses.replace(spec, **changes), problems


def existing(name: str, folder: Path) -> Path | None:
    """A file or folder of this name beside the sweep's YAML (``folder``), else in the working folder."""
    wanted = Path(name).expanduser()
    return next((path.resolve() for path in (folder / wanted, wanted) if path.exists()), None)


def pipeline_folder(spec: BackboneSpec) -> Path:
    """The pipeline on this node's disk. Raises ValueError naming the key and the remedy if the hub does not bring it."""
    if spec.name == "mini":
        return MINI
    return local_path(spec.name, spec.revision, "backbone.name")


def audiomae_path(spec: BackboneSpec) -> Path:
    """AudioMAE on this node's disk: the one that is named, the one beside the pipeline, or the published one."""
    if spec.audiomae is not None:
        return local_path(spec.audiomae, None, "backbone.audiomae")
    beside = pipeline_folder(spec) / "audiomae"
    return beside if beside.is_dir() else local_path(PUBLISHED_AUDIOMAE, None, "backbone.audiomae")


def pipeline_at_hand(spec: BackboneSpec) -> Path | None:
    """The pipeline if it lies on this machine already; None where it would have to be fetched. Never asks the network."""
    return MINI if spec.name == "mini" else at_hand(spec.name, spec.revision, "model_index.json")


def lies_whole(spec: BackboneSpec) -> bool:
    """All that a trial loads lies on this machine: each part of the pipeline that its index names, and the AudioMAE. A download
    that broke off leaves the index, which comes first, without the rest. Never asks the network."""
    folder = pipeline_at_hand(spec)
    if folder is None:
        return False
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    if not all(_is_whole(folder / part) for part in parts):
        return False
    if spec.audiomae is None and (folder / "audiomae").is_dir():
        return _is_whole(folder / "audiomae")
    name = spec.audiomae or PUBLISHED_AUDIOMAE
    encoder = Path(name) if Path(name).exists() else at_hand(name, None, "config.json")
    return encoder is not None and (encoder.is_file() or _is_whole(encoder))


def _is_whole(part: Path) -> bool:
    """Of a model its weights, all that their index names; of anything else a file at least."""
    indices = [json.loads(path.read_text(encoding="utf-8")) for path in part.glob("*.safetensors.index.json")]
    if not all((part / file).is_file() for index in indices for file in index["weight_map"].values()):
        return False
    wanted = "*.safetensors" if (part / "config.json").is_file() else "*"
    return any(path.is_file() for path in part.glob(wanted))


def at_hand(name: str, revision: str | None, file: str) -> Path | None:
    """A folder as it is, or a hub id's folder in the hub's cache if it holds ``file``; None otherwise."""
    if Path(name).is_dir():
        return Path(name)
    if not HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=revision)
    return Path(found).parent if isinstance(found, str) else None  # else None, or a mark that the hub has no such file


def local_path(name: str, revision: str | None, key: str, parts: Sequence[str] = ()) -> Path:
    """A path as it is; a hub id from the hub's cache, fetched by one process of the node while the others wait for it.

    parts: folders of it that are enough. Raises ValueError naming ``key`` and the remedy.
    """
    if Path(name).exists():
        return Path(name)
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"{key}={name!r}: no such folder or file, and no hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [f"{part}{file}" for part in ([f"{part}/" for part in parts] or [""]) for file in READ]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise UnreachableWeightsError(
            f"{key}={name!r}: no such folder, and the hub does not bring it{at} ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Check the name, the network and the login (HF_TOKEN), or copy it to every node's "
            "hub cache (HF_HOME) and set HF_HUB_OFFLINE=1"
        ) from None
