"""Confusion counts, and the scores that follow from them under named conventions."""

from __future__ import annotations

from segment.metrics.conventions import CONVENTIONS, IoU, Score, image_scores, iou, pixel_accuracy, score
from segment.metrics.counts import Confusion, confusion

__all__ = ["CONVENTIONS", "Confusion", "IoU", "Score", "confusion", "image_scores", "iou", "pixel_accuracy", "score"]
