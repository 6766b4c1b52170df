"""The options of `segmate predict`, in groups: network, input, results."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate predict`."""
    parser.add_argument(
        "input",
        metavar="INPUT",
        type=Path,
        help="a CT in Hounsfield units: NIfTI or NRRD file, folder of one DICOM series; or a folder of cases"
        " (such files, sub-folders with a ct.nii.gz, sub-folders with a DICOM series)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        type=Path,
        required=True,
        help="one CT: FILE.nii.gz or .nii (labels), FILE.seg.nrrd (for 3D Slicer), or a folder with"
        " --per-organ; a folder of cases: a folder. Missing folders are made, an existing file is replaced",
    )
    _add_network_options(parser)
    _add_input_options(parser)
    _add_result_options(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="only warnings and errors (default: progress and table)"
    )


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--checkpoint",
        metavar="NAME|FILE",
        default="demo",
        help="a bundled name, or a .safetensors, .onnx or .pth file (default: %(default)s)",
    )
    group.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:N, mps (torch), dml or coreml (.onnx) (default: %(default)s)",
    )
    group.add_argument(
        "--backend",
        default="auto",
        help="auto, onnxruntime (.onnx) or torch (others); --verbose says why (default: %(default)s)",
    )
    group.add_argument(
        "--precision",
        default="auto",
        help="auto (fp16 on CUDA, fp32 elsewhere; a .onnx has its own), fast (the quickest with a Dice of"
        " 0.99 or more to fp32 per organ), fp32, bf16, fp16, or int8 (a .onnx made so)"
        " (default: %(default)s)",
    )
    group.add_argument(
        "--threads", metavar="N", type=int, help="CPU threads of the network (default: every core)"
    )
    group.add_argument(
        "--chunk",
        metavar="N",
        type=int,
        default=8,
        help="slices of 256x256 per network call, on a CPU fewer of larger ones: less need less memory, same"
        " labels (default: %(default)s)",
    )
    group.add_argument(
        "--flip-average",
        action="store_true",
        help="average with the left/right mirrored CT: twice the time; 2.5D networks (default: no)",
    )
    group.add_argument(
        "--overlap",
        metavar="SHARE",
        type=float,
        help="3D networks: how much of a patch the next one repeats, 0 to 0.95; less is faster, and seams"
        " may show (default: as the checkpoint says)",
    )
    group.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="3D networks: average over mirrored patches, up to 8 times the time (default: as the checkpoint"
        " says)",
    )
    group.add_argument(
        "--patches-at-once",
        metavar="N",
        type=int,
        default=1,
        help="3D networks: patches per network call; more may be faster on a GPU (default: %(default)s)",
    )


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "--affine",
        choices=("sform", "qform"),
        help="which geometry of a NIfTI file to trust where its two differ (default: refuse such a file)",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="segment volumes that do not look like a CT in HU (default: refuse)",
    )


def _add_result_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--organ-set",
        metavar="NAME",
        help="of a checkpoint with several, such as nine or all; segmate info shows them (default: the"
        " checkpoint's first choice)",
    )
    group.add_argument(
        "--organs", metavar='"A,B"', help='only these, such as "liver,left kidney" (default: all of the set)'
    )
    group.add_argument(
        "--clean-up",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="drop small islands beside each organ (default: as the checkpoint recommends)",
    )
    group.add_argument(
        "--statistics",
        metavar="FILE",
        type=Path,
        help="per organ: volume (ml), mean and SD (HU), extent (mm), whether cut by the border; .csv or"
        " .json, for a folder of cases .csv with a column for the case (default: none)",
    )
    group.add_argument(
        "--preview",
        metavar="FILE",
        type=Path,
        help="three slices with outlines as a PNG; for a folder of cases a folder (default: none)",
    )
    group.add_argument(
        "--probabilities",
        metavar="FOLDER",
        type=Path,
        help="probabilities 0..1, one NIfTI per organ; runs the network twice and needs 2 bytes per voxel and"
        " organ (default: none)",
    )
    group.add_argument(
        "--per-organ",
        action="store_true",
        help="OUTPUT is a folder with one file per organ, left_lung.nii.gz (default: no)",
    )
    group.add_argument(
        "--format",
        choices=("nii.gz", "seg.nrrd", "per-organ"),
        help="for a folder of cases, what to write for each (default: nii.gz)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="in a folder of cases, do finished ones again (default: skip them)",
    )
