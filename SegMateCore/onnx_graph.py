"""A torch network as an ONNX graph with free batch, height and width, without traces of this machine.

Takes a LogitsOnly, gives a ModelProto: input "slices" (B, context, H, W) float32, for FiLM also "z_position"
(B,) float32, output "logits" (B, organs, H, W) float32. Needs torch, onnx and onnxscript.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager

import onnx
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes

from SegMateCore.errors import SegMateError
from SegMateCore.exportable import LogitsOnly
from SegMateCore.windows import SIZE_MULTIPLE

OPSET = 18
_TRACED_SHAPE = (2, 128, 96)


def onnx_graph(network: LogitsOnly, context: int, name: str) -> onnx.ModelProto:
    """The traced network. context: slices per window; name: of the network, for errors.

    Raises SegMateError where torch cannot export it.
    """
    batch, height, width = _TRACED_SHAPE
    rows, columns = torch.export.Dim("rows", min=1, max=128), torch.export.Dim("columns", min=1, max=128)
    axes = {
        0: torch.export.Dim("batch", min=1, max=4096),
        2: SIZE_MULTIPLE * rows,
        3: SIZE_MULTIPLE * columns,
    }
    inputs = [torch.zeros(batch, context, height, width)]
    dynamic, names = [axes], ["slices"]
    if network.film:
        inputs.append(torch.zeros(batch))
        dynamic.append({0: axes[0]})
        names.append("z_position")
    with _quiet_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network.eval(),
                tuple(inputs),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple(dynamic),
                input_names=names,
                output_names=["logits"],
                verbose=False,
                optimize=False,
            )
        except Exception as error:  # the exporter's own classes are private and carry pages of text
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = (str(cause).strip() or repr(cause)).splitlines()[0]
            raise SegMateError(f"torch cannot export {name} to ONNX: {reason}") from error
    # Not the exporter's own optimiser: it merges norms into weights, whose float16 form would then be another
    # one than the checkpoint's. ONNX Runtime merges them when it opens the file.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter notes for each node the source lines it came from, with the paths of this machine."""
    graph = model.graph
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    return model


@contextmanager
def _quiet_exporter():
    """torch's exporter logs and warns about its own internals, which no user can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
