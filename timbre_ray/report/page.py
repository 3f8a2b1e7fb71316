"""index.html: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from timbre_ray.report import (
    arm_settings,
    arms,
    claims,
    effect_figure,
    effect_forms,
    importances,
    numbers,
    parallel,
    pareto,
    spread,
    summary,
    textforms,
)
from timbre_ray.report.claims import Judgement
from timbre_ray.report.figures import Drawing
from timbre_ray.report.findings import Findings
from timbre_ray.report.listening import Listening
from timbre_ray.report.paper import COLUMN_HEADER
from timbre_ray.report.tables import COMMON_NOTE
from timbre_ray.specs import digest

_FOLDER = Path(__file__).parent


def render(findings: Findings, judgements: Sequence[Judgement], drawings: Sequence[Drawing], heard: Sequence[Listening]) -> str:
    results, effects, search = findings.results, findings.effects, findings.search
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = numbers.number
    environment.filters["verdict_class"] = summary.verdict_class
    return environment.get_template("page.html.j2").render(
        findings=findings,
        results=results,
        tables=findings.tables,
        arm_settings=arm_settings,
        settings=arm_settings.gather(results),
        arms=arms,
        arm_lines=findings.arm_lines,
        judgements=judgements,
        contrasts=findings.contrasts,
        spreads=findings.spreads,
        spread=spread,
        front=pareto.front(results),
        pareto_reading=pareto.READING,
        effects=effects,
        effect_forms=effect_forms,
        effect_drawings=_marked(effect_figure.draw_all(effects) if effects else ()),
        search=search,
        importances_reading=importances.READING,
        parallel=_marked([parallel.draw(search)])[0] if search else None,
        drawings=_marked(drawings),
        heard=heard,
        clips_digest=digest([table.digest for table in heard]),
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
        summary=summary,
        claims=claims,
        numbers=numbers,
        forms=textforms,
        common_note=COMMON_NOTE,
        paper_header=COLUMN_HEADER,
    )


def _marked(drawings: Sequence[Drawing]) -> list[tuple[Drawing, Markup]]:
    """Their SVG is built here from escaped text, so it may enter the page as it is."""
    return [(drawing, Markup(drawing.svg)) for drawing in drawings]
