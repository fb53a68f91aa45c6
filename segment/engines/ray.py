"""The Ray engine: the same stages as a Ray Data pipeline. The only module that imports ray.

A Ray Data execution is one best-effort round; `segment.job` compares what is committed with the plan and starts
another. One actor a core does everything for a part (a second operator would fight for the cores); on GPUs there are
three operators, so that no GPU waits for a JPEG.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from segment.engines import available_cpus
from segment.errors import SegmentError, UsageError
from segment.ledger import Plan, parts_of
from segment.sessions import capabilities, open_session
from segment.stages import (
    Frames,
    PartResult,
    Session,
    SplitStages,
    Task,
    Worker,
)
from segment.weights import Weights

_BUNDLES = 4000  # more blocks than this cost the driver more than they give
_BUNDLES_A_WORKER = 4
