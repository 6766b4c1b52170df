"""What `segmate info` says about a checkpoint: for readers as lines of text, for programs as JSON.

Takes a Checkpoint, gives a text; weights are not read.
"""

from __future__ import annotations

import json

from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.notices import DEMONSTRATION


def describe(checkpoint: Checkpoint) -> str:
    """Lines "field  value": name, warning, organs, networks, preprocessing, training, licences, hash."""
    document = checkpoint.document
    rows = [("checkpoint", document["name"])]
    if document["demonstration"]:
        rows.append(("WARNING", DEMONSTRATION))
    if document["description"]:
        rows.append(("about", document["description"]))
    rows.append(("file", f"{checkpoint.source} ({'ONNX Runtime' if checkpoint.is_onnx else 'torch'})"))
    organs = [f"{organ.label} {organ.name}" for organ in checkpoint.organs]
    rows.append(("organs", ", ".join(organs)))
    if document["merge"] != "single":
        rows.append(("merge", f"{document['merge']} of {len(checkpoint.parts)} networks"))
    for index, (part, entry) in enumerate(zip(checkpoint.parts, document["parts"])):
        prefix = "" if len(checkpoint.parts) == 1 else f"{index}: "
        rows.extend((prefix + field, value) for field, value in _part_rows(part))
        rows.extend((prefix + "note", str(note)) for note in entry.get("notes", []))
    if document["clean_up"]:
        rows.append(
            ("clean-up", ", ".join(f"{organ}: {rule}" for organ, rule in document["clean_up"].items()))
        )
    rows.extend((key, _inline(value)) for key, value in document["training"].items())
    rows.extend((f"metric {key}", _inline(value)) for key, value in document["metrics"].items())
    rows.extend(("licence", _licence(entry)) for entry in document["licences"])
    rows.append(("weights", checkpoint.weights_sha256))
    width = max(len(field) for field, _ in rows)
    return "\n".join(f"{field.ljust(width)}  {' '.join(value.split())}" for field, value in rows)


def describe_json(checkpoint: Checkpoint) -> str:
    """The whole document as indented JSON."""
    return json.dumps(checkpoint.document, indent=2, ensure_ascii=False)


def _part_rows(part: Part) -> list[tuple[str, str]]:
    preprocessing = part.preprocessing
    spacing = preprocessing.spacing_mm
    low, high = preprocessing.window_hu
    rows = [
        ("network", part.model_name),
        ("options", ", ".join(f"{key}={value}" for key, value in part.model_options.items())),
        ("spacing", " x ".join(f"{mm:g}" for mm in spacing) + " mm" if spacing else "the CT's own"),
        ("window", f"{low:g} to {high:g} HU"),
        ("context", f"{preprocessing.context} slices"),
        ("threshold", ", ".join(f"{value:g}" for value in _as_tuple(part.threshold))),
    ]
    if preprocessing.z_position:
        rows.append(("z position", preprocessing.z_position))
    return [row for row in rows if row[1]]


def _as_tuple(threshold: float | tuple[float, ...]) -> tuple[float, ...]:
    return threshold if isinstance(threshold, tuple) else (threshold,)


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _licence(entry: dict) -> str:
    source = f" ({entry['source']})" if entry.get("source") else ""
    return f"{entry['what']}: {entry['licence']}{source}"
