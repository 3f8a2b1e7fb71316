"""How long a report's page takes to open in headless Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

REPEATS = 5
#: Laid out once more, so that a layout that the browser put off counts.
_PROBE = """<script>
addEventListener("load", () => { document.body.offsetHeight; document.body.dataset.openedMs = performance.now(); });
</script></body>"""


def opening_seconds(page: Path) -> list[float]:
    """From the navigation to the end of the load event, each in a new profile; empty where there is no Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return [_open(chromium, page) for _ in range(REPEATS)] if chromium else []


def _open(chromium: str, page: Path) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        probed = Path(folder) / "page.html"
        probed.write_text(page.read_text(encoding="utf-8").replace("</body>", _PROBE), encoding="utf-8")
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            f"--user-data-dir={folder}/profile", "--dump-dom", probed.as_uri(),
        ]  # fmt: skip
        dumped = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = re.search(r'data-opened-ms="([\d.]+)"', dumped)
    if found is None:
        raise RuntimeError(f"{page}: Chromium did not come to the end of loading it")
    return float(found[1]) / 1000
