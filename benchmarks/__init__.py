"""Measurements behind the numbers of README and docs; run each as ``python -m benchmarks.NAME``."""
