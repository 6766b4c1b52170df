"""What is installed, what works on this machine, what is wrong and what to do about it.

Takes nothing, gives a list of findings. Engines and devices are not only looked up: a small piece of work is
really done on each, since a library that imports may still fail there.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.machine import cpu_count, memory_gb
from SegMateCore.version import __version__

GOOD, ABSENT, NOTE, WRONG = "ok", "absent", "note", "wrong"
# What predict needs for a 512x512x300 CT, with the bundled checkpoint.
SUFFICIENT_RAM_GB = 4.0

# Distribution, import name, whether predict needs it, what it is for and how to get it.
LIBRARIES = (
    ("numpy", "numpy", True, "arrays"),
    ("scipy", "scipy", True, "connected components"),
    ("nibabel", "nibabel", True, "NIfTI files"),
    ("pynrrd", "nrrd", True, "NRRD files"),
    ("safetensors", "safetensors", True, "checkpoints"),
    ("onnxruntime", "onnxruntime", True, "the engine of .onnx checkpoints"),
    ("pillow", "PIL", True, "previews"),
    ("pydicom", "pydicom", True, "DICOM series"),
    ("pylibjpeg-openjpeg", "openjpeg", False, "JPEG 2000 in DICOM: pip install 'segmate-core[dicom]'"),
    ("pyjpegls", "jpeg_ls", False, "JPEG-LS in DICOM: pip install 'segmate-core[dicom]'"),
    ("torch", "torch", False, "the engine of .safetensors checkpoints: pip install 'segmate-core[torch]'"),
    ("timm", "timm", False, "encoders of the networks: pip install 'segmate-core[torch]'"),
    ("onnx", "onnx", False, "export to .onnx: pip install 'segmate-core[export]'"),
    ("blosc2", "blosc2", False, "training data in Stores: pip install 'segmate-core[train]'"),
    ("ray", "ray", False, "many CTs on a cluster: pip install 'segmate-core[ray]'"),
    ("SimpleITK", "SimpleITK", False, "adapters from and to its images: pip install SimpleITK"),
)


@dataclass(frozen=True)
class Finding:
    """topic: such as "library"; status: "ok", "absent" (and not needed), "note" (predict
    runs all the same) or "wrong"; advice: what to do."""

    topic: str
    name: str
    status: str
    detail: str
    advice: str = ""

    def to_dict(self) -> dict:
        return asdict(self)


def examine() -> list[Finding]:
    """All findings. `can_predict` tells from them whether predict runs here."""
    return [
        *_machine(),
        *_libraries(),
        *_attempt("engine", "onnxruntime", _try_onnxruntime),
        *_attempt("engine", "torch", _try_torch),
        *_checkpoints(),
    ]


def can_predict(findings: list[Finding]) -> bool:
    """Whether nothing that predict needs is wrong."""
    return not any(finding.status == WRONG for finding in findings)


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "segmate", GOOD, __version__)
    yield Finding("machine", "Python", GOOD, f"{platform.python_version()} on {platform.platform()}")
    yield Finding("machine", "CPU", GOOD, f"{cpu_count()} cores")
    memory = memory_gb()
    if memory is None:
        yield Finding("machine", "memory", NOTE, "its size is not to be had on this system")
    elif memory < SUFFICIENT_RAM_GB:
        advice = f"{SUFFICIENT_RAM_GB:.0f} GB are comfortable: use --chunk 1 for large CTs"
        yield Finding("machine", "memory", NOTE, f"{memory:.1f} GB", advice)
    else:
        yield Finding("machine", "memory", GOOD, f"{memory:.1f} GB")


def _libraries() -> Iterator[Finding]:
    for distribution, module, needed, purpose in LIBRARIES:
        if importlib.util.find_spec(module) is None:
            advice = f"pip install {distribution}" if needed else ""
            yield Finding(
                "library", distribution, WRONG if needed else ABSENT, f"not installed; {purpose}", advice
            )
            continue
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = "of unknown version"  # such as onnxruntime-gpu under the name onnxruntime
        yield Finding("library", distribution, GOOD, version)


def _attempt(topic: str, name: str, trial: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a trial; whatever it raises is a finding too."""
    if importlib.util.find_spec(name) is None:
        return
    try:
        yield from trial()
    except Exception as error:  # a doctor must not fall ill of what it looks for
        reason = " ".join(str(error).split())[:200]
        # Without torch predict still runs, on .onnx checkpoints.
        status = NOTE if name == "torch" else WRONG
        yield Finding(
            topic, name, status, f"does not work: {type(error).__name__}: {reason}", f"reinstall {name}"
        )


