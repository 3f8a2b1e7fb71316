"""How to install what only some commands need. Standard library only."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """With the versions that the tests ran with."""
    return f"in the checkout, pip install --constraint constraints.txt --editable '.[{extra}]'"
