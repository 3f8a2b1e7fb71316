"""Every command with its arguments, options and examples: typer's own Markdown, the examples in fences."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from timbre_ray.cli import app

HEAD = """# Commands

Written by `python -m docs_tools` from the command line itself. `timbre-ray COMMAND --help` says the same.

"""
#: "Example:" and the indented lines beneath it, as the help texts write them.
_EXAMPLES = re.compile(r"^Examples?:\n((?:  .*\n)+)", re.MULTILINE)


def command_page() -> str:
    command = typer.main.get_command(app)
    with typer.Context(command, info_name="timbre-ray") as context:
        text = get_docs_for_click(obj=command, ctx=context, name="timbre-ray")
    text = _EXAMPLES.sub(_fenced, text.replace("\b\n", ""))  # click's mark of lines that it must not wrap
    text = re.sub(r"^#(?=#* `timbre-ray)", "##", text, flags=re.MULTILINE)  # beneath the page's own title
    return HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _fenced(found: re.Match[str]) -> str:
    lines = [line.removeprefix("  ") for line in found[1].splitlines()]
    return "\n".join(["```sh", *lines, "```", ""])
