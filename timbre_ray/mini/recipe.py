"""The recipe: every part of the miniature in order, each stage resumable, and the package that holds the result."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2UNet2DConditionModel, AutoencoderKL
from torch import Tensor
from transformers import ClapModel, SpeechT5HifiGan

from timbre_ray.mini import autoencoder, captions, denoiser, fit, language, measure, perceptual, vocoder
from timbre_ray.models.audiomae import AudioMAE

STAGES = (
    "prepare", "audiomae", "vae", "classifier", "embedder", "vocoder", "clap", "language", "unet", "package", "clips", "measure",
)  # fmt: skip
CLIPS = Path(__file__).parent / "clips"
#: The committed weights were trained in these rounds, on several machines; the second one's schedule was planned for 2,400 steps
#: and shortened to 1,900 after 1,100 of them. Up to the third the norm had 16 groups and the latents were not centred; the fourth
#: goes on from there (``torchrun --nproc-per-node 2 -m timbre_ray.mini unet --work DIR --keep WEIGHTS --threads 1``).
UNET_ROUNDS = (
    denoiser.Round(name="unet", num_steps=3600, num_loa_steps=1700, lr=8e-4),
    denoiser.Round(name="unet_2", num_steps=1900, num_loa_steps=0, lr=7e-4, snr_gamma=5.0),
    denoiser.Round(name="unet_3", num_steps=4500, num_loa_steps=0, lr=7e-4, snr_gamma=5.0, num_processes=2, bfloat16=True),
    denoiser.Round(
        name="unet_4", num_steps=4200, num_loa_steps=0, lr=7e-4, snr_gamma=5.0, coarse=True, num_processes=2, bfloat16=True
    ),
)


class Recipe:
    """Lazily trained (or resumed, or simply loaded) parts over one working folder.

    With ``kept``, a package that exists, every part is taken from there but the judges, which are trained anew, and the U-Net,
    which goes on from its weights with the last round.
    """

    def __init__(self, work: Path, kept: Path | None = None) -> None:
        self.work, self.kept = work, kept

    @functools.cached_property
    def audiomae(self) -> AudioMAE:
        return AudioMAE.from_pretrained(self.kept / "audiomae") if self.kept else perceptual.train_audiomae(self.work)

    @functools.cached_property
    def vae(self) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(self.kept, subfolder="vae") if self.kept else autoencoder.train_vae(self.work)

    @functools.cached_property
    def loa(self) -> Tensor:
        """True LOA of the training corpus, (num_clips, 8, 128)."""
        path = self.work / "loa.pt"
        if not path.exists():
            fit.save_whole(perceptual.loa_of(self.audiomae, fit.load(self.work, "train")["fbank"]), path)
        return torch.load(path, weights_only=True)

    @functools.cached_property
    def latents(self) -> tuple[Tensor, Tensor]:
        path = self.work / "latents.pt"
        if not path.exists():
            mean, std = autoencoder.latents_of(self.vae, fit.load(self.work, "train")["mel"])
            fit.save_whole((mean.half(), std.half()), path)
        return torch.load(path, weights_only=True)

    @functools.cached_property
    def clap(self) -> ClapModel:
        if self.kept:
            return ClapModel.from_pretrained(self.kept, subfolder="text_encoder", dtype=torch.float32).eval()
        return language.train_clap(self.work)

    @functools.cached_property
    def language(self) -> language.LanguageSide:
        if self.kept:
            return language.LanguageSide.from_package(self.kept)
        return language.train_language(self.work, self.loa, self.clap)

    @functools.cached_property
    def vocoder(self) -> SpeechT5HifiGan:
        return vocoder.train_vocoder(self.work)

    @torch.no_grad()
    def conditions(self) -> denoiser.Conditions:
        """Embeds every caption of the fixed table once; row 0 is the empty caption."""
        table = captions.caption_table()
        rows, texts = {}, [""]
        for names, lines in table.items():
            rows[names] = torch.arange(len(texts), len(texts) + len(lines))
            texts += lines
        clap_text = language.text_features(self.clap, captions.build_clap_tokenizer(), texts)
        tokens = captions.build_t5_tokenizer()(texts, padding=True, return_tensors="pt")
        loa, states = self.language(clap_text, tokens.input_ids, tokens.attention_mask)
        names = fit.load(self.work, "train")["names"]
        caption_rows = [rows[n] if n else torch.empty(0, dtype=torch.long) for n in names]
        return denoiser.Conditions(self.loa, caption_rows, {"loa": loa, "t5": states, "mask": tokens.attention_mask})

    def unet(self) -> AudioLDM2UNet2DConditionModel:
        mean, std = self.latents
        rounds, start = UNET_ROUNDS, denoiser.build_unet()
        if self.kept:
            rounds = UNET_ROUNDS[-1:]
            start.load_state_dict(AudioLDM2UNet2DConditionModel.from_pretrained(self.kept, subfolder="unet").float().state_dict())
        return denoiser.train_unet(self.work, mean, std, self.vae.config.scaling_factor, self.conditions(), rounds, start)

    def pipeline(self) -> AudioLDM2Pipeline:
        return AudioLDM2Pipeline(
            vae=self.vae, text_encoder=self.clap, text_encoder_2=self.language.t5, projection_model=self.language.projection,
            language_model=self.language.gpt2, tokenizer=captions.build_clap_tokenizer(),
            tokenizer_2=captions.build_t5_tokenizer(), feature_extractor=language.build_feature_extractor(), unet=self.unet(),
            scheduler=denoiser.build_scheduler(), vocoder=self.vocoder,
        )  # fmt: skip

    def package(self, out: Path) -> None:
        """Everything in half precision safetensors, in the layout that the full-size model has on the hub."""
        judges = {
            "classifier": perceptual.train_classifier(self.work, self.audiomae, self.vae),
            "vggish": perceptual.train_embedder(self.work),
        }
        if self.kept:
            if out.resolve() != self.kept.resolve():
                shutil.copytree(self.kept, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md", "measured.json"))
            self.unet().half().save_pretrained(out / "unet")
        else:
            self.pipeline().to(torch.float16).save_pretrained(out, safe_serialization=True)
            self.audiomae.half().save_pretrained(out / "audiomae")
        for name, judge in judges.items():
            judge.half().save_pretrained(out / name)

    def run(self, stage: str, out: Path) -> None:
        if stage not in STAGES:
            raise ValueError(f"{stage}: no such stage; the stages are {', '.join(STAGES)}")
        steps = {
            "prepare": lambda: fit.prepare(self.work),
            "audiomae": lambda: self.loa,
            "classifier": lambda: perceptual.train_classifier(self.work, self.audiomae, self.vae),
            "embedder": lambda: perceptual.train_embedder(self.work),
            "vae": lambda: self.latents,
            "vocoder": lambda: self.vocoder,
            "clap": lambda: self.clap,
            "language": lambda: self.language,
            "unet": self.unet,
            "package": lambda: self.package(out),
            "clips": lambda: fit.write_target_clips(CLIPS),
            "measure": lambda: measure.write_card(measure.measure(self.work), UNET_ROUNDS, out),
        }
        steps[stage]()
