"""Measures the miniature on held-out phrases and fresh seeds, and writes its model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from torch import Tensor

from timbre_ray.data.features import log_mel, normalise_waveform
from timbre_ray.evaluate.frechet import frechet_distance
from timbre_ray.evaluate.scorer import classify_clips, embed_clips
from timbre_ray.mini import corpus, fit
from timbre_ray.mini.denoiser import Round
from timbre_ray.mini.perceptual import class_names
from timbre_ray.models.backbone import Backbone, load_backbone
from timbre_ray.models.griffin_lim import invert_mel
from timbre_ray.models.judges import Judges, load_judges
from timbre_ray.models.sampling import clip_noise, decode, denoise, generate, new_sampling_scheduler, prompt_pair
from timbre_ray.specs import BackboneSpec, SamplerSpec

#: What the shipped sweeps use, so that the card speaks of the model that their tables stand on.
SAMPLER = SamplerSpec(
    num_inference_steps=8, scheduler="dpmsolver++", guidance_scale=3.5, batch_size=16, mel_inversion="griffin_lim"
)
GUIDANCE_SCALES = (1.5, 2.0, 2.5, 3.5)


def top_share(confidences: np.ndarray, classes: tuple[str, ...], names: Iterable[tuple[str, ...]], top: int) -> float:
    """Share of clips whose every name is among the ``top`` most confident classes. confidences: (num_clips, num_classes)."""
    order = np.argsort(-confidences, axis=1)[:, :top]
    found = [set(row) <= {classes[j] for j in best} for row, best in zip(names, order, strict=True)]
    return float(np.mean(found))


@torch.no_grad()
def vocode(backbone: Backbone, mel: Tensor) -> Tensor:
    return torch.cat([normalise_waveform(backbone.vocoder(m)) for m in mel.split(16)])


@torch.no_grad()
def reconstruct(backbone: Backbone, mel: Tensor) -> Tensor:
    """mel: (num_clips, 256, 64) -> mel after the VAE, from the posterior's mean."""
    parts = [backbone.vae.decode(backbone.vae.encode(m[:, None]).latent_dist.mean).sample[:, 0] for m in mel.split(16)]
    return torch.cat(parts)


def measure_reconstruction(work: Path, backbone: Backbone, judges: Judges) -> dict[str, float]:
    """What the classifier finds in held-out solos: as rendered, mel inverted, VAE and mel inverted, vocoder."""
    data = fit.load(work, "test")
    solo = [i for i, row in enumerate(data["names"]) if len(row) == 1]
    names = class_names([data["names"][i] for i in solo])
    waveform = data["waveform"][solo].float()
    mel = log_mel(waveform)
    decoded = reconstruct(backbone, mel)
    versions = {
        "original": waveform,
        "griffin_lim": normalise_waveform(invert_mel(mel)),
        "vae_griffin_lim": normalise_waveform(invert_mel(decoded)),
        "vocoder": vocode(backbone, mel),
    }
    result = {
        f"accuracy_{k}": top_share(classify_clips(judges, w), judges.classifier.classes, names, 1) for k, w in versions.items()
    }
    return result | {"vae_mel_l1": float((decoded - mel).abs().mean()), "num_clips": float(len(solo))}


def measure_prompts(backbone: Backbone, judges: Judges, num_each: int) -> dict[str, Any]:
    """What the classifier finds in generated clips: solos of each instrument, duets with the piano."""
    classes = judges.classifier.classes
    solos = {
        name: top_share(classify_clips(judges, clips), classes, [(name,)] * num_each, 1)
        for name, clips in play_solos(backbone, num_each, SAMPLER, seed=1).items()
    }
    duets = {}
    for name in corpus.INSTRUMENTS:
        if name != "piano":
            clips = _play(backbone, f"A recording of a piano with {name}.", num_each, seed=2, sampler=SAMPLER)
            duets[name] = top_share(classify_clips(judges, clips), classes, [(name, "piano")] * num_each, 3)
    means = {"solo_top1": float(np.mean(list(solos.values()))), "duet_top3": float(np.mean(list(duets.values())))}
    return {**means, "num_each": num_each, "solo_by_instrument": solos, "duet_by_instrument": duets}


