"""Benchmarks: this worker beside a stock one, in one run."""
