"""What a sweep of ten thousand trials costs besides its trials: ``python -m benchmarks.scale --out reports/scale [PART ...]``."""
