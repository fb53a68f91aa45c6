"""Scores of a run from what is stored of each image: its counts, resampled, sliced and grouped."""
