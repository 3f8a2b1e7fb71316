"""The confusion matrix as a picture (Figure 5 of the paper): rows are what sounded, columns what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, FAINT = "#1a1a19", "#8a8a86"
CELL_IN = 0.43
#: One blue from white, so that it prints in grey; a cell darker than this share of its row has white figures.
COLOURS, DARK_SHARE = "Blues", 0.55
_STYLE = {
    "svg.hashsalt": "confusion", "text.parse_math": False, "font.size": 9, "text.color": INK, "axes.labelcolor": INK,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK,
}  # fmt: skip


def draw_confusion(names: Sequence[str], confusion: NDArray[np.int64], path: Path) -> None:
    """confusion: (true, taken for) -> clips. Writes the picture in the format of the path's suffix, the same bytes every time."""
    size = CELL_IN * len(names)
    left, bottom, top, right = 1.75, 1.25, 0.45, 0.85
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(left + size + right, bottom + size + top), facecolor="white")
        FigureCanvasAgg(figure)
        width, height = figure.get_size_inches()
        axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
        counts = confusion.sum(1)
        shares = confusion / np.maximum(counts, 1)[:, None]
        image = axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, aspect="equal")
        _figures(axes, confusion, shares)
        columns = np.arange(len(names))
        axes.set_xticks(columns, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(columns, [f"{name}  ({count})" for name, count in zip(names, counts, strict=True)])
        axes.set_xlabel("taken for")
        axes.set_ylabel("sounded (clips)")
        _grid(axes, len(names))
        bar = figure.add_axes(((left + size + 0.15) / width, bottom / height, 0.13 / width, size / height))
        figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1]).outline.set_linewidth(0.5)
        bar.set_title("share\nof row", fontsize=8, pad=5)
        bar.tick_params(length=2, labelsize=8)
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, metadata=metadata, dpi=160)


def _figures(axes: Axes, confusion: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = "white" if shares[row, column] > DARK_SHARE else INK
            weight = "bold" if row == column else "normal"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8.5, fontweight=weight)


def _grid(axes: Axes, num_classes: int) -> None:
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
