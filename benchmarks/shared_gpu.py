"""Row 8: several LoRA arms on one GPU. Needs a GPU."""

from __future__ import annotations

from benchmarks.measure import Row

ROW = Row(
    name="shared-gpu", title="Several LoRA arms on one GPU",
    setup="Not measured: it needs a GPU, and a miniature on the CPU says nothing of how trials share one.",
)  # fmt: skip
