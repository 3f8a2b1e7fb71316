"""Writes the reference pages in docs/reference from the code itself; ``python -m docs_tools`` does so."""
