"""The user's word for a device, taken apart the same way for every engine.

Takes "cpu", "cuda", "cuda:1", "mps" and the like, gives the kind and the number. Which kinds there are is for
each engine to say (onnx_providers.py, backends/torch_backend.py).
"""

from __future__ import annotations

import re

# [0-9] and not \d or str.isdigit: those also take digits that int() does not, or that nobody meant.
_WORD = re.compile(r"([a-z]+)|(cuda):([0-9]{1,3})")


def parse_device(word: str) -> tuple[str, int] | None:
    """("cuda", 1) of "cuda:1", ("cuda", 0) of "cuda", ("mps", 0) of "mps"; None for what is no such word.

    Only cuda may have a number, of one to three digits.
    """
    found = _WORD.fullmatch(word)
    if found is None:
        return None
    return found[1] or found[2], int(found[3] or 0)
