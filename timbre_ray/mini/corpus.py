"""The miniature's corpus: phrases rendered from a General MIDI sound font with FluidSynth.

Three kinds of clip, 2.56 s at 16 kHz: *solo* (one of the captioned instruments), *duet* (two of them) and *wide* (one of
all pitched programmes but the targets, without a caption). The wide clips play the part of AudioLDM2's unlabelled audio:
the VAE, the vocoder, AudioMAE and the first stage of the U-Net learn on them that timbres exist which have no name.
The targets (shakuhachi, shamisen) are rendered apart and never enter the pretraining corpus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from timbre_ray.extras import how_to_install

SAMPLE_RATE_HZ = 16_000
CLIP_SAMPLES = 40_960  # 2.56 s: 256 mel frames
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")

Part = tuple[int, int, int]  # General MIDI programme (0-based), lowest and highest MIDI pitch
Note = tuple[int, int, int, int]  # start, end (samples), MIDI pitch, velocity

#: Captioned instruments: NSynth's eleven families, one programme each.
INSTRUMENTS: dict[str, Part] = {
    "piano": (0, 48, 84),
    "guitar": (24, 43, 74),
    "marimba": (12, 50, 84),
    "organ": (19, 45, 79),
    "bass": (33, 28, 50),
    "violin": (40, 58, 90),
    "trumpet": (56, 55, 82),
    "clarinet": (71, 52, 84),
    "flute": (73, 62, 94),
    "synth": (81, 48, 80),
    "choir": (52, 48, 76),
}
#: Targets. The two flutes are the paper's two sets of recordings: a high register and a low one.
TARGETS: dict[str, Part] = {
    "chinese_flute_v1": (77, 72, 91),
    "chinese_flute_v2": (77, 52, 68),
    "chinese_lute": (106, 50, 79),
}
TARGET_PROGRAMMES = frozenset({77, 106})
#: Every pitched programme of General MIDI but the targets (112-127 are percussion and sound effects).
WIDE_PROGRAMMES = tuple(p for p in range(112) if p not in TARGET_PROGRAMMES)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """One rendered clip: the names that sound in it (empty for a wide clip), its programmes and its samples."""

    names: tuple[str, ...]
    programmes: tuple[int, ...]
    waveform: np.ndarray  # (40960,) float32, peak 0.5


class Renderer:
    """FluidSynth without reverb and chorus: a list of notes in, one mono clip out."""

    def __init__(self, sound_font: Path = SOUND_FONT) -> None:
        try:
            import fluidsynth
        except ImportError as error:
            raise RuntimeError(f"rendering needs pyfluidsynth: {how_to_install('mini')}") from error
        if not sound_font.exists():
            raise FileNotFoundError(f"{sound_font}: no sound font there; Debian's package fluid-soundfont-gm brings it")
        self._synth = fluidsynth.Synth(samplerate=float(SAMPLE_RATE_HZ), gain=0.5)
        self._synth.setting("synth.reverb.active", 0)
        self._synth.setting("synth.chorus.active", 0)
        self._font = self._synth.sfload(str(sound_font))

    def render(self, programme: int, notes: list[Note], num_samples: int = CLIP_SAMPLES) -> np.ndarray:
        """One instrument's notes -> (num_samples,) float32."""
        self._synth.system_reset()
        self._synth.program_select(0, self._font, 0, programme)
        events = sorted(
            [(end, 0, pitch, 0) for _, end, pitch, _ in notes]
            + [(start, 1, pitch, velocity) for start, _, pitch, velocity in notes]
        )
        pieces, now = [], 0
        for at, on, pitch, velocity in events:
            if (until := min(at, num_samples)) > now:
                pieces.append(self._synth.get_samples(until - now))
                now = until
            if on:
                self._synth.noteon(0, pitch, velocity)
            else:
                self._synth.noteoff(0, pitch)
        if now < num_samples:
            pieces.append(self._synth.get_samples(num_samples - now))
        stereo = np.concatenate(pieces).reshape(-1, 2).astype(np.float32)
        return stereo.mean(axis=1) / 32768.0


