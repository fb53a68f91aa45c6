"""Runs against each other: what they are compared by, and the comparison as text, tables and a page."""
