"""What the pages tell their reader to type is typed, in their order, and does what they say.

scenes.py: page -> the world it is played in -> what must come of each command. excuses.py: what is not played, and why.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, WITH_README, Piece, pieces
from tests.docs.excuses import EXCUSED
from tests.docs.play import Act, Theatre, environment
from tests.docs.scenes import SCENES


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in WITH_README])
def test_every_command_is_played_or_excused(page: str) -> None:
    there = {piece.name for piece in pieces(ROOT / page)}
    played, excused = set(SCENES[page].acts) if page in SCENES else set(), set(EXCUSED.get(page, {}))
    assert sorted(there - played - excused) == [], "say in scenes.py what must come of it, or in excuses.py why it is not played"
    assert sorted((played | excused) - there) == [], "no longer on the page"
    assert sorted(played & excused) == []


def test_every_excuse_names_what_covers_it() -> None:
    assert set(SCENES) | set(EXCUSED) <= {str(page.relative_to(ROOT)) for page in WITH_README}
    for page, commands in EXCUSED.items():
        for command, excuse in commands.items():
            assert (ROOT / excuse.covered_by).is_file(), f"{page}: {command}: {excuse.covered_by} is not there"
            if excuse.covered_by.endswith(".md"):
                assert command in SCENES[excuse.covered_by].acts, f"{command} is not played on {excuse.covered_by}"


@pytest.mark.parametrize("page", WITH_README, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_hides_in_another_fence(page: Path) -> None:
    """``yaml`` blocks are loaded by test_docs.py; ``console`` ones are the reference's lines of usage."""
    fences = set(re.findall(r"^[ >]*(?:```|~~~).*", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert fences - {"```"} <= {"```sh", "```bash", "```python", "```yaml", "```console"}


def test_a_command_is_known_by_what_is_typed() -> None:
    def name(text: str) -> str:
        return Piece(place="page.md:1", language="sh", text=text).name

    assert name("timbre-ray plan x.yaml   # why\n") == "timbre-ray plan x.yaml"
    assert name("ray dashboard x.yaml &   # why\n") == name("ray dashboard x.yaml &\n") == "ray dashboard x.yaml"
    assert name("timbre-ray run \\\n    x.yaml\n") == "timbre-ray run x.yaml" and name("# why\n") == ""


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (Act(exit_code=1), "exit code 0 instead of 1"),
        (Act(says=("no",)), "does not say"),
        (Act(writes={"y*": 2}), "does not write"),
        (Act(writes={"old": 1}), "does not write"),
    ],
)
def test_what_a_command_does_not_do_is_noticed(act: Act, words: str, tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    piece = Piece(place="page.md:1", language="sh", text="echo yes | tee y  # why\n")
    bare = Theatre(root=tmp_path, scenes={}, bucket="", environment={"PATH": os.environ["PATH"]})
    bare.perform(piece, Act(says=("yes",), writes={"y*": 1}), tmp_path)
    with pytest.raises(AssertionError, match=words):
        bare.perform(piece, act, tmp_path)


@pytest.fixture(scope="module")
def theatre(
    tmp_path_factory: pytest.TempPathFactory, s3_credentials: dict[str, str], new_bucket: Callable[[], str]
) -> Iterator[Theatre]:
    root = tmp_path_factory.mktemp("pages")
    home = tmp_path_factory.mktemp("home")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as ray_folder:  # its sockets need a short path
        yield Theatre(
            root=root, scenes=SCENES, bucket=f"{new_bucket()}/prefix",
            environment=environment(home, Path(ray_folder), s3_credentials),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", SCENES)
def test_a_page_is_played(theatre: Theatre, page: str) -> None:
    theatre.play(page)