def melody(rng: np.random.Generator, low: int, high: int) -> list[Note]:
    """A random walk over a random scale that fills one clip."""
    scale = SCALES[rng.integers(len(SCALES))]
    root = int(rng.integers(12))
    pitches = [p for p in range(low, high + 1) if (p - root) % 12 in scale]
    beat_samples = SAMPLE_RATE_HZ * 60 / rng.uniform(75, 150)
    at, index = rng.uniform(0, 0.12) * SAMPLE_RATE_HZ, int(rng.integers(len(pitches)))
    level = rng.uniform(60, 110)
    notes = []
    while at < CLIP_SAMPLES - 1600:
        length = beat_samples * rng.choice([0.5, 1.0, 1.0, 2.0])
        velocity = int(np.clip(level + rng.normal(0, 8), 30, 127))
        notes.append((int(at), int(at + 0.95 * length), pitches[index], velocity))
        at += length
        index = int(np.clip(index + rng.integers(-3, 4), 0, len(pitches) - 1))
    return notes


def _level(waveform: np.ndarray) -> np.ndarray:
    return waveform / max(float(np.sqrt(np.mean(waveform**2))), 1e-6)


def _peak(waveform: np.ndarray) -> np.ndarray:
    waveform = waveform - waveform.mean()
    return (0.5 * waveform / max(float(np.abs(waveform).max()), 1e-6)).astype(np.float32)


def _sounding(renderer: Renderer, rng: np.random.Generator, programme: int, register: tuple[int, int] | None) -> np.ndarray:
    """Draws a melody (and a register, if none is given) until it sounds: programmes are silent in corners of the keyboard."""
    for _ in range(200):
        low = int(rng.integers(40, 72)) if register is None else register[0]
        high = low + 19 if register is None else register[1]
        waveform = renderer.render(programme, melody(rng, low, high))
        if np.sqrt(np.mean(waveform**2)) > 1e-4:
            return waveform
    raise RuntimeError(f"General MIDI programme {programme} is silent in the range drawn last, {low} to {high}")


def render_solos(renderer: Renderer, parts: Mapping[str, Part], num_each: int, seed: int) -> Iterator[Clip]:
    for i, (name, part) in enumerate(parts.items()):
        rng = np.random.default_rng([seed, 1, i])
        for _ in range(num_each):
            yield Clip(names=(name,), programmes=(part[0],), waveform=_peak(_sounding(renderer, rng, part[0], part[1:])))


def render_duets(
    renderer: Renderer, pairs: list[tuple[str, str]], num_each: int, seed: int, parts: Mapping[str, Part] = INSTRUMENTS
) -> Iterator[Clip]:
    """Two voices at equal RMS, up to 3 dB apart, named in random order."""
    for i, pair in enumerate(pairs):
        rng = np.random.default_rng([seed, 2, i])
        for _ in range(num_each):
            voices = [_level(_sounding(renderer, rng, parts[name][0], parts[name][1:])) for name in pair]
            gain = 10 ** (rng.uniform(-3, 3) / 20)
            names = pair if rng.random() < 0.5 else pair[::-1]
            mixed = _peak(voices[0] + gain * voices[1])
            yield Clip(names=names, programmes=tuple(parts[n][0] for n in names), waveform=mixed)


def render_wide(renderer: Renderer, num_each: int, seed: int) -> Iterator[Clip]:
    for programme in WIDE_PROGRAMMES:
        rng = np.random.default_rng([seed, 3, programme])
        for _ in range(num_each):
            waveform = _sounding(renderer, rng, programme, None)
            yield Clip(names=(), programmes=(programme,), waveform=_peak(waveform))


def all_pairs() -> list[tuple[str, str]]:
    names = list(INSTRUMENTS)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
