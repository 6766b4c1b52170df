"""How does the memory of predict grow with the slices of a CT? Peaks in processes of their own, a slope.

    python Testing/measure/predict_memory.py CHECKPOINT CT [--slices 100 300 1000] [--json FILE]

The CT's slices are repeated, mirrored back and forth, at 1 mm distance. Counted is what predict adds to the
resident set of a process that has opened the checkpoint and holds no CT yet: the CT itself is part of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from SegMateCore import Predictor, Volume
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.process_memory import peak_resident_bytes, resident_bytes


def repeated(path: str, slices: int) -> Volume:
    """The CT at `path` made of `slices` slices, int16, 1 mm apart."""
    source = Volume.read(path).canonical()
    there_and_back = [*range(source.shape[0]), *range(source.shape[0] - 1, -1, -1)]
    voxels = np.empty((slices, *source.shape[1:]), np.int16)
    for k in range(slices):
        voxels[k] = source.voxels[there_and_back[k % len(there_and_back)]]
    affine = source.affine.copy()
    affine[:3, 2] /= source.spacing_mm[2]
    return Volume(voxels, affine)


def peak(checkpoint: str, ct: str, slices: int, backend: str) -> dict[str, int]:
    """Bytes of the CT, and what predict added to the process."""
    predictor = Predictor.from_checkpoint(checkpoint, "cpu", backend)
    # Once with next to nothing, so that what is allocated once does not count into the slope.
    predictor.predict(repeated(ct, 8))
    before = resident_bytes()
    volume = repeated(ct, slices)
    predictor.predict(volume)
    return {"slices": slices, "ct": volume.voxels.nbytes, "added": peak_resident_bytes() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("ct", type=Path)
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [
        in_child(
            f"{Path(__file__).stem}:peak",
            {"checkpoint": given.checkpoint, "ct": str(given.ct), "slices": count, "backend": given.backend},
        )
        for count in given.slices
    ]
    for row in rows:
        ct, added = row["ct"] / 1e6, row["added"] / 1e6
        print(f"{row['slices']:5} slices: CT {ct:6.0f} MB, predict adds {added:6.0f} MB")
    slope = np.polyfit([row["ct"] for row in rows], [row["added"] for row in rows], 1)[0]
    print(f"slope: {slope:.2f} bytes per byte of the CT")
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "slope": float(slope)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
