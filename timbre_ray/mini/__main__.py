"""Re-trains the embedded miniature: ``python -m timbre_ray.mini --work DIR [STAGE ...]``. Resumes where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from timbre_ray.mini.recipe import STAGES, Recipe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m timbre_ray.mini", description=__doc__)
    parser.add_argument("stages", nargs="*", default=STAGES, help=f"stages to run, in order (default: all of {' '.join(STAGES)})")
    parser.add_argument("--work", type=Path, required=True, help="folder of the corpus and the checkpoints (3 GB)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights", help="where `package` writes the weights")
    kept = "a finished package: only its U-Net is trained further, and its judges anew"
    parser.add_argument("--keep", type=Path, metavar="WEIGHTS", help=kept)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(options.work, options.keep)
    for stage in options.stages:
        recipe.run(stage, options.out)


if __name__ == "__main__":
    main()
