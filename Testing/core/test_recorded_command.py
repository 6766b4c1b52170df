"""The command in results: every option, no name of a file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from SegMateCore.commands.predict_arguments import add_arguments
from SegMateCore.commands.recorded_command import recorded_command


def recorded(*words: str) -> str:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.words = ["predict", *words]
    return recorded_command(arguments)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ct.nii.gz", "-o", "x/y.seg.nrrd"), "INPUT.nii.gz -o OUTPUT.seg.nrrd"),
        (("./ct.nii.gz", "--output=a//b.nii"), "INPUT.nii.gz --output=OUTPUT.nii"),
        (("scan.nrrd", "-oresult", "--per-organ"), "INPUT.nrrd -oOUTPUT --per-organ"),
        (("a", "-o", "b", "--organs", "liver,left kidney"), "INPUT -o OUTPUT --organs 'liver,left kidney'"),
        (("a", "-o", "b", "--checkpoint", "demo", "--overlap", "0.5"),
         "INPUT -o OUTPUT --checkpoint demo --overlap 0.5"),
        (("a", "-o", "b", "--checkpoint", "/home/me/my net.onnx"), "INPUT -o OUTPUT --checkpoint FILE.onnx"),
        (("a", "-o", "b", "--checkpoint=net.safetensors"), "INPUT -o OUTPUT --checkpoint=FILE.safetensors"),
        (("a", "-o", "b.dcm", "--series", "1.2.840.113619.2.55"), "INPUT -o OUTPUT.dcm --series UID"),
        (("a", "-o", "b", "--share", "3/100"), "INPUT -o OUTPUT --share 3/100"),
        (("a", "-o", "b", "--ray", "head.hospital.org:6379"), "INPUT -o OUTPUT --ray ADDRESS"),
        (("a", "-o", "b", "--ray=ray://10.0.0.1:10001"), "INPUT -o OUTPUT --ray=ADDRESS"),
        (("a", "-o", "b.dcm", "--series", "3"), "INPUT -o OUTPUT.dcm --series 3"),
        (("a", "-o", "b", "--no-clean-up", "--statistics", "s.csv"),
         "INPUT -o OUTPUT --no-clean-up --statistics STATISTICS.csv"),
    ],
)  # fmt: skip
def test_by_hand(words, expected):
    assert recorded(*words) == f"segmate predict {expected}"


NAMES = st.text("Zyx\u00e9\u4e2d w.", min_size=1, max_size=12).map(lambda text: f"Qq{text}")


FOUR_NAMES = st.lists(NAMES, min_size=4, max_size=4, unique=True)


@given(FOUR_NAMES, st.booleans(), st.sampled_from([".nii.gz", ".nrrd", ""]))
def test_no_name_is_left(names, joined, suffix):
    given_, output, statistics, preview = (f"{name}{suffix}" for name in names)
    options = {"--output": output, "--statistics": statistics, "--preview": preview}
    if joined:
        words = [given_, *(f"{option}={value}" for option, value in options.items())]
    else:
        words = [given_, *(word for pair in options.items() for word in pair)]
    line = recorded(*words)
    assert "Qq" not in line and Path(given_).stem not in line and "INPUT" in line and "OUTPUT" in line
