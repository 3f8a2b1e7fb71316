"""Front ends: the mel spectrogram of AudioLDM2's VAE and the Kaldi filter bank of AudioMAE.

Both read 16 kHz mono. The constants are those of the published models, so that their weights load and mean the same here:
AudioLDM's ``TacotronSTFT`` for the mel, AudioMAE's ``dataset.py`` for the filter bank.
"""

from __future__ import annotations

import functools

import torch
import torchaudio
from torch import Tensor
from torchaudio.compliance import kaldi

SAMPLE_RATE_HZ = 16_000
HOP = 160
NUM_MELS = 64
FBANK_MEAN, FBANK_STD = -4.2677393, 4.5689974


def normalise_waveform(waveform: Tensor) -> Tensor:
    """Removes the mean and scales the peak to 0.5, as AudioLDM2's data loader does.

    waveform: (..., samples). A silent waveform stays zero.
    """
    centred = waveform - waveform.mean(-1, keepdim=True)
    return 0.5 * centred / centred.abs().amax(-1, keepdim=True).clamp_min(1e-8)


def mix(target: Tensor, partner: Tensor, gain_db: float) -> Tensor:
    """Plain sum of (num_clips, samples) waveforms, the partner at ``gain_db``; normalised like every clip."""
    gain = 10 ** (gain_db / 20)
    if gain == 0:
        return target  # normalised already: once more would move it by a rounding
    return normalise_waveform(target + gain * partner)


@functools.lru_cache(maxsize=1)
def mel_basis() -> Tensor:
    """(513, 64): Slaney's mel filters from 0 to 8000 Hz over the magnitudes of a 1024-point FFT."""
    return torchaudio.functional.melscale_fbanks(513, 0.0, 8000.0, NUM_MELS, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney")


def log_mel(waveform: Tensor) -> Tensor:
    """Log-mel spectrogram that AudioLDM2's VAE encodes.

    waveform: (batch, samples) at 16 kHz -> (batch, samples // 160, 64), natural log of the magnitude, clamped at 1e-5.
    """
    n_fft = 1024
    pad = (n_fft - HOP) // 2
    padded = torch.nn.functional.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    window = torch.hann_window(n_fft, device=waveform.device)
    spectrum = torch.stft(padded, n_fft, HOP, n_fft, window, center=False, return_complex=True).abs()
    mel = spectrum.transpose(1, 2) @ mel_basis().to(waveform.device)
    return mel.clamp_min(1e-5).log()


def fbank(waveform: Tensor, num_frames: int) -> Tensor:
    """AudioMAE's normalised filter bank.

    waveform: (batch, samples) at 16 kHz -> (batch, num_frames, 128). Short clips are padded with zeros BEFORE the
    normalisation, as AudioMAE does; long ones are cut.
    """
    banks = []
    for clip in waveform:
        bank = kaldi.fbank(
            (clip - clip.mean())[None],
            htk_compat=True,
            sample_frequency=SAMPLE_RATE_HZ,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )[:num_frames]
        banks.append(torch.nn.functional.pad(bank, (0, 0, 0, num_frames - len(bank))))
    return (torch.stack(banks) - FBANK_MEAN) / (2 * FBANK_STD)


def cut_windows(waveform: Tensor, num_samples: int) -> Tensor:
    """(batch, samples) -> (batch, windows, num_samples) one after another, the rest left out; a shorter clip is one window."""
    return waveform.unfold(1, num_samples, num_samples) if waveform.shape[1] > num_samples else waveform[:, None]
