"""The document of a segmentation as tags of its segments, which 3D Slicer keeps in a .seg.nrrd file.

Segments of one node may come from several runs, so each carries its own: {"organs": [its own],
"provenance": {...}}. Needs nothing but Python: Slicer has no NRRD library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, unquote

from SegMateCore.json_text import parse_json
from SegMateCore.organs import OrganSet

SEGMENT_TAG = "SegMate.document"
# What a value keeps as it is: ":" and "|" would end it, "%" begins an escape.
_SAFE = ' {}[]",.;()+/<>='


def segment_documents(organs: OrganSet, provenance: dict) -> list[str]:
    """The values of SEGMENT_TAG for the segments of the organs, in their order."""
    documents = ({"organs": [row], "provenance": provenance} for row in organs.to_list())
    return [quote(json.dumps(document, sort_keys=True), safe=_SAFE) for document in documents]


def file_document(tags: Sequence[str]) -> str | None:
    """The one document of a file, as JSON, from the tags of its segments ("name:value|name:value|").

    None where a segment has none, or where they come from several runs.
    """
    values = [dict(tag.partition(":")[::2] for tag in text.split("|")).get(SEGMENT_TAG, "") for text in tags]
    try:
        documents = [parse_json(unquote(value)) for value in values]
        organs = [dict(organ) for document in documents for organ in document["organs"]]
        runs = [document["provenance"] for document in documents]
        names = {organ["name"] for organ in organs}
    except (ValueError, TypeError, KeyError):
        return None
    if not runs or any(run != runs[0] for run in runs):
        return None
    # A segment may have been removed.
    for organ in organs:
        if organ.get("partner") not in names:
            organ["partner"] = None
    return json.dumps({"organs": organs, "provenance": runs[0]})
