"""What `segmate info` says about a checkpoint: for readers as lines of text, for programs as JSON.

Takes a Checkpoint, gives a text; weights are not read.
"""

from __future__ import annotations

import json

from SegMateCore.checkpoint import Checkpoint, Part
from SegMateCore.notices import DEMONSTRATION

# Longer values of the free parts of a document are cut.
BRIEF = 100
# Longer field names (of metrics) do not widen the column for all.
WIDEST_FIELD = 12


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
    for name, entry in document["organ_sets"].items():
        chosen = ", unless another is asked for" if name == checkpoint.organ_set else ""
        rows.append(("organ set", f"{name}: {_counted(len(entry['organs']), 'organ')}{chosen}"))
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
    rows.extend(_training_rows(document["training"]))
    rows.extend(_metric_rows(document["metrics"]))
    rows.extend(("licence", _licence(entry)) for entry in document["licences"])
    rows.append(("weights", checkpoint.weights_sha256))
    width = max(len(field) for field, _ in rows if len(field) <= WIDEST_FIELD)
    return "\n".join(f"{field.ljust(width)}  {' '.join(value.split())}" for field, value in rows)


def describe_json(checkpoint: Checkpoint) -> str:
    """The whole document as indented JSON."""
    return json.dumps(checkpoint.document, indent=2, ensure_ascii=False)


def _part_rows(part: Part) -> list[tuple[str, str]]:
    return _patch_rows(part) if part.strategy == "patches" else _slice_rows(part)


def _slice_rows(part: Part) -> list[tuple[str, str]]:
    preprocessing = part.preprocessing
    spacing = preprocessing.spacing_mm
    low, high = preprocessing.window_hu
    rows = [
        ("network", part.model_name),
        ("options", _inline(part.model_options)),
        ("spacing", " x ".join(f"{mm:g}" for mm in spacing) + " mm" if spacing else "the CT's own"),
        ("window", f"{low:g} to {high:g} HU"),
        ("context", f"{preprocessing.context} slices"),
        ("threshold", ", ".join(f"{value:g}" for value in _as_tuple(part.threshold))),
    ]
    if preprocessing.z_position:
        rows.append(("z position", preprocessing.z_position))
    return [row for row in rows if row[1]]


def _patch_rows(part: Part) -> list[tuple[str, str]]:
    preprocessing, plan = part.preprocessing.to_dict(), part.patches.to_dict()
    normalisation, spacing = preprocessing.pop("normalisation"), preprocessing.pop("spacing_mm")
    size = " x ".join(str(count) for count in plan.pop("size"))
    said = {key: value for key, value in preprocessing.items() if value is not None}
    rows = [
        ("network", part.model_name),
        ("folds", str(part.folds) if part.folds > 1 else ""),
        ("options", _brief(_inline(part.model_options))),
        ("spacing", " x ".join(f"{mm:g}" for mm in spacing) + " mm" if spacing else "the CT's own"),
        ("voxels", _inline(said)),
        ("intensities", _inline(normalisation)),
        ("patches", f"{size} voxels, {_inline(plan)}"),
        ("channels", f"{len(part.classes)}, {part.activation}"),
    ]
    return [row for row in rows if row[1]]


def _inline(values: dict) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _as_tuple(threshold: float | tuple[float, ...]) -> tuple[float, ...]:
    return threshold if isinstance(threshold, tuple) else (threshold,)


def _training_rows(training: dict) -> list[tuple[str, str]]:
    """A line per case, the rest in brief: the record of `segmate train` is long, others may differ."""
    rows = []
    cases = training.get("cases")
    for case in cases if isinstance(cases, list) else []:
        known = isinstance(case, dict) and isinstance(case.get("annotated"), list) and "name" in case
        text = f"{case['name']}: {', '.join(map(str, case['annotated']))}" if known else _brief(case)
        rows.append(("trained on", text))
    phantoms = training.get("phantoms")
    if isinstance(phantoms, dict) and phantoms.get("seeds"):
        count, version = len(phantoms["seeds"]), phantoms.get("phantom_version")
        rows.append(("trained on", f"{count} synthetic anatomies, version {version}"))
    rest = {key: value for key, value in training.items() if key not in ("cases", "phantoms")}
    return rows + [(key.replace("_", " "), _brief(value)) for key, value in rest.items()]


def _metric_rows(metrics: dict, title: str = "") -> list[tuple[str, str]]:
    """Nested objects as one line per innermost one: "unseen CT, case_1, dice  liver 0.9, aorta 0.8"."""
    leaves = [(key, value) for key, value in metrics.items() if not isinstance(value, dict)]
    numbers = [f"{key.replace('_', ' ')} {value}" for key, value in leaves]
    rows = [(f"metric: {title}" if title else "metrics", ", ".join(numbers))] if numbers else []
    for key, value in metrics.items():
        if isinstance(value, dict):
            rows.extend(_metric_rows(value, f"{title}, {key}" if title else key))
    return rows


def _brief(value: object) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return f"{value['name']} (--json shows all of it)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}... (--json shows all of it)"


def _licence(entry: dict) -> str:
    source = f" ({entry['source']})" if entry.get("source") else ""
    return f"{entry['what']}: {entry['licence']}{source}"
