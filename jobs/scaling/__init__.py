"""The pieces of `jobs/scale.py`: a module a measure."""
