"""Ours against the reference: ``python -m timbre_ray.parity`` prints the table, ``tests/contract/test_parity.py`` keeps it."""
