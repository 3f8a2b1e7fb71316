import math

import torch

from timbre_ray.data.features import log_mel, normalise_waveform


def tone(hz: float, seconds: float = 2.56) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(int(16_000 * seconds)) / 16_000)


def test_log_mel_peaks_at_the_band_of_a_tone() -> None:
    mel = log_mel(tone(1000.0)[None])
    assert mel.shape == (1, 256, 64)
    # Slaney's scale: 15 mel at 1 kHz, 8 kHz at 15 + log(8) / log(6.4) * 27 mel; 66 edges from 0.
    top = 15 + math.log(8) / (math.log(6.4) / 27)
    assert abs(int(mel[0, 128].argmax()) - (15 / top * 65 - 1)) <= 1


def test_silence_is_clamped() -> None:
    assert torch.allclose(log_mel(torch.zeros(1, 16_000)), torch.tensor(math.log(1e-5)))


def test_normalised_waveform_has_no_mean_and_half_peak() -> None:
    clip = normalise_waveform(tone(440)[None] * 0.01 + 0.3)
    assert abs(float(clip.mean())) < 1e-5
    assert float(clip.abs().max()) == 0.5
    assert torch.equal(normalise_waveform(torch.zeros(1, 100)), torch.zeros(1, 100))