def measure_guidance(work: Path, backbone: Backbone, judges: Judges, num_each: int) -> list[dict[str, float]]:
    """What the guidance scale changes: accuracy of solos, and their FAD to held-out solos.

    Known instruments alone, and other noise than ``measure_prompts`` has, so that its figures are not of the clips chosen on.
    """
    data = fit.load(work, "test")
    solo = [i for i, row in enumerate(data["names"]) if len(row) == 1]
    reference = embed_clips("vggish", data["waveform"][solo].float())
    rows = []
    for scale in GUIDANCE_SCALES:
        clips = play_solos(backbone, num_each, dataclasses.replace(SAMPLER, guidance_scale=scale), seed=4)
        heard = classify_clips(judges, torch.cat(list(clips.values())))
        names = [(name,) for name in clips for _ in range(num_each)]
        rows.append({
            "guidance_scale": scale,
            "solo_top1": top_share(heard, judges.classifier.classes, names, 1),
            "fad": frechet_distance(embed_clips("vggish", torch.cat(list(clips.values()))), reference),
        })  # fmt: skip
    return rows


def play_solos(backbone: Backbone, num_each: int, sampler: SamplerSpec, *, seed: int) -> dict[str, Tensor]:
    """Instrument -> (num_each, samples) of "A recording of a {instrument}."."""
    clips = {}
    for name in corpus.INSTRUMENTS:
        article = "an" if name[0] in "aeiou" else "a"
        clips[name] = _play(backbone, f"A recording of {article} {name}.", num_each, seed=seed, sampler=sampler)
    return clips


def _play(backbone: Backbone, prompt: str, num_clips: int, seed: int, sampler: SamplerSpec) -> Tensor:
    pair = prompt_pair(backbone, prompt, sampler.negative_prompt)
    return generate(backbone, backbone.unet, *pair, num_clips=num_clips, seed=seed, sampler=sampler)[0]


@torch.no_grad()
def measure_loa(work: Path, backbone: Backbone, num_clips: int = 24) -> dict[str, float]:
    """Does the LOA steer? FAD to the real shakuhachi under "a flute" with GPT-2's LOA, and with the shakuhachi's true LOA."""
    data = fit.load(work, "targets_test")
    rows = [i for i, row in enumerate(data["names"]) if row == ("chinese_flute_v1",)][:num_clips]
    real = data["waveform"][rows].float()
    reference = embed_clips("vggish", real)
    positive, negative = prompt_pair(backbone, "A recording of a flute solo.", "")
    noise = torch.stack([clip_noise(3, i, backbone.latent_shape) for i in range(len(rows))])
    distances = {}
    for guided, scale in (("", SAMPLER.guidance_scale), ("_unguided", 1.0)):
        sampler = dataclasses.replace(SAMPLER, guidance_scale=scale)
        for source, loa in (("predicted", positive.loa), ("true", backbone.loa(real))):
            told = dataclasses.replace(positive, loa=loa)
            latents = denoise(backbone.unet, new_sampling_scheduler(backbone, sampler), noise, told, negative, sampler)
            clips = normalise_waveform(decode(backbone, latents, sampler.mel_inversion))
            distances[f"fad_{source}_loa{guided}"] = frechet_distance(embed_clips("vggish", clips), reference)
    return distances


def measure_embedder(work: Path, num_clips: int = 24) -> dict[str, float]:
    """Distances between sets of real clips: the shakuhachi to itself (floor), to the flute, to the piano."""
    test, targets = fit.load(work, "test"), fit.load(work, "targets_test")
    train = fit.load(work, "targets_train")

    def embedded(data: dict, name: str) -> np.ndarray:
        rows = [i for i, row in enumerate(data["names"]) if row == (name,)][:num_clips]
        return embed_clips("vggish", data["waveform"][rows].float())

    target = embedded(targets, "chinese_flute_v1")
    others = {"floor": embedded(train, "chinese_flute_v1"), "version_2": embedded(targets, "chinese_flute_v2")}
    others |= {name: embedded(test, name) for name in ("flute", "piano")}
    return {f"fad_to_{name}": frechet_distance(target, other) for name, other in others.items()}


def measure(work: Path, num_each: int = 16) -> dict[str, Any]:
    backbone, judges = load_backbone(BackboneSpec()), load_judges()
    return {
        "reconstruction": measure_reconstruction(work, backbone, judges),
        "embedder": measure_embedder(work),
        "loa": measure_loa(work, backbone),
        "guidance": measure_guidance(work, backbone, judges, num_each),
        "sampler": dataclasses.asdict(SAMPLER),
        "prompts": measure_prompts(backbone, judges, num_each),
    }


def write_card(figures: dict[str, Any], rounds: Sequence[Round], folder: Path) -> None:
    """``measured.json`` and the model card that quotes it."""
    (folder / "measured.json").write_text(json.dumps(figures, indent=2) + "\n")
    told = ", ".join(f"{one.num_steps:,} steps of {16 * one.num_processes} clips" for one in rounds)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    (folder / "README.md").write_text(environment.get_template("card.md.j2").render(**figures, rounds=told))
