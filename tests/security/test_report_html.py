"""Whatever a name, a prompt or a failure says, the page holds no tag, no attribute and no address of theirs."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import soundfile

from timbre_ray import report
from timbre_ray.ledger import Ledger
from timbre_ray.store import Store

HOSTILE = (
    "x\"'><script>steal()</script><img src=//evil.example/p onerror=steal()><svg/onload=x()>`${steal()}`{{7*7}}</style></title>"
)


class Elements(HTMLParser):
    """Tags with their attributes, as a browser sees them; those of drawings apart, for longer labels make other drawings."""

    def __init__(self) -> None:
        super().__init__()
        self.page: list[tuple[str, ...]] = []
        self.drawn: set[tuple[str, ...]] = set()
        self.attributes: list[tuple[str, str]] = []
        self._in_drawing = False

    def handle_starttag(self, tag, attrs):
        self._in_drawing |= tag == "svg"
        element = (tag, *sorted({name for name, _ in attrs}))
        if self._in_drawing:
            self.drawn.add(element)
        else:
            self.page.append(element)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        self._in_drawing &= tag != "svg"


def build(tmp_path: Path, name: str, hostile: str) -> str:
    """The page of two arms and a failure in which every text of the user's is ``hostile``."""
    folder, store = tmp_path / name / "results", Store(tmp_path / name / "store")

    def produce(where: Path) -> None:
        for clip in ("clip_0000.flac", "train_0000.flac"):
            soundfile.write(where / clip, 0.1 * np.sin(np.arange(4000) / 5), 16_000)
        (where / "clips.json").write_text(json.dumps({"prompt": f"a recording of {hostile}"}))

    for stage, key in (("encode", "real"), ("generate", "clip")):
        store.get_or_compute(stage, key, produce, description={})
    target, ledger = f"flute {hostile}", Ledger(folder)
    ledger.write_baseline("flute", {"num_clips": 2, "metrics": {"fad_held_out": 1.0}, "audio": {"real": "real"}})
    metrics = {"fad_held_out": 2.0, "partner_confidence": 0.5, "duet_partner_rank": 1.0}
    for number, arm in enumerate((f"direct {hostile}", f"prior {hostile}", f"broken {hostile}")):
        failed = number == 2
        evaluations = [
            {"step": step, "num_clips": 2, "metrics": metrics, "confidences": {}, "audio": {"solo": "clip"}} for step in (0, 25)
        ]
        ledger.write_trial({
            "schema": 1, "trial_id": f"t{number}", "trial_key": "k", "arm": arm, "target": target, "seed": 0,
            "point": {"clips.path": hostile, "seed": 0, "dreambooth.lr": hostile}, "status": "failed" if failed else "finished",
            "error": {"type": hostile, "message": f"clip {hostile}.flac: {hostile}", "stage": hostile} if failed else None,
            "spec": {"dreambooth": {"method": ("direct", "prior", "lora")[number]}, "teacher": {"epochs": 0}},
            "evaluations": evaluations, "stages": [], "losses": [], "wall_s": 1.0,
        })  # fmt: skip
    ledger.write_sweep({
        "name": f"sweep {hostile}", "question": f"why {hostile}", "arms": [], "planned": ["t0", "t1", "t2"], "run": {},
        "text": hostile, "provenance": {"python": hostile, "packages": {hostile: hostile}},
    })  # fmt: skip
    return report.build(folder, store, tmp_path / name / "out").read_text(encoding="utf-8")


def test_hostile_text_adds_nothing_to_the_page(tmp_path):
    plain, hostile = Elements(), Elements()
    plain.feed(build(tmp_path, "plain", "harmless"))
    page = build(tmp_path, "hostile", HOSTILE)
    hostile.feed(page)
    assert hostile.page == plain.page and hostile.page.count(("script",)) == 1
    assert hostile.drawn <= plain.drawn and len(hostile.drawn) > 5
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    linked = [value for name, value in hostile.attributes if name in ("src", "href", "action", "xlink:href")]
    assert linked and all(value.startswith(("data:", "#")) for value in linked)
    assert "&lt;script&gt;steal()" in page and "<script>steal" not in page and "{{7*7}}" in page  # as text, not worked out


def test_hostile_text_is_escaped_in_markdown(tmp_path):
    build(tmp_path, "hostile", HOSTILE)
    text = (tmp_path / "hostile" / "out" / "report.md").read_text(encoding="utf-8")
    assert "steal()" in text
    for tag in ("<script", "<img", "<svg", "</style"):
        assert tag not in text
