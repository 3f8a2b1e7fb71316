"""``python -m docs_tools``: the reference pages once more. Run it after a change of a spec's field or of a command's help."""

from __future__ import annotations

import argparse
from pathlib import Path

from docs_tools import pages

parser = argparse.ArgumentParser(prog="python -m docs_tools", description=__doc__)
parser.add_argument("--out", type=Path, default=Path("docs/reference"), help="folder to write")
folder = parser.parse_args().out
folder.mkdir(parents=True, exist_ok=True)
for name, text in pages.reference_pages().items():
    (folder / name).write_text(text, encoding="utf-8")
    print(folder / name)
