"""The pages that are played: the world that each is played in, and what must come of each command."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import soundfile

from tests.docs import worlds
from tests.docs.blocks import ROOT
from tests.docs.play import Act, Scene, remove
from timbre_ray.estimate import estimate
from timbre_ray.store import Store
from timbre_ray.sweep import load_sweep

FILTER = all(map(importlib.util.find_spec, ("basic_pitch", "onnxruntime", "librosa")))
#: The pages' own way out where Basic Pitch is not installed.
NO_FILTER = "" if FILTER else "--no-solo-filter"
PROMPT = "A recording of a piano with sks flute."
FIRST_FLUTE = "--sweep mini-ablation --target chinese_flute_v1"
CLASSIFIER = {"classifiers/mine/model.safetensors": 1, "classifiers/mine/audiomae/model.safetensors": 1}


def report(name: str) -> Mapping[str, int]:
    return {f"reports/{name}/index.html": 1, f"reports/{name}/report.md": 1}


def prepared(folder: str, *, clips: int, songs: int = 4) -> Mapping[str, int]:
    return {f"{folder}/*/*.flac": clips, f"{folder}/pictures/*.png": songs, f"{folder}/manifest.json": 1}


def exported(folder: str) -> Mapping[str, int]:
    parts = ("unet/*.safetensors", "language_model/*.safetensors", "vocoder/*.safetensors")
    return {f"{folder}/{file}": 1 for file in ("model_index.json", *parts)}


def four_clips(folder: Path) -> None:
    """Of 16 kHz, each with a JSON file that says what was asked of which model."""
    clips = sorted((folder / "out").glob("*.wav"))
    assert [soundfile.info(clip).samplerate for clip in clips] == [16_000] * 4
    for clip in clips:
        assert soundfile.read(clip)[0].std() > 0
        about = json.loads(clip.with_suffix(".json").read_text(encoding="utf-8"))
        assert (about["prompt"], about["method"]) == (PROMPT, "prior")


def plans_as_the_page_says(folder: Path) -> None:
    """What ``init`` wrote, before the reader takes less of it."""
    sweep, page = load_sweep(folder / "my-flute.yaml"), (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    counts = estimate(sweep.trials, Store(folder / "store"), todo=set()).counts
    said = f"{sum(c.alone for c in counts)} if each trial worked for itself, {sum(c.shared for c in counts)} as they share"
    assert said in page
    worlds.first_look(folder)


def has_effects(folder: Path) -> None:
    page = (folder / "reports" / "mini-factorial" / "report.md").read_text(encoding="utf-8")
    assert "Effects of the factors" in page and "teacher+prior" in page
    assert "teacher × prior" in (folder / "reports" / "mini-factorial" / "tables" / "effects.csv").read_text(encoding="utf-8")


def is_listed(folder: Path) -> None:
    """``store gc`` alone has removed nothing."""
    assert (folder / worlds.OLD_CHECKPOINT).is_file()


def is_gone(folder: Path) -> None:
    assert not (folder / worlds.OLD_CHECKPOINT).exists()


README = Scene(
    world=worlds.checkout,
    acts={
        "timbre-ray init my-flute.yaml": Act(says=("my-flute.yaml: 18 trials",), writes={"my-flute.yaml": 1}),
    },
)

TUTORIAL = Scene(
    world=worlds.songs,
    acts={
        "timbre-ray data prepare songs/ --out clips/my_flute --clip-seconds 2.56": Act(
            added=NO_FILTER,
            says=("song_3.mp3", "3 songs to train on", "1 song held out"),
            writes=prepared("clips/my_flute", clips=20),
        ),
        "timbre-ray init my-flute.yaml --clips clips/my_flute --instrument flute --partner piano "
        '--target-class "chinese flute"': Act(
            says=("my-flute.yaml: 18 trials",), writes={"my-flute.yaml": 1}, after=plans_as_the_page_says
        ),
        "timbre-ray plan my-flute.yaml": Act(says=("2 trials: 0 keep, 2 run", "each alone", "not measured yet")),
        "timbre-ray doctor my-flute.yaml": Act(
            says=("'sks' is a word of T5's vocabulary", "the Frechet distance is biased upwards", "2 warnings, 0 errors")
        ),
        "timbre-ray run my-flute.yaml": Act(
            says=("2 finished, 0 kept, 0 failed", "Report: reports/my-flute/index.html"),
            writes={**report("my-flute"), "results/my-flute/trials/*.json": 2},
        ),
        "timbre-ray status my-flute": Act(says=("2 finished, 0 not begun",)),
        "timbre-ray report my-flute": Act(says=("Report: reports/my-flute/index.html",), writes=report("my-flute")),
        "timbre-ray compare direct prior --sweep my-flute": Act(
            says=("dreambooth.method", "fad_held_out", "store/artifacts/generate/")
        ),
        "timbre-ray report my-flute --check": Act(says=("report.md and the tables in reports/my-flute: none differs",)),
        f'timbre-ray generate --from prior --sweep my-flute "{PROMPT}" -n 4 -o out/': Act(
            says=("out/clip_0003.wav",), writes={"out/*": 8}, after=four_clips
        ),
        "timbre-ray export prior --sweep my-flute --out my-flute-model": Act(
            says=("my-flute-model: prior after 2 steps",), writes=exported("my-flute-model")
        ),
        "from diffusers import AudioLDM2Pipeline": Act(added="print(audio.shape, abs(audio).max() > 0)", says=("(40960,) True",)),
        "timbre-ray data prepare songs/ --out clips/my_flute_10s": Act(
            added=NO_FILTER, says=("1 song held out",), writes=prepared("clips/my_flute_10s", clips=4)
        ),
        "timbre-ray init my-flute-large.yaml --clips clips/my_flute_10s --backbone cvssp/audioldm2-large": Act(
            says=("my-flute-large.yaml: 18 trials",), writes={"my-flute-large.yaml": 1}
        ),
        "timbre-ray doctor my-flute-large.yaml": Act(
            exit_code=1, says=("cvssp/audioldm2-large is not in the hub's cache", "hf download")
        ),
    },
)

STORAGE = Scene(
    world=worlds.two_arms,
    acts={
        "timbre-ray run sweeps/mini-ablation.yaml --storage s3://bucket/prefix": Act(
            says=("2 finished, 0 kept, 0 failed",), writes=report("mini-ablation")
        ),
        "timbre-ray status s3://bucket/prefix": Act(inside="laptop", says=("2 finished, 0 not begun", "large-gpt2-lora")),
        "timbre-ray report mini-ablation --storage s3://bucket/prefix": Act(inside="laptop", writes=report("mini-ablation")),
        "timbre-ray store verify --storage s3://bucket/prefix": Act(inside="laptop", says=(" artifacts, 0 bad",)),
    },
)

ABLATION = Scene(
    world=worlds.two_factors,
    acts={
        "timbre-ray plan sweeps/mini-factorial.yaml": Act(says=("4 trials: 0 keep, 4 run", "teacher-prior-")),
        "timbre-ray run sweeps/mini-factorial.yaml": Act(
            says=("4 finished, 0 kept, 0 failed", "Report: reports/mini-factorial/index.html"),
            writes={f"reports/mini-factorial/tables/effects.{suffix}": 1 for suffix in ("csv", "parquet", "tex")},
            after=has_effects,
        ),
    },
)

RECORDINGS = Scene(
    world=worlds.songs,
    acts={
        "timbre-ray data prepare songs/ --out clips/my_flute": Act(
            added=NO_FILTER, says=("3 songs to train on", "1 song held out"), writes=prepared("clips/my_flute", clips=4)
        ),
        "timbre-ray data forget clips/my_flute": Act(says=("clips/my_flute: no clip is missing",)),
    },
)

JUDGE = Scene(
    world=worlds.checkout,
    acts={
        "timbre-ray classifier train data/nsynth --rename keyboard=piano --folder 'chinese flute=data/flute' "
        "--out classifiers/mine": Act(says=("4 classes: bass, flute, piano, chinese flute", "120 epochs"), writes=CLASSIFIER),
        "timbre-ray classifier evaluate classifiers/mine data/nsynth --folder 'chinese flute=data/flute' --out reports/mine": Act(
            says=("By class", "chinese flute", "Report: reports/mine/report.md"), writes={"reports/mine/*": 5}
        ),
    },
)

FULL_SIZE = Scene(
    world=worlds.full_size,
    acts={
        "timbre-ray data prepare songs/ --out data/flute_v1": Act(added=NO_FILTER, writes=prepared("data/flute_v1", clips=4)),
        "timbre-ray data prepare songs_v2/ --out data/flute_v2": Act(added=NO_FILTER, writes=prepared("data/flute_v2", clips=4)),
        "timbre-ray plan sweeps/ablation.yaml": Act(says=("36 trials: 0 keep, 36 run", "852", "459", "180.7 GB")),
    },
)

REFERENCE = Scene(
    world=worlds.checkout,
    needs=("docs/storage.md",),  # its bucket
    acts={
        "timbre-ray run sweeps/demo.yaml": Act(says=("1 finished, 0 kept, 0 failed",), writes=report("demo")),
        "timbre-ray init my-flute.yaml --clips recordings/flute --instrument flute --partner piano": Act(
            says=("my-flute.yaml: 18 trials",), writes={"my-flute.yaml": 1}
        ),
        "timbre-ray plan sweeps/mini-ablation.yaml": Act(
            says=("do the paper's claims", "3 trials: 0 keep, 3 run, 0 changed; 0 orphaned", "each alone", "disk")
        ),
        "timbre-ray doctor sweeps/ablation.yaml": Act(exit_code=1, says=("cvssp/audioldm2-large is not in the hub's cache",)),
        "timbre-ray run sweeps/mini-ablation.yaml": Act(
            says=("3 finished, 0 kept, 0 failed", "Report: reports/mini-ablation/index.html"),
            writes={
                **report("mini-ablation"),
                "results/mini-ablation/trials/*.json": 3,
                "results/mini-ablation/tensorboard/**/*tfevents*": 3,
            },
        ),
        "timbre-ray run sweeps/demo.yaml --clips recordings/my_flute": Act(
            says=("1 finished, 0 kept, 0 failed",), writes=report("demo")
        ),
        "timbre-ray status mini-ablation": Act(says=("3 finished, 0 not begun", "large-gpt2-prior", "large-gpt2-lora")),
        "timbre-ray status mini-ablation --json": Act(says=('"num_planned": 3', '"state": "finished"')),
        "timbre-ray report mini-ablation --out reports/mini-ablation": Act(writes=report("mini-ablation")),
        "timbre-ray report s3://bucket/prefix": Act(inside="laptop", writes=report("mini-ablation")),
        "timbre-ray report mini-ablation --check": Act(says=("report.md and the tables in reports/mini-ablation: none differs",)),
        "timbre-ray compare large-gpt2 large-gpt2-prior --sweep mini-ablation": Act(
            says=(
                "dreambooth.method  direct      prior",
                "fad_held_out",
                "large-gpt2 − large-gpt2-prior",
                "store/artifacts/generate/",
            )
        ),
        f'timbre-ray generate --from large-gpt2-prior {FIRST_FLUTE} "{PROMPT}" -n 4 -o out/': Act(
            says=("out/clip_0003.wav", "of sweep mini-ablation"), writes={"out/*": 8}, after=four_clips
        ),
        f"timbre-ray export large-gpt2-lora {FIRST_FLUTE} --out my-flute": Act(
            says=("my-flute: large-gpt2-lora after 2 steps",), writes=exported("my-flute")
        ),
        "timbre-ray classifier train data/nsynth --folder 'chinese flute=data/flute' --out classifiers/mine": Act(
            says=("4 classes: bass, flute, keyboard, chinese flute",), writes=CLASSIFIER
        ),
        "timbre-ray classifier train data/nsynth --out classifiers/nsynth": Act(
            says=("3 classes: bass, flute, keyboard",), writes={"classifiers/nsynth/model.safetensors": 1}
        ),
        "timbre-ray classifier train data/nsynth --rename keyboard=piano --folder 'chinese flute=data/flute' "
        "--folder 'chinese lute=data/lute' --out classifiers/mine": Act(
            before=remove("classifiers/mine"),
            says=("5 classes: bass, flute, piano, chinese flute, chinese lute",),
            writes=CLASSIFIER,
        ),
        "timbre-ray classifier evaluate classifiers/nsynth data/nsynth --out reports/classifier": Act(
            says=("By class", "keyboard"), writes={"reports/classifier/*": 5}
        ),
        "timbre-ray data prepare songs/*.mp3 --out clips/my_flute": Act(
            added=NO_FILTER,
            says=("song_2.mp3", "song_3.mp3"),
            writes=prepared("clips/my_flute", clips=2, songs=2),
        ),
        "timbre-ray data prepare songs/ --out clips/my_flute --clip-seconds 2.56 --no-solo-filter": Act(
            before=remove("clips/my_flute"), says=("3 songs to train on",), writes=prepared("clips/my_flute", clips=20)
        ),
        "timbre-ray store verify": Act(says=(" artifacts, 0 bad",)),
        "timbre-ray store verify --storage store": Act(says=(" artifacts, 0 bad",)),
        "timbre-ray store du": Act(says=("dreambooth", "generate", "all")),
        "timbre-ray store gc": Act(
            before=worlds.old_checkpoint, says=("untouched for", "1 folders", "nothing was: add --yes"), after=is_listed
        ),
        "timbre-ray store gc --days 7 --yes": Act(says=("1 folders", "removed"), after=is_gone),
    },
)

SCENES = {
    "README.md": README,
    "docs/tutorial.md": TUTORIAL,
    "docs/storage.md": STORAGE,
    "docs/how-to/ablation.md": ABLATION,
    "docs/how-to/prepare-recordings.md": RECORDINGS,
    "docs/how-to/train-a-judge.md": JUDGE,
    "docs/how-to/full-size.md": FULL_SIZE,
    "docs/reference/commands.md": REFERENCE,
}
