"""Similarity in CLAP's space, as DreamSound reports it: of what is heard to what was asked (CLAP-T) or to recordings (CLAP-A)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def clap_t(audio: Array, text: Array) -> float:
    """audio: (n, dim) rows of generated clips, text: (dim,) of their prompt -> mean cosine, in [-1, 1]."""
    return float((_unit(audio) @ _unit(text)).mean())


def clap_a(audio: Array, reference: Array) -> float:
    """audio: (n, dim) rows of generated clips, reference: (m, dim) of recordings -> mean cosine to their mean direction."""
    return clap_t(audio, _unit(reference).mean(0))


def _unit(rows: Array) -> Array:
    """Each row over its length. Raises ValueError where there is no direction: nothing but zeros, or not finite."""
    rows = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("CLAP embeddings of no length, or not finite: the audio or the embedder is broken")
    return rows / lengths
