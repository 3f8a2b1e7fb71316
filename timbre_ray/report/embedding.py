"""Sound and pictures of sound as data URIs: the page needs nothing but itself."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
import soundfile
from PIL import Image
from scipy import signal

WIDTH_PX, HEIGHT_PX = 112, 56
LOWEST_HZ, HIGHEST_HZ = 80.0, 7500.0
RANGE_DB = 60.0
WINDOW_S, HOP_S = 0.064, 0.008


def ogg_uri(samples: np.ndarray, sample_rate_hz: int) -> str:
    """Opus in Ogg: 10.4 kB for 2.56 s at 16 kHz as measured, where Vorbis at its default takes 11 to 16 kB."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="OGG", subtype="OPUS")
    return _uri("audio/ogg", buffer.getvalue())


def mel_picture_uri(samples: np.ndarray, sample_rate_hz: int) -> str:
    """A spectrogram: time to the right, frequency upwards on the mel scale, 60 dB from black to the clip's loudest."""
    window = min(len(samples), round(WINDOW_S * sample_rate_hz))
    hop = min(max(1, window - 1), round(HOP_S * sample_rate_hz))
    frequencies, _, power = signal.spectrogram(samples, sample_rate_hz, "hann", window, window - hop, mode="psd")
    level = 10 * np.log10(np.maximum(power, 1e-20))
    mels = np.linspace(_mel(HIGHEST_HZ), _mel(LOWEST_HZ), HEIGHT_PX)
    rows = np.abs(_mel(frequencies)[None] - mels[:, None]).argmin(1)
    columns = np.linspace(0, power.shape[1] - 1, WIDTH_PX).round().astype(int)
    shade = (level[np.ix_(rows, columns)] - level.max()) / RANGE_DB + 1
    picture = Image.fromarray((255 * shade.clip(0, 1)).astype(np.uint8), mode="P")
    picture.putpalette((255 * mpl.colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return _uri("image/png", buffer.getvalue())


def _mel(frequency_hz: float | np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(frequency_hz) / 700)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")
