"""The pages of docs/reference by name."""

from __future__ import annotations

from docs_tools.command_page import command_page
from docs_tools.sweep_page import sweep_page


def reference_pages() -> dict[str, str]:
    """File name -> Markdown, as it should lie in docs/reference."""
    return {"sweeps.md": sweep_page(), "commands.md": command_page()}
