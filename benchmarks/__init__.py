"""Ours against the peers' way, at the miniature's size: ``python -m benchmarks --out reports/speed [ROW ...]``."""
