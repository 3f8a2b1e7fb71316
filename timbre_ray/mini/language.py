"""Trains the text side: CLAP (text and audio, contrastive), then T5, the projection and GPT-2 (captions to LOA)."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AudioLDM2ProjectionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    T5Config,
    T5EncoderModel,
)  # fmt: skip

from timbre_ray.mini.captions import build_clap_tokenizer, build_t5_tokenizer, caption
from timbre_ray.mini.corpus import INSTRUMENTS
from timbre_ray.mini.fit import fit, load, multi_hot, save_whole
from timbre_ray.mini.perceptual import LOA_DIM
from timbre_ray.models.language import rollout

CLAP_DIM, T5_DIM = 64, 96


def build_clap(vocab_size: int) -> ClapModel:
    text = {
        "vocab_size": vocab_size, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192,
        "max_position_embeddings": 36, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    audio = {
        "spec_size": 128, "window_size": 4, "num_mel_bins": 64, "patch_embeds_hidden_size": 24, "hidden_size": 192,
        "depths": [1, 1, 1, 1], "num_attention_heads": [2, 2, 4, 4], "num_hidden_layers": 4, "num_classes": 11,
    }  # fmt: skip
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=CLAP_DIM))


def build_feature_extractor() -> ClapFeatureExtractor:
    return ClapFeatureExtractor(
        feature_size=64, sampling_rate=16_000, hop_length=200, fft_window_size=512, max_length_s=2.56, frequency_max=8000,
        truncation="rand_trunc", padding="repeatpad",
    )  # fmt: skip


def _features(extractor: ClapFeatureExtractor, waveforms: Tensor) -> Tensor:
    rows = [extractor(w.float().numpy(), sampling_rate=16_000, return_tensors="pt")["input_features"][0] for w in waveforms]
    return torch.stack(rows).half()


def text_features(clap: ClapModel, tokenizer: RobertaTokenizer, captions: list[str]) -> Tensor:
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return clap.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output


def train_clap(work: Path, num_steps: int = 500) -> ClapModel:
    """Symmetric contrastive loss; clips of the same instruments count as each other's positives."""
    data = load(work, "train")
    named = [i for i, row in enumerate(data["names"]) if row]
    named = named[:: len(named) // 3000]
    names = [data["names"][i] for i in named]
    cache = work / "clap_features.pt"
    if not cache.exists():
        save_whole(_features(build_feature_extractor(), data["waveform"][named]), cache)
    features = torch.load(cache, weights_only=True)
    tokenizer = build_clap_tokenizer()
    torch.manual_seed(0)
    clap = build_clap(len(tokenizer))

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = torch.randint(len(named), (24,), generator=generator).tolist()
        rng = random.Random(step)
        text = text_features(clap, tokenizer, [caption(names[i], rng) for i in rows])
        audio = clap.get_audio_features(features[rows].float()).pooler_output
        logits = F.normalize(audio, dim=-1) @ F.normalize(text, dim=-1).T * 12.0
        same = torch.tensor([[float(set(names[i]) == set(names[j])) for j in rows] for i in rows])
        target = same / same.sum(1, keepdim=True)
        return {"audio": F.cross_entropy(logits, target) / 2, "text": F.cross_entropy(logits.T, target) / 2}

    return fit("clap", clap, losses, work=work, num_steps=num_steps, lr=1e-3)


class LanguageSide(nn.Module):
    """T5, the projection of both text encoders and GPT-2: a caption to its LOA."""

    def __init__(self, t5_vocab_size: int) -> None:
        super().__init__()
        self.t5 = T5EncoderModel(T5Config(
            vocab_size=t5_vocab_size, d_model=T5_DIM, d_kv=24, d_ff=192, num_layers=2, num_heads=4, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        ))  # fmt: skip
        self.projection = AudioLDM2ProjectionModel(CLAP_DIM, T5_DIM, LOA_DIM)
        self.gpt2 = GPT2LMHeadModel(GPT2Config(
            vocab_size=64, n_embd=LOA_DIM, n_layer=3, n_head=4, n_positions=128, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0, max_new_tokens=8,
        ))  # fmt: skip
        self.instruments = nn.Linear(T5_DIM, len(INSTRUMENTS))

    @classmethod
    def from_package(cls, folder: Path) -> LanguageSide:
        """The trained parts of a saved pipeline, in single precision."""
        model = cls(len(build_t5_tokenizer()))
        model.t5 = T5EncoderModel.from_pretrained(folder, subfolder="text_encoder_2", dtype=torch.float32)
        model.projection = AudioLDM2ProjectionModel.from_pretrained(
            folder, subfolder="projection_model", torch_dtype=torch.float32
        )
        model.gpt2 = GPT2LMHeadModel.from_pretrained(folder, subfolder="language_model", dtype=torch.float32)
        return model.eval()

    def forward(self, clap_text: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """-> LOA (batch, 8, 128), T5 states (batch, length, 96)."""
        states = self.t5(ids, attention_mask=mask).last_hidden_state
        ones = mask.new_ones(len(ids), 1)
        projected = self.projection(clap_text[:, None], states, ones, mask)
        return rollout(self.gpt2, projected.hidden_states, projected.attention_mask), states


def train_language(work: Path, loa: Tensor, clap: ClapModel, num_steps: int = 1000) -> LanguageSide:
    """MSE of the rollout against the clip's true LOA; the empty caption learns the mean of the corpus."""
    names = load(work, "train")["names"]
    named = torch.tensor([i for i, row in enumerate(names) if row])
    labels = multi_hot(names, list(INSTRUMENTS))
    t5_tokenizer, clap_tokenizer = build_t5_tokenizer(), build_clap_tokenizer()
    torch.manual_seed(0)
    model = LanguageSide(len(t5_tokenizer))

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = named[torch.randint(len(named), (16,), generator=generator)]
        rng = random.Random(step)
        captions = ["" if rng.random() < 0.08 else caption(names[i], rng) for i in rows.tolist()]
        with torch.no_grad():
            clap_text = text_features(clap, clap_tokenizer, captions)
        tokens = t5_tokenizer(captions, padding=True, return_tensors="pt")
        predicted, states = model(clap_text, tokens.input_ids, tokens.attention_mask)
        mask = tokens.attention_mask[..., None]
        said = torch.tensor([c != "" for c in captions])
        logits = model.instruments((states * mask).sum(1) / mask.sum(1))
        return {
            "loa": F.mse_loss(predicted, loa[rows]),
            "names": 0.1 * F.binary_cross_entropy_with_logits(logits[said], labels[rows][said]),
        }

    return fit("language", model, losses, work=work, num_steps=num_steps, lr=1e-3)
