"""Every key of a sweep file in one page."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping

from docs_tools.fields import Field, doc_of, fields_of, type_words
from timbre_ray.ablation import AblationSpec
from timbre_ray.report.effects import SCORES
from timbre_ray.run_specs import METRICS, RunSpec, SearchSpec
from timbre_ray.specs import TrialSpec
from timbre_ray.sweep import _KEYS

HEAD = """# Sweep files

Written by `python -m docs_tools` from `timbre_ray/specs.py`, `ablation.py` and `run_specs.py`. A key's name ends in its unit
where it has one (`_s` seconds, `_db` decibels). An unknown key, a wrong type or a value out of bounds is refused with the file,
the key, the value and the nearest choice. Paths are looked up beside the sweep's file first.

A first line `# Question: ...` is kept as the report's title. The sections of the file:

"""
SECTIONS = {
    "name": "Names the sweep's results and report: letters, digits and `.` `_` `-`.",
    "base": "What every arm has; every key below [base](#base) is part of a result's identity.",
    "arms": "Arm -> what differs from base (`{}` for nothing). Mappings merge, all else replaces. Without it one arm, `base`.",
    "ablation": "Instead of arms: [factors](#ablation), each on or off, that make them; the report has their effects.",
    "grid": "Dotted key -> list of values (`seed: [0, 1, 2]`): every arm at every point. Any key of base, without `base.`.",
    "search": "Instead of a grid: [Optuna](#search) over settings of the one arm.",
    "run": "[Where and how](#run) it runs; never part of a result's identity.",
}

METRICS_HEAD = """## metrics

What an evaluation measures, and what `search.metric` may name. FAD (Fréchet) and KAD (kernel) are distances of the clips of the
instance prompt from recordings; with several embedders the further ones' are `fad_held_out/clap` and the like. Confidences
(0 to 1) are the classifier's, a rank is an instrument's place among all classes by them (1 is first). CLAP's are similarities,
and need `clap` among `evaluate.fad`.

| name | meaning | better |
|:--|:--|:--|
"""


def sweep_page() -> str:
    if list(SECTIONS) != list(_KEYS):
        raise ValueError(f"docs_tools/sweep_page.py: SECTIONS={list(SECTIONS)}: must say what each of {list(_KEYS)} is")
    sections = [f"| `{name}` | {words} |" for name, words in SECTIONS.items()]
    table = "\n".join(["| section | what it holds |", "|:--|:--|", *sections])
    groups = [
        *_groups("base", TrialSpec),
        *_groups("ablation", AblationSpec),
        *_groups("search", SearchSpec),
        METRICS_HEAD + "\n".join(map(_metric, METRICS)),
        *_groups("run", RunSpec),
    ]
    return HEAD + table + "\n\n" + "\n\n".join(groups) + "\n"


def _groups(place: str, spec: type) -> Iterator[str]:
    """A heading and a table for a spec, and for each group beneath it."""
    fields = fields_of(spec)
    rows = [_row(place, field) for field in fields if field.kind is not field.spec]  # a group always there has its heading
    head = "| key | type | unit | default | meaning |\n|:--|:--|:--|:--|:--|"
    parts = [f"## {place}", _plain(doc_of(spec)), "\n".join([head, *rows]) if rows else ""]
    yield "\n\n".join(part for part in parts if part)
    for field in fields:
        if field.spec is not None:
            any_name = ".KEY" if typing.get_origin(field.kind) is Mapping else ""
            yield from _groups(f"{place}.{field.name}{any_name}", field.spec)


def _row(place: str, field: Field) -> str:
    if not field.doc:
        raise ValueError(f"{place}.{field.name}: has no line of doc beneath it in the spec; add one")
    default = field.default if field.default == "required" else f"`{field.default}`"
    kind = "group, below" if field.spec else type_words(field.kind)
    cells = (f"`{place}.{field.name}`", kind, field.unit or "–", default, _plain(field.doc))
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _metric(name: str) -> str:
    words, lower_is_better = SCORES[name]
    return f"| `{name}` | {words.format(partner='partner')} | {'lower' if lower_is_better else 'higher'} |"


def _plain(doc: str) -> str:
    """A docstring as one line of Markdown, with YAML's word for None."""
    return re.sub(r"\bNone\b", "null", " ".join(doc.split()).replace("``", "`"))
