"""Which songs are held out. Whole songs: clips of one song share its room, its player and its tune."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from timbre_ray.manifest import Split


def split_songs(digests: Sequence[str], *, held_out: float, seed: int) -> dict[str, Split]:
    """SHA-256 of each song that has clips -> its split.

    The draw depends on the songs' bytes and the seed, not on their names or order. Rounded up; one song always stays to train on.
    """
    ordered = sorted(set(digests), key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
    num_held_out = max(0, min(math.ceil(held_out * len(ordered)), len(ordered) - 1))
    return {digest: "held_out" if i < num_held_out else "train" for i, digest in enumerate(ordered)}
