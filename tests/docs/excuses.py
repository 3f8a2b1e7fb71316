"""The commands of the pages that tests/docs/test_pages_run.py does not play, each with the reason and with what covers it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excuse:
    why: str
    covered_by: str
    """The test that runs it, or what it runs; of a command that another page has too, that page."""


def _not_played(why: str, covered_by: str, *commands: str) -> dict[str, Excuse]:
    return {command: Excuse(why=why, covered_by=covered_by) for command in commands}


INSTALLS, EXTRA = "installs onto the reader's own machine", "pip install --constraint constraints.txt --editable '.[{}]'"
CLUSTER = "starts a cluster or asks one"
SAME = "as on the page named here"
CI, DEMO, MINI = ".ci/run", "tests/end_to_end/test_demo.py", "tests/unit/test_mini_training.py"
TRACKERS = "tests/integration/test_real_exporters.py"
SONGS, S3 = "tests/end_to_end/test_prepare_recordings.py", "tests/storage/test_sweep_on_s3.py"
RAY_UP, CLUSTER_FILES, JOBS = "tests/cluster/test_ray_up.py", "tests/unit/test_cluster_files.py", "tests/unit/test_jobs.py"
DETACH = "timbre-ray run sweeps/mini-ablation.yaml --address http://127.0.0.1:8265 --detach"
LOGS = "timbre-ray job logs ID --follow"
METHOD = (
    '"""``text_attention``: the keys and values of the attention to text train in full; all else is frozen (Kumari et al. '
    '2023)."""'
)

#: Page -> command, as ``Piece.name`` has it -> why it is not played there.
EXCUSED: dict[str, dict[str, Excuse]] = {
    "README.md": {
        **_not_played("the six arms at their own size", DEMO, "make demo"),
        **_not_played("is the tests themselves", CI, "make test"),
        **_not_played(INSTALLS, CI, "make install && source .venv/bin/activate"),
        **_not_played(
            SAME, "docs/tutorial.md", "timbre-ray plan my-flute.yaml", "timbre-ray doctor my-flute.yaml",
            "timbre-ray run my-flute.yaml", "timbre-ray status my-flute", "timbre-ray report my-flute",
            "timbre-ray report my-flute --check", "timbre-ray compare direct prior --sweep my-flute",
            'timbre-ray generate --from prior --sweep my-flute "A recording of a piano with sks flute." -n 4 -o out/',
        ),
        **_not_played(CLUSTER, RAY_UP, "ray up cluster.yaml", DETACH, LOGS),
    },
    "docs/tutorial.md": {
        **_not_played(INSTALLS, CI, "make install && source .venv/bin/activate"),
        **_not_played(INSTALLS, SONGS, EXTRA.format("data"), "pip install --no-deps basic-pitch==0.4.0"),
    },
    "docs/storage.md": {
        **_not_played(INSTALLS, S3, EXTRA.format("s3")),
        **_not_played(
            "the credentials of the test's own server are set", S3,
            "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_DEFAULT_REGION=...",
        ),
    },
    "docs/how-to/prepare-recordings.md": {
        **_not_played(INSTALLS, SONGS, EXTRA.format("data"), "pip install --no-deps basic-pitch==0.4.0"),
    },
    "docs/how-to/trackers.md": {
        **_not_played(
            INSTALLS, TRACKERS, "pip install tensorboard", "pip install optuna-dashboard", "pip install wandb mlflow-skinny aim"
        ),
        **_not_played("serves until it is stopped", TRACKERS, "optuna-dashboard results/my-search/optuna.log"),
        **_not_played(
            "serves until it is stopped", "tests/unit/test_exporters.py", "tensorboard --logdir results/mini-ablation/tensorboard"
        ),
    },
    "docs/how-to/full-size.md": {
        **_not_played(
            "needs a sweep of the published model", "tests/full_size/test_every_method.py",
            "timbre-ray export large-gpt2-lora --sweep ablation --target flute_v1 --out my-flute",
        ),
    },
    "docs/how-to/train-the-miniature.md": {
        **_not_played(INSTALLS, MINI, f"apt-get install fluidsynth fluid-soundfont-gm && {EXTRA.format('mini')}"),
        **_not_played(
            "trains for an hour", MINI, "python -m timbre_ray.mini --work DIR",
            "torchrun --nproc-per-node 2 -m timbre_ray.mini unet --work DIR --keep WEIGHTS --threads 1",
            "python -m timbre_ray.mini package --work DIR --keep WEIGHTS --out NEW",
        ),
    },
    "docs/how-to/add-a-method.md": {
        **_not_played("is registered and held to the contract", "tests/docs/test_how_to.py", METHOD),
        **_not_played("is one of the tests", "tests/contract/test_methods.py", "python -m pytest tests/contract/test_methods.py"),
    },
    "docs/how-to/own-cluster.md": {
        **_not_played(INSTALLS, RAY_UP, EXTRA.format("cluster")),
        **_not_played(
            CLUSTER, RAY_UP, "ray get-auth-token --generate", "export RAY_AUTH_MODE=token", DETACH, LOGS,
            "timbre-ray run sweeps/mini-ablation.yaml --address auto",  # what a job runs on the head
        ),
        **_not_played(
            CLUSTER, CLUSTER_FILES, "RAY_UP_enable_autoscaler_v2=0 ray up docs/cluster/on-premises.yaml",
            "ray dashboard docs/cluster/on-premises.yaml", "ray down docs/cluster/on-premises.yaml",
        ),
    },
    "docs/cluster/README.md": {
        **_not_played(INSTALLS, RAY_UP, f"{EXTRA.format('cluster')} boto3"),
        **_not_played(
            CLUSTER, RAY_UP, "ray get-auth-token --generate", "export RAY_AUTH_MODE=token", "ray up cluster.yaml",
            "ray dashboard cluster.yaml", DETACH, LOGS,
            "ray rsync-down cluster.yaml /mnt/timbre-ray/reports/mini-ablation/ reports/mini-ablation/", "ray down cluster.yaml",
        ),
    },
    "docs/reference/commands.md": {
        **_not_played(
            SAME, "README.md", "timbre-ray init my-flute.yaml",
        ),
        **_not_played(
            SAME, "docs/how-to/prepare-recordings.md", "timbre-ray data prepare songs/ --out clips/my_flute",
            "timbre-ray data forget clips/my_flute",
        ),
        **_not_played(
            SAME, "docs/storage.md", "timbre-ray status s3://bucket/prefix",
            "timbre-ray report mini-ablation --storage s3://bucket/prefix",
        ),
        **_not_played(CLUSTER, RAY_UP, DETACH, LOGS, "timbre-ray job logs mini-ablation-20260101-120000 --follow"),
        **_not_played(
            CLUSTER, JOBS, "timbre-ray job status mini-ablation-20260101-120000",
            "timbre-ray job stop mini-ablation-20260101-120000",
        ),
    },
}  # fmt: skip
