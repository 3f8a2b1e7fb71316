"""Captions of the miniature's corpus, and the two tokenizers that read them."""

from __future__ import annotations

import json
import random
import string
import tempfile
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaTokenizer, T5Tokenizer

from timbre_ray.mini.corpus import INSTRUMENTS, all_pairs

SOLO_TEMPLATES = ("A recording of {a}.", "A recording of {a} solo.", "The sound of {a}.", "A {x} melody.")
DUET_TEMPLATES = ("A recording of {a} with {y}.", "A recording of {a} and {b}.")
#: Words that the text encoders know without ever reading them in a caption.
_WORDS = """a an the of and with in on to for from is are recording recordings sound sounds solo melody music duet playing plays
played note notes low quality high good bad clip song tune loud soft slow fast bright dark warm long short old new chinese western
lute lutes flutes pianos shakuhachi dizi pipa koto shamisen instrument instruments string wind keyboard silence noise""".split()
NOISE_RATE = 0.3


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _noise_word(rng: random.Random) -> str:
    """Three random letters, as rare to the model as Dreambooth's token; never the token itself."""
    while (word := "".join(rng.choices(string.ascii_lowercase, k=3))) == "sks":
        pass
    return word


def caption(names: tuple[str, ...], rng: random.Random) -> str:
    """A caption of a clip: the template is drawn, and now and then an unknown word stands before the last name."""
    noise = f"{_noise_word(rng)} " if rng.random() < NOISE_RATE else ""
    last = f"{noise}{names[-1]}"
    if len(names) == 1:
        return rng.choice(SOLO_TEMPLATES).format(a=_article(last), x=last)
    return rng.choice(DUET_TEMPLATES).format(a=_article(names[0]), b=_article(last), y=last)


def caption_table(num_each: int = 8, seed: int = 0) -> dict[tuple[str, ...], list[str]]:
    """A fixed set of captions for every ordered naming, so that their embeddings can be computed once."""
    rng = random.Random(seed)
    namings = [(n,) for n in INSTRUMENTS] + [p for pair in all_pairs() for p in (pair, pair[::-1])]
    return {names: [caption(names, rng) for _ in range(num_each)] for names in namings}


def build_t5_tokenizer() -> T5Tokenizer:
    words = sorted({*_WORDS, "A", "The", "sks", *INSTRUMENTS})
    letters = string.ascii_letters + string.digits + ".,!?'-"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    vocabulary += [(f"▁{w}", -4.0) for w in words if w not in letters]
    vocabulary += [(f"▁{c}", -7.0) for c in letters if c not in ("a", "A")] + [("▁a", -4.0), ("▁A", -4.0)]
    vocabulary += [(c, -8.0) for c in letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=64)


def build_clap_tokenizer() -> RobertaTokenizer:
    trainer = ByteLevelBPETokenizer()
    rng = random.Random(1)
    lines = [c for row in caption_table().values() for c in row] + [" ".join(rng.choices(_WORDS, k=6)) for _ in range(400)]
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(lines, vocab_size=700, min_frequency=2, special_tokens=specials, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_model(folder)
        vocabulary = json.loads((Path(folder) / "vocab.json").read_text())
        merges = [tuple(line.split()) for line in (Path(folder) / "merges.txt").read_text().splitlines()[1:]]
    return RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=32)
