"""report.md: the report for readers of the repository."""

from __future__ import annotations

from collections.abc import Sequence

from timbre_ray.report import arm_settings, effect_forms, importances, pareto, spread, summary
from timbre_ray.report.claims import RULE, Comparison, Judgement, metric_name
from timbre_ray.report.comparisons import Contrast, Contrasts
from timbre_ray.report.findings import Findings
from timbre_ray.report.importances import Search
from timbre_ray.report.numbers import digits_beside, interval_text, number, p_text
from timbre_ray.report.results import Results
from timbre_ray.report.spread import Spread
from timbre_ray.report.tables import COMMON_NOTE
from timbre_ray.report.textforms import escape_markdown, markdown


def render(findings: Findings, judgements: Sequence[Judgement]) -> str:
    results, contrasts, effects, search = findings.results, findings.contrasts, findings.effects, findings.search
    asked = str(results.sweep.get("question", ""))
    question = escape_markdown(asked[:1].upper() + asked[1:])
    parts = [f"# {escape_markdown(results.name)}"]
    parts += [f"**Question.** {question}"] if question else []
    first, *others = (escape_markdown(s) for s in summary.answer(findings, judgements))
    parts += [f"**Answer.** {first}", *others]
    parts.append("**How complete.** " + escape_markdown(summary.completeness(results)))
    if results.with_status("failed"):
        parts.append("| failed trial | stage | reason |\n|:--|:--|:--|\n" + "\n".join(_failed_lines(results)))
    parts += [*_arm_settings(results), escape_markdown(arm_settings.reading(results))]
    parts.append("The same with figures and sound: [index.html](index.html).")
    parts += _pareto_front(results)
    parts += _importances(search) if search else []
    parts += [f"## {effect_forms.TITLE}", effect_forms.markdown(effects)] if effects else []
    if judgements:
        parts += ["## Claims", *(_claim(judgement) for judgement in judgements), f"Rule: {RULE}"]
    if contrasts.found:
        parts.append(f"## Every arm against {escape_markdown(str(contrasts.baseline))}")
        parts += [*filter(None, [escape_markdown(contrasts.stands_in)]), _contrast_table(contrasts), contrasts.rule]
    parts.append("## Tables")
    parts += [summary.READING, COMMON_NOTE, *filter(None, [escape_markdown(summary.paper_note(findings))])]
    for table in findings.tables:
        notes = "<br>".join(escape_markdown(note) for note in table.notes)
        parts += [f"### Table {table.number}. {escape_markdown(table.title)}", markdown(table), *([notes] if notes else [])]
    parts.append("Every score of every arm with the interval of its mean: [tables/arms.csv](tables/arms.csv).")
    if findings.spreads:
        parts += ["## Clips that stand apart", _spread_table(findings.spreads), spread.READING]
    parts.append("## Made with")
    parts.append("\n".join(f"- {escape_markdown(k)}: {escape_markdown(v)}" for k, v in summary.provenance(results)))
    return "\n\n".join(parts) + "\n"


def _arm_settings(results: Results) -> list[str]:
    rows = ["| " + " | ".join(map(escape_markdown, setting.cells)) + " |" for setting in arm_settings.gather(results)]
    return ["\n".join([f"| {' | '.join(arm_settings.HEADERS)} |", "|:--|:--|:--|:--|", *rows])] if rows else []


def _pareto_front(results: Results) -> list[str]:
    found = pareto.front(results)
    if found is None:
        return []
    head, *rows = ["| " + " | ".join(escape_markdown(cell) for cell in line) + " |" for line in (found.headers, *found.rows)]
    rule = f"|:--|{'--:|' * (len(found.headers) - 2)}:--|"
    reading = f"{len(found.rows)} of {found.num_trials} finished trials. {pareto.READING}"
    return ["## Pareto front", reading, "\n".join([head, rule, *rows])]


def _importances(search: Search) -> list[str]:
    found = ["## What the search found", escape_markdown(search.sentence)]
    if search.shares:
        rows = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in (search.headers, *search.rows)]
        found += ["\n".join([rows[0], f"|:--|{'--:|' * len(search.varied)}", *rows[1:]]), importances.READING]
    head, *lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in (search.trial_headers, *search.trial_rows)]
    found += ["Trials, the best first:", "\n".join([head, f"|:--|{'--:|' * (len(search.trial_headers) - 1)}", *lines])]
    return found


def _failed_lines(results: Results) -> list[str]:
    cells = [(f.trial_id, f.stage, f.reason) for f in summary.failures(results)]
    return ["| " + " | ".join(escape_markdown(text) for text in row) + " |" for row in cells]


def _claim(judgement: Judgement) -> str:
    verdict = summary.verdict_text(judgement.verdict).capitalize()
    text = f"**{escape_markdown(judgement.claim)}** *{verdict}.* {escape_markdown(judgement.sentence)}"
    if not judgement.comparisons:
        return text
    head = "| score | of | against | difference | 95 % interval | pairs | this part |\n|:--|:--|:--|--:|--:|--:|:--|"
    return "\n".join([text, "", head, *map(_comparison, judgement.comparisons)])


def _spread_table(spreads: Sequence[Spread]) -> str:
    rule = "|:--|:--|--:|--:|--:|--:|--:|:--|"
    rows = ["| " + " | ".join(escape_markdown(cell) for cell in s.cells) + " |" for s in spreads]
    return "\n".join([f"| {' | '.join(spread.HEADERS)} |", rule, *rows])


def _contrast_table(contrasts: Contrasts) -> str:
    head = "| score | arm | mean | baseline | difference | 95 % interval | p, corrected | pairs | verdict |"
    rows = [_contrast(c, contrasts.partner) for c in contrasts.found]
    return "\n".join([head, "|:--|:--|--:|--:|--:|--:|--:|--:|:--|", *rows])


def _contrast(c: Contrast, partner: str) -> str:
    digits = digits_beside(c.difference.interval)
    means = [number(mean, digits=digits) for mean in (c.arm_mean, c.baseline_mean)]
    means.append(number(c.difference.mean, signed=True, digits=digits))
    p = "–" if c.p_adjusted is None else p_text(c.p_adjusted)
    names = escape_markdown(metric_name(c.metric, partner)), escape_markdown(c.arm)
    cells = [*names, *means, interval_text(c.difference.interval), p]
    return f"| {' | '.join([*cells, c.difference.pairs_text, c.verdict_text])} |"


def _comparison(c: Comparison) -> str:
    digits, found = digits_beside(c.difference.interval), c.difference
    means = (c.left, c.left_mean), (c.right, c.right_mean)
    sides = [f"{escape_markdown(name)}: {number(mean, digits=digits)}" for name, mean in means]
    outcome = "beside it" if c.wanted == "shown" else c.outcome
    difference = [number(found.mean, signed=True, digits=digits), interval_text(found.interval), found.pairs_text]
    cells = [escape_markdown(c.score), *sides, *difference, outcome]
    return f"| {' | '.join(cells)} |"
