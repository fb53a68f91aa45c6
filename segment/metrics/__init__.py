"""Confusion counts, and the scores that follow from them under named conventions."""

from segment.metrics.boundary import BoundaryCounts, boundary_counts
from segment.metrics.conventions import CONVENTIONS, IoU, Score, image_scores, iou, pixel_accuracy, score
from segment.metrics.counts import Confusion, confusion

__all__ = [
    "CONVENTIONS",
    "BoundaryCounts",
    "Confusion",
    "IoU",
    "Score",
    "boundary_counts",
    "confusion",
    "image_scores",
    "iou",
    "pixel_accuracy",
    "score",
]
