"""What rt-utils reads from an RTSTRUCT, as a process of its own: its OpenCV changes where Qt finds its
plug-ins.

    python rt_utils_masks.py SERIES_FOLDER RTSTRUCT.dcm MASKS.npz

writes one mask bool (rows, columns, slices) per ROI, slices by their position along the normal.
"""

from __future__ import annotations

import sys

import numpy as np


def main(series: str, rtstruct: str, output: str) -> None:
    from rt_utils import RTStructBuilder

    read = RTStructBuilder.create_from(series, rtstruct)
    np.savez_compressed(output, **{name: read.get_roi_mask_by_name(name) for name in read.get_roi_names()})


if __name__ == "__main__":
    main(*sys.argv[1:])
