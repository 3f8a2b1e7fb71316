"""index.html: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from timbre_ray.report import claims, pareto, spread, summary, textforms
from timbre_ray.report.claims import Judgement
from timbre_ray.report.comparisons import Contrasts
from timbre_ray.report.figures import Drawing
from timbre_ray.report.listening import Listening
from timbre_ray.report.paper import COLUMN_HEADER
from timbre_ray.report.results import Results
from timbre_ray.report.spread import Spread
from timbre_ray.report.tables import COMMON_NOTE, Table

_FOLDER = Path(__file__).parent


def render(
    results: Results,
    tables: Sequence[Table],
    judgements: Sequence[Judgement],
    contrasts: Contrasts,
    spreads: Sequence[Spread],
    drawings: Sequence[Drawing],
    heard: Sequence[Listening],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = claims.number
    environment.filters["verdict_class"] = summary.verdict_class
    return environment.get_template("page.html.j2").render(
        results=results,
        tables=tables,
        judgements=judgements,
        contrasts=contrasts,
        spreads=spreads,
        spread=spread,
        front=pareto.front(results),
        pareto_reading=pareto.READING,
        # Built here from escaped text, so it may enter the page as it is.
        drawings=[(drawing, Markup(drawing.svg)) for drawing in drawings],
        heard=heard,
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),
        summary=summary,
        claims=claims,
        forms=textforms,
        common_note=COMMON_NOTE,
        paper_header=COLUMN_HEADER,
    )
