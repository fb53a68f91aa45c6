"""The pieces of `jobs/benchmark.py` and `jobs/reference_graphs.py`."""
