"""Plays what a page tells its reader to type, in the page's order, and holds the results to what the page promises."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.blocks import PYTHON, ROOT, Piece, pieces

BUCKET = "s3://bucket/prefix"  # as the pages call it
TIMEOUT_S = 900


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
    """What must come of one command."""

    says: tuple[str, ...] = ()
    """Words of what it prints."""
    writes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Glob -> number of files that it writes or changes."""
    exit_code: int = 0
    before: Callable[[Path], None] = lambda folder: None
    """What the page leaves to the reader, or what another example of the reference left in the way."""
    after: Callable[[Path], None] = lambda folder: None
    """Further checks, and what the reader then does by hand."""
    added: str = ""
    """Words that the page offers for a case that is this machine's; of Python, a line that prints what was computed."""
    inside: str = "."
    """Folder below the workspace in which it is typed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    world: Callable[[Path], None] | str
    """Fills the folder in which the page is played; or the page whose folder, after it was played, is gone on with."""
    acts: Mapping[str, Act]
    """A command, as ``Piece.name`` has it -> what must come of it. What stands on a page twice is played once."""
    needs: tuple[str, ...] = ()
    """Pages that must have been played, though elsewhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theatre:
    """Where pages are played, each once."""

    root: Path
    scenes: Mapping[str, Scene]
    bucket: str
    """URL that takes the place of BUCKET."""
    environment: Mapping[str, str]
    played: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Page -> the folder in which it was."""

    def play(self, page: str) -> Path:
        """The folder, after all that the page says was done in it."""
        if page in self.played:
            return self.played[page]
        scene = self.scenes[page]
        for other in scene.needs:
            self.play(other)
        if isinstance(scene.world, str):
            folder = self.play(scene.world)
        else:
            folder = Path(tempfile.mkdtemp(dir=self.root))
            scene.world(folder)
        done = set()
        for piece in pieces(ROOT / page):
            if piece.name in scene.acts and piece.name not in done:
                self.perform(piece, scene.acts[piece.name], folder)
                done.add(piece.name)
        self.played[page] = folder
        return folder

    def perform(self, piece: Piece, act: Act, folder: Path) -> None:
        folder = folder / act.inside
        folder.mkdir(exist_ok=True)
        act.before(folder)
        was = _stamps(folder, act.writes)
        began = time.monotonic()
        result = self._typed(piece, act, folder)
        print(f"{time.monotonic() - began:6.1f} s  {piece.name}")  # shown by pytest -rP
        printed = result.stdout + result.stderr
        about = f"{piece.place}: {piece.name}\n{printed}"
        assert result.returncode == act.exit_code, f"exit code {result.returncode} instead of {act.exit_code}: {about}"
        assert not (missing := [words for words in act.says if words not in printed]), f"does not say {missing}: {about}"
        now = _stamps(folder, act.writes)
        written = {glob: len(now[glob].items() - was[glob].items()) for glob in act.writes}
        assert written == dict(act.writes), f"does not write {dict(act.writes)} but {written}: {about}"
        act.after(folder)

    def _typed(self, piece: Piece, act: Act, folder: Path) -> subprocess.CompletedProcess[str]:
        if piece.language in PYTHON:
            command = [sys.executable, "-c", piece.text + act.added]
        else:
            command = ["bash", "-c", (f"{piece.name} {act.added}" if act.added else piece.text).replace(BUCKET, self.bucket)]
        return subprocess.run(
            command, cwd=folder, env=dict(self.environment), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip


def environment(home: Path, ray_folder: Path, credentials: Mapping[str, str]) -> dict[str, str]:
    """A reader's who has nothing but the checkout and its virtual environment: no model in a cache, no cluster to join."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HF_", "AWS_"))}
    path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]  # this checkout, whatever is installed
    return kept | credentials | {
        "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(path),
        "HF_HUB_OFFLINE": "1", "RAY_ADDRESS": "local", "RAY_TMPDIR": str(ray_folder), "COLUMNS": "220",
    }  # fmt: skip


def remove(*names: str) -> Callable[[Path], None]:
    """Takes away what a command would refuse to write over."""

    def away(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return away


def _stamps(folder: Path, globs: Mapping[str, int]) -> dict[str, dict[Path, tuple[int, int]]]:
    """Glob -> file -> what changes when it is written anew."""
    stats = {glob: {path: path.stat() for path in folder.glob(glob) if path.is_file()} for glob in globs}
    return {glob: {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()} for glob, found in stats.items()}
