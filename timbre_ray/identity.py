"""What decides a result besides its spec: the weights that are used and the versions of the stages' code. No torch."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from timbre_ray.backbones import MINI
from timbre_ray.clap_choice import PARTS
from timbre_ray.specs import BackboneSpec

#: Raise a stage's number when its code changes what it computes: its old artifacts are then left alone.
VERSIONS = {
    "encode": 1, "teach": 2, "prompt": 1, "class_audio": 2, "mixture_audio": 2, "dreambooth": 2, "generate": 1, "score": 5,
}  # fmt: skip

#: Of files that hold weights.
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


@functools.lru_cache(maxsize=8)
def backbone_digest(spec: BackboneSpec) -> str:
    """Of folders: SHA-256 over their parts, wherever they lie; of a hub id: name and revision; and of what is not the default."""
    audiomae = f"+{_weights_digest(spec.audiomae, None)}" if spec.audiomae else ""
    return (
        _weights_digest(spec.name, spec.revision)
        + audiomae
        + (f"+{spec.dtype} in the sampling U-Net alone" if spec.dtype != "float32" else "")
    )


def _weights_digest(name: str, revision: str | None) -> str:
    folder = MINI if name == "mini" else Path(name)
    if folder.is_file():
        return file_digest(folder)
    if not folder.is_dir():
        return f"{name}@{revision or 'main'}"
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    parts = [p for p in entries if p.is_dir() and p.name not in ("classifier", "vggish")]
    if not parts or any(
        p.suffix in WEIGHT_SUFFIXES for p in entries if p.is_file()
    ):  # a model of its own, not a pipeline of parts
        return folder_digest(folder)
    return hashlib.sha256("".join(folder_digest(p) for p in parts).encode()).hexdigest()[:20]


#: Fields of ``evaluate`` that name a model: its digest, not its place, is part of what was scored.
JUDGES = ("classifier", "vggish", "clap")


def weights_of(embedder: str, evaluate: Any) -> str:
    """evaluate: an EvaluateSpec or a ScoreRequest -> ``mini``, or what it names instead."""
    return getattr(evaluate, embedder) if embedder in JUDGES else "mini"


@functools.lru_cache(maxsize=8)
def judges_digest(classifier: str = "mini", vggish: str = "mini", clap: str = "mini") -> str:
    """Of the models that score. A classifier's folder holds the AudioMAE that it listens through; an own VGGish is a file, an
    own CLAP a pipeline."""
    listens = [MINI / "audiomae", MINI / "classifier"] if classifier == "mini" else [Path(classifier)]
    embedders = [MINI / part for part in ("vggish", "audiomae", "text_encoder", "feature_extractor")]
    own = [file_digest(Path(vggish))[:8]] if vggish != "mini" else []
    own += [_clap_digest(clap)] if clap != "mini" else []
    return "-".join([folder_digest(folder)[:8] for folder in (*listens, *embedders)] + own)


def _clap_digest(name: str) -> str:
    """Of a pipeline's folder the parts that are heard; else a hub id."""
    return "".join(folder_digest(Path(name) / part)[:8] for part in PARTS) if Path(name).is_dir() else name


@functools.lru_cache(maxsize=8)
def file_digest(path: Path) -> str:
    """SHA-256 over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]


@functools.lru_cache(maxsize=64)
def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files; not of hidden ones, where downloads and git keep times."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        total.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            while part := file.read(2**20):
                total.update(part)
    return total.hexdigest()[:20]