def _try_onnxruntime() -> Iterator[Finding]:
    import onnxruntime

    found = onnxruntime.get_available_providers()
    yield Finding(
        "engine", "onnxruntime", GOOD, ", ".join(name.removesuffix("ExecutionProvider") for name in found)
    )


def _try_torch() -> Iterator[Finding]:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    image = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    kernel = torch.linspace(-1, 1, 27).reshape(1, 3, 3, 3)
    expected = torch.nn.functional.conv2d(image, kernel)
    for device in devices:
        detail = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
        try:
            got = torch.nn.functional.conv2d(image.to(device), kernel.to(device)).cpu()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            yield Finding(
                "device", device, NOTE, f"{detail}: {reason}", "use --device cpu, or update its driver"
            )
            continue
        agrees = torch.allclose(got, expected, atol=0.02)
        advice = "" if agrees else "use --device cpu, and report this"
        yield Finding(
            "device",
            device,
            GOOD if agrees else WRONG,
            f"{detail}, a convolution {'is right' if agrees else 'is WRONG'}",
            advice,
        )
    if devices == ["cpu"]:
        yield Finding("device", "cuda", ABSENT, "no GPU that PyTorch can use; predict runs on the CPU")


def _checkpoints() -> Iterator[Finding]:
    try:
        from SegMateCore.bundled import bundled_checkpoints

        found = {
            path for backend in ("onnxruntime", "torch") for path in bundled_checkpoints(backend).values()
        }
    except Exception as error:  # a library that its import needs may be the one that is missing
        yield Finding(
            "checkpoint", "bundled", WRONG, f"{type(error).__name__}: {error}", "reinstall segmate-core"
        )
        return
    if not found:
        advice = "reinstall segmate-core, or give --checkpoint a file"
        yield Finding("checkpoint", "bundled", WRONG, "none found", advice)
    for path in sorted(found):
        yield _checkpoint(path)


def _checkpoint(path: Path) -> Finding:
    """Open a checkpoint, check its hash, and run it on one slice where its engine is installed."""
    try:
        from SegMateCore.backends import open_backend
        from SegMateCore.checkpoint import Checkpoint

        checkpoint = Checkpoint.read(path)
        detail = f"{path.stat().st_size / 1e6:.1f} MB, weights {checkpoint.weights_sha256[:12]}"
        if not checkpoint.is_onnx:
            checkpoint.weights(0)  # verifies the hash
            if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
                return Finding(
                    "checkpoint", path.name, ABSENT, f"{detail}; not run, since PyTorch is not installed"
                )
        part = checkpoint.parts[0]
        slices = np.zeros((1, part.preprocessing.context, 64, 64), np.float32)
        backend = open_backend(checkpoint, 0, device="cpu")
        logits = backend.run(slices, part.preprocessing.z_positions(0, 1, 1))
        if logits.shape != (1, len(checkpoint.organs), 64, 64) or not np.isfinite(logits).all():
            raise SegMateError(f"it gave {logits.shape} or values that are not finite")
        return Finding("checkpoint", path.name, GOOD, f"{detail}, runs on {backend.name} ({backend.device})")
    except Exception as error:  # damage can surface anywhere in the libraries that read it
        reason = " ".join(str(error).split())[:200]
        return Finding(
            "checkpoint", path.name, WRONG, f"{type(error).__name__}: {reason}", "reinstall segmate-core"
        )
