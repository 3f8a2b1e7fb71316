"""What a backbone's tokenizers make of words, where they lie on this machine. No torch, no transformers."""

from __future__ import annotations

import functools
from pathlib import Path

from tokenizers import Tokenizer

from timbre_ray.backbones import pipeline_at_hand
from timbre_ray.specs import BackboneSpec

#: Folder of the pipeline -> whose words its tokenizer knows.
TOKENIZERS = {"tokenizer": "CLAP", "tokenizer_2": "T5"}


def num_tokens(backbone: BackboneSpec, prompt: str) -> int | None:
    """Length of a prompt as T5 reads it, its end included; None where the tokenizer is not at hand."""
    tokenizer = _at_hand(backbone, "tokenizer_2")
    return len(tokenizer.encode(prompt).ids) if tokenizer else None


def known_word(backbone: BackboneSpec, word: str) -> dict[str, bool] | None:
    """Text model -> whether ``word`` is one token of its vocabulary; None where a tokenizer is not at hand."""
    found = {}
    for part, name in TOKENIZERS.items():
        tokenizer = _at_hand(backbone, part)
        if tokenizer is None:
            return None
        ids = tokenizer.encode(f" {word}", add_special_tokens=False).ids
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()  # an unknown word is one token too, and decodes to nothing
        found[name] = len(ids) == 1 and text == word
    return found


def _at_hand(backbone: BackboneSpec, part: str) -> Tokenizer | None:
    folder = pipeline_at_hand(backbone)
    file = folder / part / "tokenizer.json" if folder else None
    return _read(file) if file and file.is_file() else None


@functools.lru_cache(maxsize=8)
def _read(file: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
