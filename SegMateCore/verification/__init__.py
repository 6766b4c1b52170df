"""Checking results that exist: whole, unchanged since they were made, made from what they say."""

from __future__ import annotations

from .checks import NOT_RECORDED, OK, WRONG, Against, Check, check_output
from .ct_inputs import CtInputs
from .outputs import Output, find_outputs, read_outputs
from .repeating import Repeating

__all__ = [
    "NOT_RECORDED",
    "OK",
    "WRONG",
    "Against",
    "Check",
    "CtInputs",
    "Output",
    "Repeating",
    "check_output",
    "find_outputs",
    "read_outputs",
]
