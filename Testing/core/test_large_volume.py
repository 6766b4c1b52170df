"""A 512 x 512 x 1000 CT goes through the command line in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from SegMateCore.data.phantom import make_phantom
from SegMateCore.organs import NINE

LIMIT_MB = 3000
# The child reports its own peak: the parent's would count pytest's, as would the child's ru_maxrss.
CHILD = """
import sys
from SegMateCore.benchmark.process_memory import peak_resident_bytes
from SegMateCore.cli import main
code = main(sys.argv[1:])
print("peak", peak_resident_bytes() // 2**20)
sys.exit(code)
"""


@pytest.mark.slow
def test_a_thousand_slices_in_under_three_gigabytes(tmp_path):
    phantom = make_phantom(1001, spacing_mm=(0.8, 0.8, 1.0), shape=(1000, 512, 512))
    phantom.volume.write(tmp_path / "ct.nii.gz")
    affine = phantom.volume.affine
    del phantom
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *"predict ct.nii.gz -o organs.nii.gz --statistics organs.csv".split()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    peak_mb = int(done.stdout.rsplit("peak", 1)[1])
    assert peak_mb < LIMIT_MB, peak_mb
    result = nibabel.load(tmp_path / "organs.nii.gz")
    assert result.shape == (512, 512, 1000)
    np.testing.assert_allclose(result.affine, affine, atol=1e-4)
    present = set(np.unique(np.asanyarray(result.dataobj[:, :, ::10])))
    assert len(present & set(NINE.labels)) >= 8
