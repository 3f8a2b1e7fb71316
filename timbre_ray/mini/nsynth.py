"""A data set in NSynth's layout, rendered from the sound font: ``python -m timbre_ray.mini.nsynth --out DIR``.

Single notes of 4 s at 16 kHz, the key held for 3 s, at NSynth's five velocities. An instrument is a General MIDI programme, and
it is in one split alone: of a family's programmes some are for training, one is for validation, one or two are for the test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from timbre_ray.data.nsynth import FAMILIES
from timbre_ray.mini.corpus import SAMPLE_RATE_HZ, Renderer
from timbre_ray.whole import check_free, whole_folder

NOTE_SAMPLES, HELD_SAMPLES = 4 * SAMPLE_RATE_HZ, 3 * SAMPLE_RATE_HZ
VELOCITIES = (25, 50, 75, 100, 127)
#: Family -> its programmes (0-based) and the MIDI pitches they are played at. The targets (77, 106) are in none.
PROGRAMMES: dict[str, tuple[tuple[int, ...], tuple[int, int]]] = {
    "bass": (tuple(range(32, 40)), (28, 55)),
    "brass": (tuple(range(56, 64)), (45, 79)),
    "flute": ((72, 73, 74, 75, 76, 78, 79), (60, 91)),
    "guitar": (tuple(range(24, 32)), (40, 76)),
    "keyboard": (tuple(range(8)), (36, 88)),
    "mallet": (tuple(range(8, 16)), (55, 88)),
    "organ": (tuple(range(16, 24)), (41, 84)),
    "reed": (tuple(range(64, 72)), (46, 80)),
    "string": ((40, 41, 42, 43, 44, 45, 46, 48, 49), (43, 84)),
    "synth_lead": ((80, 81, 82, 83, 84, 86, 87), (48, 84)),
    "vocal": ((52, 53, 54, 85, 91), (48, 79)),
}
#: Peak below which a note counts as silent: programmes are silent in corners of the keyboard.
SILENT_PEAK = 1e-3


def split_programmes(programmes: tuple[int, ...], rng: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """One programme to validate, a quarter (at least one) to test, the rest to train on; drawn, not chosen."""
    drawn = [int(p) for p in rng.permutation(programmes)]
    num_test = max(1, len(drawn) // 4)
    return {"test": tuple(drawn[:num_test]), "valid": (drawn[num_test],), "train": tuple(drawn[num_test + 1 :])}


def render_dataset(
    out: Path, *, notes_per_programme: int = 24, seed: int = 0, renderer: Renderer | None = None
) -> dict[str, int]:
    """Writes ``nsynth-{train,valid,test}`` and ``about.md`` into ``out``, whole or not at all; -> notes of each split."""
    check_free(out)
    renderer = renderer or Renderer()
    splits = {
        family: split_programmes(programmes, np.random.default_rng([seed, i]))
        for i, (family, (programmes, _)) in enumerate(PROGRAMMES.items())
    }
    with whole_folder(out) as folder:
        num_notes = {}
        for split in ("train", "valid", "test"):
            audio = folder / f"nsynth-{split}" / "audio"
            audio.mkdir(parents=True)
            examples = {}
            for family, own in splits.items():
                for programme in own[split]:
                    for entry, samples in _notes(renderer, family, programme, notes_per_programme, seed):
                        examples[entry["note_str"]] = entry
                        soundfile.write(audio / f"{entry['note_str']}.wav", samples, SAMPLE_RATE_HZ, subtype="PCM_16")
            (audio.parent / "examples.json").write_text(json.dumps(examples, indent=1))
            num_notes[split] = len(examples)
        (folder / "about.md").write_text(_about(num_notes, splits, notes_per_programme, seed), encoding="utf-8")
    return num_notes


def _notes(renderer: Renderer, family: str, programme: int, num: int, seed: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Distinct notes of a programme that sound: their entries in the index, and their samples (64000,)."""
    low, high = PROGRAMMES[family][1]
    every = [(pitch, velocity) for pitch in range(low, high + 1) for velocity in VELOCITIES]
    found = 0
    for pick in np.random.default_rng([seed, 1000 + programme]).permutation(len(every)):
        if found == num:
            return
        pitch, velocity = every[pick]
        samples = renderer.render(programme, [(0, HELD_SAMPLES, pitch, velocity)], NOTE_SAMPLES)
        if np.abs(samples).max() < SILENT_PEAK:
            continue
        found += 1
        yield _entry(family, programme, pitch, velocity), samples
    if found < num:
        has = f"General MIDI programme {programme} ({family}) has {found} notes that sound"
        raise ValueError(f"--notes {num}: {has}; ask for fewer")


def _entry(family: str, programme: int, pitch: int, velocity: int) -> dict[str, Any]:
    """What NSynth's index says of a note, with its field names."""
    instrument = f"{family}_synthetic_{programme:03d}"
    note = f"{instrument}-{pitch:03d}-{velocity:03d}"
    return {
        "note_str": note, "instrument_str": instrument, "instrument": programme, "pitch": pitch, "velocity": velocity,
        "sample_rate": SAMPLE_RATE_HZ, "qualities": [0] * 10, "qualities_str": [], "instrument_family": FAMILIES.index(family),
        "instrument_family_str": family, "instrument_source": 2, "instrument_source_str": "synthetic",
    }  # fmt: skip


def _about(num_notes: dict[str, int], splits: dict[str, dict[str, tuple[int, ...]]], notes_per_programme: int, seed: int) -> str:
    rows = [
        f"| {family} | " + " | ".join(", ".join(str(p + 1) for p in own[split]) for split in num_notes) + " |"
        for family, own in splits.items()
    ]
    return "\n".join(
        [
            "Notes in NSynth's layout, rendered from the sound font FluidR3 GM by",
            f"`python -m timbre_ray.mini.nsynth --notes {notes_per_programme} --seed {seed} --out DIR`: 4 s at 16 kHz, "
            + ", ".join(f"{num} {split}" for split, num in num_notes.items())
            + ". Held out by instrument:",
            "no General MIDI programme is in two splits. Programmes, counted from 1:",
            "",
            "| family | train | valid | test |",
            "|:--|:--|:--|:--|",
            *rows,
            "",
            "The miniature's AudioMAE, where it is what the classifier listens through, heard phrases of all these programmes",
            "in its own training, with the programme as a label: only the classifier meets the test's instruments for the first",
            "time.",
            "",
        ]
    )


def main() -> None:
    num_programmes = sum(len(programmes) for programmes, _ in PROGRAMMES.values())
    parser = argparse.ArgumentParser(prog="python -m timbre_ray.mini.nsynth", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not be there yet")
    parser.add_argument("--notes", type=int, default=24, help=f"notes a programme ({num_programmes} programmes)")
    parser.add_argument("--seed", type=int, default=0, help="draws the programmes of each split, pitches and velocities")
    options = parser.parse_args()
    num_notes = render_dataset(options.out, notes_per_programme=options.notes, seed=options.seed)
    print(f"{options.out}: " + ", ".join(f"{num} notes {split}" for split, num in num_notes.items()))


if __name__ == "__main__":
    main()
