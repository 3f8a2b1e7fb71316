"""A classifier's report: report.md, classes.csv, confusion.csv and the confusion matrix as a picture. No torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from timbre_ray.evaluate.classification import Evaluation, Measures
from timbre_ray.report.confusion import draw_confusion
from timbre_ray.report.numbers import NOTHING
from timbre_ray.report.textforms import escape_markdown

SONGS_NOTE = (
    "Classes from folders of songs are split by song, not by instrument: one instrument may sound in training and test. They are "
    "phrases where NSynth has single notes, which alone may tell them from the other classes."
)
PAPER_ACCURACY = 0.7350
"""Test accuracy in section 4.1 of the paper: NSynth and its own recordings, AudioMAE at full size."""


def write_classifier_report(out: Path, evaluation: Evaluation, commands: Sequence[str] = ()) -> Path:
    """Writes the report's own files into ``out``, over older ones of the same name; -> report.md."""
    out.mkdir(parents=True, exist_ok=True)
    measures = evaluation.measures
    names = [measured.name for measured in measures.classes]
    head = ["class", "clips", "precision", "recall", "average_precision"]
    rows = [[c.name, c.num_clips, c.precision, c.recall, c.average_precision] for c in measures.classes]
    _write_csv(out / "classes.csv", head, rows)
    confusion = [[name, *map(int, row)] for name, row in zip(names, measures.confusion, strict=True)]
    _write_csv(out / "confusion.csv", ["sounded", *names], confusion)
    for suffix in ("svg", "png"):
        draw_confusion(names, measures.confusion, out / f"confusion.{suffix}")
    report = out / "report.md"
    report.write_text(render(evaluation, commands), encoding="utf-8")
    return report


def render(evaluation: Evaluation, commands: Sequence[str] = ()) -> str:
    """The report as Markdown."""
    measures = evaluation.measures
    names = [measured.name for measured in measures.classes]
    confusion = [[name, *(int(n) or "·" for n in row)] for name, row in zip(names, measures.confusion, strict=True)]
    parts = ["# The instrument classifier", _table(["", "value"], overall_rows(evaluation))]
    parts.append(
        f"The paper's test accuracy is {PAPER_ACCURACY:.4f}, on NSynth and its own recordings with AudioMAE at full size: "
        "another data set, beside which this figure stands but with which it cannot be compared."
    )
    parts += ["## Data", evaluation.about_data.strip()] if evaluation.about_data else []
    if any(commands):
        parts.append("Made by:\n\n```sh\n" + "\n".join(filter(None, commands)) + "\n```")
    parts += ["## By class", _table(["class", "clips", "precision", "recall", "average precision"], class_rows(measures))]
    parts.append("A clip is taken for its most confident class. Average precision asks for no such choice.")
    if evaluation.training["songs"]:
        parts.append(SONGS_NOTE)
    parts += ["## Confusion", "![rows: what sounded; columns: what it was taken for](confusion.svg)"]
    parts.append(_table(["sounded \\ taken for", *names], confusion))
    parts += ["## Training", _training(evaluation.training)]
    return "\n\n".join(parts) + "\n"


def overall_rows(evaluation: Evaluation) -> list[list[str]]:
    """The figures over all classes, as text."""
    measures, mixtures = evaluation.measures, evaluation.mixtures
    low, high = measures.accuracy_interval
    rows = [
        [f"accuracy on {evaluation.split}", f"{measures.accuracy:.4f}"],
        [f"95 % interval, drawing the {measures.num_sources} instruments and songs anew", f"{low:.3f} to {high:.3f}"],
        ["clips", str(measures.num_clips)],
        ["mean recall of the classes (balanced accuracy)", f"{measures.balanced_accuracy:.4f}"],
        ["mean average precision", f"{measures.mean_average_precision:.4f}"],
    ]
    if mixtures:
        rows += [
            [f"mixtures of two instruments ({mixtures.num_clips}): both on top", f"{mixtures.both_on_top:.4f}"],
            ["mixtures: mean average precision", f"{mixtures.mean_average_precision:.4f}"],
        ]
    return rows


def class_rows(measures: Measures) -> list[list[str]]:
    """One row a class, as text."""
    return [
        [escape_markdown(c.name), str(c.num_clips), *(_share(v) for v in (c.precision, c.recall, c.average_precision))]
        for c in measures.classes
    ]


def _training(training: dict[str, Any]) -> str:
    spec, kept, windows = training["spec"], training["kept_epoch"], training["windows"]
    settings = ", ".join(f"{name} {value}" for name, value in spec.items())
    counts = [[escape_markdown(name), str(count), str(windows["valid"].get(name, 0))] for name, count in windows["train"].items()]
    chosen = (
        f"Kept: epoch {kept['epoch']} of {spec['epochs']}, with the best mean average precision on the validation split "
        f"({kept['valid_map']:.4f}; accuracy {kept['valid_accuracy']:.4f})."
    )
    return "\n\n".join([f"Settings: {settings}.", chosen, _table(["class", "training clips", "validation clips"], counts)])


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
