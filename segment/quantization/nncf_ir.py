"""INT8 by NNCF, read by openvino's front end: an OpenVINO IR with FakeQuantize, for openvino alone.

NNCF also writes ONNX, which openvino computes wrongly: so an ONNX file becomes an IR here.
"""

import logging
import os
import sys
from typing import Any

import openvino

from segment.errors import ModelError, UsageError
from segment.models.card import ModelCard
from segment.models.sessions.apart_process import Within
from segment.models.sessions.base import first_line
from segment.models.sessions.openvino import read_graph
from segment.models.sessions.openvino_ports import to_port
from segment.models.sessions.ports import choose_ports
from segment.models.weights import Weights
from segment.process.temporaries import TemporaryFolder
from segment.quantization.calibration import Calibration
from segment.quantization.network_input import NetworkInputs
from segment.quantization.quiet import quiet

SETTINGS = "MIXED preset: activations of either sign asymmetric, all others symmetric; bias correction"


def import_nncf() -> Any:
    """Return the module. Raises UsageError: it lies there, and cannot be imported."""
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry: NNCF asks nobody before it tells its authors
    try:
        import nncf
    except Exception as error:  # of other types than ImportError, too, beside a library of another version
        raise UsageError(
            f"--method nncf: NNCF cannot be imported ({first_line(error)}): pip install 'segment-job[nncf]'"
        ) from error
    return nncf


def quantise_ir(card: ModelCard, weights: Weights, calibration: Calibration, within: Within) -> tuple[bytes, bytes]:
    """Return the bytes of the .xml and the .bin file of a quantised model; for `within` see `quantise_onnx`.

    Raises:
        ModelError: card and graph do not match, or the graph cannot be quantised.
        UsageError: NNCF cannot be imported.
    """
    nncf = import_nncf()
    model = read_graph(openvino.Core(), weights)
    ports = [to_port(port) for port in model.inputs]
    entry, _ = choose_ports(card, ports, [to_port(port) for port in model.outputs])
    inputs = NetworkInputs(card, ports[entry], calibration, within)
    with TemporaryFolder() as folder, quiet("nncf", logging.ERROR, sys.stderr):  # progress on stderr
        try:
            quantised = nncf.quantize(
                model, nncf.Dataset(inputs), preset=nncf.QuantizationPreset.MIXED, subset_size=len(inputs)
            )
            file = folder.path / "model.xml"
            openvino.save_model(quantised, file, compress_to_fp16=False)
        except Exception as error:  # NNCF's own types, and openvino's RuntimeError
            raise ModelError(f"NNCF cannot quantise this graph: {first_line(error)}") from error
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()
