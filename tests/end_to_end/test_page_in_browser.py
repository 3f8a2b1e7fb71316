"""The report in a real browser: players play one at a time, the blind test hides, counts and reveals, nothing leaves the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_report import ARMS, PLANTED, write_sweep
from timbre_ray import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PROBE = """
window.addEventListener("load", async () => {
  const found = { errors: window.probeErrors };
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const started = (audio) => new Promise((done) => audio.addEventListener("play", done, { once: true }));
  const buttons = [...document.querySelectorAll("figure.clip .play")];
  const audios = [...document.querySelectorAll("figure.clip audio")];
  found.players = buttons.length;
  found.controls = audios.filter((audio) => audio.controls).length;
  for (const index of [0, 3]) {
    const playing = started(audios[index]);
    buttons[index].click();
    await playing;
  }
  await wait(50);
  found.playing = audios.map((audio, index) => (audio.paused ? -1 : index)).filter((index) => index >= 0);
  audios[3].pause();
  const stage = document.getElementById("blind-stage");
  const result = document.getElementById("blind-result");
  const said = stage.textContent + [...stage.querySelectorAll("[aria-label]")].map((e) => e.ariaLabel);
  found.named = ARMS.filter((arm) => new RegExp(`(^|[^-])${arm}([^-]|$)`).test(said));
  found.heard = stage.querySelectorAll(".heard .play").length;
  found.hidden = result.hidden;
  found.linked = !document.querySelector('nav a[href="#blind"]').hidden;
  found.references = {};
  const label = (button) => [...button.childNodes].map((node) => node.textContent).join("").trim();
  for (let i = 0; i < 400 && Object.keys(found.references).length < 3; i++) {
    const prompt = stage.querySelector(".asked").textContent.split(" ")[0];
    const [first] = stage.querySelectorAll(".heard > .play");
    const source = first.previousElementSibling.src;
    const clip = [...document.querySelectorAll("figure.clip")].find((c) => c.querySelector("audio").src === source);
    found.references[prompt] = [label(first), clip.dataset.column, clip.dataset.kind];
    stage.querySelector(".chosen button").click();
  }
  document.querySelector("[data-action=clear]").click();
  for (const choice of [0, 1, 2, 0]) stage.querySelectorAll(".chosen button")[choice].click();
  found.key = localStorage.key(0);
  found.kept = JSON.parse(localStorage.getItem(localStorage.key(0))).length;
  document.querySelector("[data-action=show]").click();
  found.shown = !result.hidden;
  found.rows = [...result.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
  document.querySelector("[data-action=clear]").click();
  found.cleared = [...result.querySelectorAll("tbody tr")].every((row) => row.cells[1].textContent === "0");
  const requested = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.requests = requested.filter((name) => !name.startsWith("data:"));
  const heads = [...document.querySelectorAll("tbody th:first-child:not(.section)")];
  found.widths = heads.map((head) => head.getBoundingClientRect().width).filter((width) => width > 0);
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.found = JSON.stringify(found);
});
"""
CATCH = "<script>window.probeErrors = []; addEventListener('error', (e) => probeErrors.push(String(e.message)));</script>"


def open_page(page: Path, profile: Path, *, width: int = 1280) -> dict[str, Any]:
    """What the probe found after it clicked through the page."""
    text = page.read_text(encoding="utf-8")
    text = text.replace("<style>", f"{CATCH}<style>", 1)
    text = text.replace("</body>", f"<script>const ARMS = {json.dumps(list(ARMS))};{PROBE}</script></body>")
    probed = page.with_name("probed.html")
    probed.write_text(text, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", f"--window-size={width},900",
        "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage", "--virtual-time-budget=20000", "--dump-dom",
        probed.as_uri(),
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<body[^>]*data-found="([^"]*)"', dumped)
    assert found, "the probe did not come to its end"
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    results, store = write_sweep(folder)
    return report.build(results, store, folder / "out")


def test_the_page_plays_and_the_blind_test_hides_and_reveals(page: Path, tmp_path: Path) -> None:
    found = open_page(page, tmp_path)
    assert found["errors"] == [] and found["requests"] == []
    assert (found["players"], found["controls"]) == (2 * (1 + 3 + 3 * 3 * len(ARMS)), 0)
    assert found["playing"] == [3]  # the second click stopped the first clip
    assert (found["named"], found["heard"], found["hidden"]) == ([], 3, True)
    assert found["linked"] and found["references"] == {
        "solo": ["the recording", "a recording", "solo"], "duet": ["the flute alone", "a recording", "solo"],
        "partner": ["the untouched model", "untouched backbone", "partner"],
    }  # fmt: skip
    clips = re.findall(r'data-clips="([0-9a-f]+)"', page.read_text(encoding="utf-8"))
    assert found["key"] == f"timbre-ray blind test: synthetic · timbre-ray, {clips[0]}"
    assert (found["kept"], found["shown"], found["cleared"]) == (4, True, True)
    assert {row[0] for row in found["rows"]} == set(ARMS)
    assert sum(float(row[2]) for row in found["rows"]) == 4  # four choices, one of them shared
    assert sum(int(row[1]) for row in found["rows"]) == 8


def test_long_names_of_arms_do_not_push_a_table_out_of_a_wide_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = ("an-arm-named-" * 8 + "so", "x" * 110)
    for name in long:
        monkeypatch.setitem(ARMS, name, ARMS["base-prior"])
        monkeypatch.setitem(PLANTED, name, PLANTED["base-prior"])
    results, store = write_sweep(tmp_path, arms=("base", *long), targets=("mine",), seeds=(0, 1))
    found = open_page(report.build(results, store, tmp_path / "out"), tmp_path / "profile")
    assert len(found["widths"]) > 5 and max(found["widths"]) <= 20 * 16 + 1


def test_a_phone_needs_no_sideways_scrolling(page: Path, tmp_path: Path) -> None:
    assert open_page(page, tmp_path, width=500)["overflow"] <= 0
