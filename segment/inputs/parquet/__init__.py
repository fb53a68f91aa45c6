"""Parquet files with images in a column."""
