"""Stores the weights of an ONNX graph as float16 and computes with them in float32: about half the file.

Takes a GraphProto and changes it in place: each large float32 array of two dimensions and more becomes
float16 followed by a Cast to float32. ONNX Runtime folds such casts when it opens the file, so the speed is
that of float32 weights.
"""

from __future__ import annotations

import numpy as np
import onnx

SMALLEST = 1024  # elements; arrays below it weigh nothing and keep every bit


def store_as_half(graph: onnx.GraphProto) -> int:
    """Returns how many arrays were halved. Arrays with values beyond float16's 65504 stay as they are."""
    casts = []
    for tensor in graph.initializer:
        is_large = len(tensor.dims) >= 2 and np.prod(tensor.dims) >= SMALLEST
        if tensor.data_type != onnx.TensorProto.FLOAT or not is_large:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.float16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)
