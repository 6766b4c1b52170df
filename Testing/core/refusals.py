"""What every refused file has in common: one line that names the file."""

from __future__ import annotations

import pytest

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume


def refused(path, *words) -> None:
    """Reading `path` raises one line with the path and each of the words."""
    with pytest.raises(SegMateError) as caught:
        Volume.read(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    for word in words:
        assert word in text, text
