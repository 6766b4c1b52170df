"""Tags of segments that nobody vouches for."""

from __future__ import annotations

import json
from urllib.parse import quote

from SegMateCore.organs import NINE
from SegMateCore.segment_tags import SEGMENT_TAG, file_document


def test_a_partner_that_is_no_name():
    document = {"organs": [{**NINE.to_list()[0], "partner": ["x"]}], "provenance": {}}
    assert file_document([f"{SEGMENT_TAG}:{quote(json.dumps(document))}|"]) is None


def test_a_document_that_is_nested_too_deeply():
    assert file_document([f"{SEGMENT_TAG}:{'[' * 10**5}|"]) is None
