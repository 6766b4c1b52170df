"""The fuzzer's short version, with a fixed seed; and whether it would see what it looks for."""

from __future__ import annotations

import sys

import pytest
from fuzz import Reader, fuzz, made
from targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and timers are those of Linux")
pytest.importorskip("onnx")
QUICK = ("nifti", "nrrd", "labels", "zip", "onnx", "store")
# Their processes load PyTorch, or take seconds for each input.
LONG = ("safetensors", "pth", "nnunet", "bundle", "tables", "toml", "worker")


def findings(target: str, inputs: int, tmp_path) -> dict:
    counts = fuzz(target, 2026, range(inputs), 1800, tmp_path)
    assert counts.inputs == inputs
    return {key: (value["number"], value["text"][-800:]) for key, value in counts.findings.items()}


@pytest.mark.parametrize("target", QUICK)
def test_hostile_files_are_read_or_refused(target, tmp_path):
    assert findings(target, 25, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("target", QUICK + LONG)
def test_many_hostile_files_are_read_or_refused(target, tmp_path):
    assert findings(target, 300, tmp_path) == {}


def test_an_input_follows_from_seed_and_number():
    trees = TARGETS["nrrd"].trees()
    assert made("nrrd", trees, 1, 7) == made("nrrd", trees, 1, 7) != made("nrrd", trees, 1, 8)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise KeyError('x')", "exception"),
        ("raise SegMateError('no') from MemoryError()", "allocation"),
        ("bytearray(1 << 34)", "allocation"),
        ("open('/etc/hostname').read()", "escape"),
        ("os.system('true')", "escape"),
        ("os.abort()", "crash"),
        ("raise SegMateError('a\\nb\\nc\\nd\\ne')", "long message"),
    ],
)
def test_what_a_reader_must_not_do_is_seen(code, kind, tmp_path):
    """The child reads labels.toml; here the file's own text is run in its place."""
    patch = (
        "import os, targets; from SegMateCore.errors import SegMateError; from dataclasses import replace\n"
        "def run(folder):\n    text = (folder / 'labels.toml').read_text()\n"
        "    exec(text[2:]) if text.startswith('# ') else None\n"
        "targets.TARGETS['labels'] = replace(targets.TARGETS['labels'], read=run)\n"
    )
    reader = Reader("labels", tmp_path / "scratch", patch)
    try:
        answer = reader.answer({"labels.toml": f"# {code}".encode()}, False)
    finally:
        reader.close()
    assert (answer["outcome"], answer["kind"]) == ("finding", kind)
