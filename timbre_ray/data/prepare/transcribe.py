"""Basic Pitch (Spotify, ICASSP 2022): which notes sound when. An extra, as it installs only by hand."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from timbre_ray.extras import how_to_install

#: Mono samples and their rate in Hz -> (num_notes, 2), start and end of each note in seconds.
Transcriber = Callable[[NDArray[np.float32], int], NDArray[np.float64]]

#: basic-pitch 0.4.0 asks for a TensorFlow that Python 3.11 resolvers cannot place beside torch; its ONNX model needs none.
HOW_TO_INSTALL = f"{how_to_install('data')} && pip install --no-deps basic-pitch==0.4.0"


def load_basic_pitch() -> Transcriber:
    """Loads the model that the package ships. Raises ValueError where it is not installed."""
    missing = [name for name in ("basic_pitch", "onnxruntime", "librosa") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"the solo filter needs Basic Pitch ({', '.join(missing)} not installed): {HOW_TO_INSTALL}; "
            "or run with --no-solo-filter, which takes every part of every song"
        )
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # on import it warns of each runtime that it could use and does not find
    try:
        from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
        from basic_pitch.inference import Model, run_inference
        from basic_pitch.note_creation import model_output_to_notes

        model = Model(build_icassp_2022_model_path(FilenameSuffix.onnx))
    finally:
        root.setLevel(level)

    def transcribe(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "song.wav"
            soundfile.write(path, samples, rate_hz, subtype="FLOAT")
            output = run_inference(path, model)
        # The package's own defaults; its shortest note is 127.7 ms, 11 frames.
        _, notes = model_output_to_notes(output, onset_thresh=0.5, frame_thresh=0.3, min_note_len=11, include_pitch_bends=False)
        return np.array([note[:2] for note in notes], dtype=np.float64).reshape(-1, 2)

    return transcribe
