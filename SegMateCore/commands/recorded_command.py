"""The command line as results record it: options as they were given, names of files and folders left out.

Takes parsed arguments whose `words` are the command line, gives one line. Names of files often hold those of
patients, and results are passed on.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from SegMateCore.volume_io import NIFTI_SUFFIXES, NRRD_SUFFIXES

# As of a DICOM series: it leads to the patient wherever the series is stored.
_UID = re.compile(r"\d+(\.\d+){3,}")
# --share 3/100, which looks like a path; --ray HOST:PORT, which is a name of a machine.
_SHARE = re.compile(r"[0-9]+/[0-9]+")
_ADDRESS = re.compile(r"([a-z]+://)?[^/\\]+:[0-9]+")
# What the end of a name says of the kind of file, the longest first.
_SUFFIXES = (
    ".seg.nrrd", *reversed(NIFTI_SUFFIXES), *NRRD_SUFFIXES, ".dcm", ".zip", ".csv", ".json", ".png",
    ".safetensors", ".onnx", ".pth",
)  # fmt: skip


def recorded_command(arguments: argparse.Namespace) -> str:
    """ "segmate predict INPUT.nii.gz -o OUTPUT.nii.gz --clean-up".

    A value that is a path to the parser, or that looks like one, becomes the name of its option in capitals
    and, where it is a known one, its suffix.
    """
    names = {
        str(value): name.upper() + _suffix(str(value))
        for name, value in vars(arguments).items()
        if isinstance(value, Path)
    }
    return shlex.join(["segmate", *(_without_path(word, names) for word in arguments.words)])


def _without_path(word: str, names: dict[str, str]) -> str:
    """A word of the command line; option and value may be one word: --output=a.nii, -oa.nii."""
    option, value = "", word
    if word.startswith("--"):
        option, is_joined, value = word.partition("=")
        if not is_joined:
            return word
        option += is_joined
    elif word.startswith("-") and len(word) > 2 and not word[1].isdigit():
        option, value = word[:2], word[2:]
    return option + (names.get(str(Path(value))) or _placeholder(value))


def _placeholder(value: str) -> str:
    """For what no option declares to be a path, such as a checkpoint: a name in the catalogue stays."""
    if _UID.fullmatch(value):
        return "UID"
    if _SHARE.fullmatch(value):
        return value
    if _ADDRESS.fullmatch(value):
        return "ADDRESS"
    looks_like_path = "/" in value or "\\" in value or _suffix(value)
    return f"FILE{_suffix(value)}" if looks_like_path else value


def _suffix(path: str) -> str:
    return next((suffix for suffix in _SUFFIXES if path.lower().endswith(suffix)), "")
