"""One checkpoint file as another: import of the original's .pth, export to .onnx, halving of the weights.

Takes two paths whose suffixes say what to do, gives a sentence that says what was done. Folders of public 3D
models, of nnU-Net or MONAI, become one .safetensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from SegMateCore.bundled import resolve_checkpoint
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.weights_file import halved


def convert(
    in_path: str | Path,
    out_path: str | Path,
    half: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    precision: str = "fp32",
    calibrate: Sequence[str | Path] = (),
) -> str:
    """Writes `in_path` (.safetensors or .pth, or a bundled name) as `out_path` (.safetensors or .onnx).

    half: large weights as float16, about half the file; a .safetensors then has another weights hash, a .onnx
    keeps that of the weights it was made from. precision: what a .onnx computes in; calibrate: CTs for fp16
    and int8 (export_onnx). Raises SegMateError: .onnx cannot be turned back, unknown suffix, a CT that cannot
    be read, and all that reading and export_onnx raise.
    """
    out_path = Path(out_path)
    suffix = out_path.suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise SegMateError(
            f'cannot convert to {out_path}: expected the suffix .safetensors or .onnx, not "{suffix}"'
        )
    # Only torch's side can be converted, so a bundled name that has both files means its .safetensors.
    checkpoint = Checkpoint.read(resolve_checkpoint(in_path, "torch"))
    if checkpoint.is_onnx:
        raise SegMateError(
            f"{checkpoint.source} cannot be converted: its graph holds merged weights under other names, "
            "from which the network cannot be rebuilt; convert the .safetensors it was made from"
        )
    if checkpoint.path is not None and out_path.exists() and out_path.samefile(checkpoint.path):
        raise SegMateError(f"{out_path} is both input and output; give another output")
    if suffix == ".onnx":
        from SegMateCore.volume import Volume

        volumes = [Volume.read(path) for path in calibrate]
        return _to_onnx(checkpoint, out_path, half, progress, precision, volumes)
    if precision != "fp32":
        raise SegMateError(f"precision {precision} is for a .onnx; a .safetensors takes it when it is run")
    return _to_safetensors(checkpoint, out_path, half)


def convert_folders(
    folders: Sequence[str | Path],
    out_path: str | Path,
    half: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    **choices: object,
) -> str:
    """Writes the models in `folders` as one .safetensors: trained models of nnU-Net, or one MONAI bundle.

    choices: keywords of read_nnunet_folders or of read_bundle. Raises SegMateError: a folder of neither, a
    choice that the kind of folder does not have, and all that reading raises.
    """
    from SegMateCore.nnunet_folder import is_nnunet_folder, read_nnunet_folders

    folders, out_path = [Path(folder) for folder in folders], Path(out_path)
    if out_path.suffix.lower() != ".safetensors":
        raise SegMateError(f"cannot convert a model folder to {out_path}: expected the suffix .safetensors")
    if len(folders) == 1 and not is_nnunet_folder(folders[0]):
        from SegMateCore.monai_bundle import is_bundle, read_bundle

        if is_bundle(folders[0]):
            _check_choices(read_bundle, choices, folders[0])
            return _to_safetensors(read_bundle(folders[0], **choices), out_path, half)
    _check_choices(read_nnunet_folders, choices, folders[0])
    return _to_safetensors(read_nnunet_folders(folders, progress=progress, **choices), out_path, half)


def _check_choices(reader: Callable, choices: dict, folder: Path) -> None:
    known = inspect.signature(reader).parameters
    for name in choices:
        if name not in known:
            raise SegMateError(f"--{name.replace('_', '-')} is not for {folder}: leave it out")


def _to_safetensors(checkpoint: Checkpoint, out_path: Path, half: bool) -> str:
    weights = [checkpoint.weights(index) for index in range(len(checkpoint.parts))]
    written = Checkpoint.write(
        out_path, checkpoint.document, [halved(part) if half else part for part in weights]
    )
    return f"{out_path}: {_megabytes(out_path)}, weights {written.weights_sha256[:12]}"


def _to_onnx(checkpoint: Checkpoint, out_path: Path, half: bool, progress, precision: str, volumes) -> str:
    try:
        from SegMateCore.export import export_onnx
    except ImportError as error:
        raise SegMateError(
            f"export to .onnx needs torch, timm, onnx, onnxscript and onnxruntime ({error}): "
            "pip install 'segmate-core[export]'"
        ) from None
    agreement = export_onnx(checkpoint, out_path, half, progress, precision, volumes)
    text = (
        f"{out_path}: {_megabytes(out_path)}; ONNX Runtime against torch: logits differ by at most "
        f"{agreement.max_logit_difference:.1e}, {100 * agreement.equal_decisions:.3f} % of the decisions "
        "are equal"
    )
    if not agreement.dice:
        return text
    worst = min(agreement.dice, key=agreement.dice.__getitem__)
    return (
        f"{text}; {precision} against fp32: Dice of {len(agreement.dice)} organs from"
        f" {agreement.dice[worst]:.4f} ({worst}), {agreement.milliseconds[precision]:.1f} ms a slice on this"
        f" CPU (fp32: {agreement.milliseconds['fp32']:.1f} ms)"
    )


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
