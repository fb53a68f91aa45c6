"""Loose image files below a prefix."""
