"""Segment a CT with a .onnx checkpoint and nothing but ONNX Runtime and numpy: research use only.

    python run_onnx.py CHECKPOINT.onnx HU.npy LABELS.npy

HU.npy: (K, J, I) in Hounsfield units, axes I left to right, J back to front, K foot to head, with the spacing
that the checkpoint's document names. LABELS.npy: uint8, the same shape. No clean-up of small pieces.
"""

import json
import sys

import numpy as np
import onnxruntime

CHUNK, MULTIPLE, PADDING_HU = 8, 32, -1024
DEFAULTS = {"context": 3, "slice_rows": "j", "z_position": None}  # of a document that does not name them


def segment(session: onnxruntime.InferenceSession, hu: np.ndarray) -> np.ndarray:
    """Labels (K, J, I) uint8 of HU on the checkpoint's own grid."""
    document = json.loads(session.get_modelmeta().custom_metadata_map["segmate"])
    (part,), labels = document["parts"], [organ["label"] for organ in document["organs"]]
    rule = {**DEFAULTS, **part["preprocessing"]}
    threshold = np.broadcast_to(part.get("threshold", 0.5), len(labels))
    rising = np.argsort(labels)  # ties go to the lowest label
    count, rows, columns = hu.shape
    offsets = np.arange(rule["context"]) - rule["context"] // 2
    (low, high), (offset, factor) = rule["window_hu"], rule["scale"]
    low = max(low, PADDING_HU)
    scaled = np.float32((np.clip(np.float32(hu), low, high).astype(float) + offset) * factor)
    air = np.float32((low + offset) * factor)
    down, across = -rows % MULTIPLE, -columns % MULTIPLE  # every encoder halves its input five times
    top, left = down // 2, across // 2
    out = np.zeros(hu.shape, np.uint8)
    for first in range(0, count, CHUNK):
        numbers = np.arange(first, min(first + CHUNK, count))
        windows = scaled[np.clip(numbers[:, None] + offsets, 0, count - 1)]  # the outermost slices repeat
        margins = ((0, 0), (0, 0), (top, down - top), (left, across - left))
        slices = np.pad(windows, margins, constant_values=air)
        if rule["slice_rows"] == "i":
            slices = np.ascontiguousarray(slices.swapaxes(2, 3))
        feeds = {"slices": slices}
        if rule["z_position"]:  # networks that are told where a slice lies
            whole = rule["z_position"] == "volume" and count > 1
            feeds["z_position"] = np.float32(numbers / (count - 1) if whole else np.full(len(numbers), 0.5))
        (logits,) = session.run(["logits"], feeds)
        logits = logits.swapaxes(2, 3) if rule["slice_rows"] == "i" else logits
        logits = logits[:, :, top : top + rows, left : left + columns]
        probability = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
        above = np.where(probability > threshold[:, None, None], probability, 0)[:, rising]
        out[numbers] = np.where(above.max(1) > 0, np.array(labels)[rising][above.argmax(1)], 0)
    return out


if __name__ == "__main__":
    opened = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    np.save(sys.argv[3], segment(opened, np.load(sys.argv[2])))
