"""Checkpoint + device + backend -> predict(volume) -> Segmentation on the volume's own grid.

The way of a volume: canonical axial RAS (rectified if sheared) -> preprocessing -> network -> labels on the
native grid -> clean-up -> the input's own order. In between, a checkpoint's strategy decides: slice_run.py
(2.5D windows) or patch_run.py (3D patches).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone

import numpy as np

from SegMateCore.backends import Backend, open_backend
from SegMateCore.backends.choosing import chosen_file
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.components import clean_up
from SegMateCore.content_hash import volume_sha256
from SegMateCore.errors import SegMateError
from SegMateCore.implausible import implausibilities
from SegMateCore.notices import RESEARCH_ONLY
from SegMateCore.patch_run import PatchRun
from SegMateCore.plausibility import check_looks_like_ct
from SegMateCore.predict_options import PredictOptions, Progress, report
from SegMateCore.provenance import input_facts, versions
from SegMateCore.rectify import labels_onto, rectified, shear_degrees
from SegMateCore.region import BoxRegion
from SegMateCore.segmentation import Segmentation
from SegMateCore.slab_logits import HIGHEST
from SegMateCore.slice_run import SliceRun
from SegMateCore.version import __version__
from SegMateCore.volume import Volume

__all__ = ["PredictOptions", "Predictor", "Progress", "clean_up_rules"]


class Predictor:
    """An opened checkpoint. Safe to share between threads: predict keeps its state to itself."""

    def __init__(self, checkpoint: Checkpoint, backends: list[Backend]):
        self.checkpoint = checkpoint
        self.backends = backends

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | os.PathLike | Checkpoint, device: str = "auto", backend: str = "auto",
        precision: str = "auto", threads: int | None = None, organ_set: str | None = None,
    ) -> Predictor:
        """Open a checkpoint: a file (.safetensors, .onnx, the original's .pth) or a bundled name like "demo".

        organ_set: one of checkpoint.organ_set_names, None for the one it comes with.
        Raises SegMateError for a file, device or backend that cannot be used. Never downloads.
        """
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.read(chosen_file(checkpoint, backend, device, precision)[0])
        if organ_set is not None:
            checkpoint = checkpoint.with_organ_set(organ_set)
        backends = [
            open_backend(checkpoint, part, backend, device, precision, threads)
            for part in range(len(checkpoint.parts))
        ]
        return cls(checkpoint, backends)

    def with_organ_set(self, name: str) -> Predictor:
        """The same open networks with another choice of organs. Raises SegMateError that lists the names."""
        return Predictor(self.checkpoint.with_organ_set(name), self.backends)

    def predict(
        self, volume: Volume, organs: Sequence[str] | None = None, progress: Progress | None = None,
        cancelled: IsCancelled = None, options: PredictOptions | None = None, region: BoxRegion | None = None,
    ) -> Segmentation:
        """Labels on the volume's own grid.

        organs: names to keep, None for all; the kept organs get the same voxels as in a full run. region:
        the box to segment, None for the whole volume; inside it, too, the network's answer is that of a full
        run, and there are no labels outside.
        Raises SegMateError for input that cannot be a CT, Cancelled when `cancelled()` turned true.
        """
        options = options or PredictOptions()
        kept = set(self.checkpoint.organs.subset(organs)) if organs is not None else None
        run, warnings = self._start(volume, options, progress, cancelled)
        every_label = self.checkpoint.organs.labels
        result, labels = self._empty_labels(run.canonical, volume)
        slab = range(len(labels)) if region is None else region.slab(run.canonical)
        with run:
            run.label(labels, slab, self.thresholds(), progress)
        rules = clean_up_rules(self.checkpoint, options)
        if rules:
            report(progress, "clean up", 0, 1)
            clean_up(labels[slab.start : slab.stop], self.checkpoint.organs, rules, cancelled)
            report(progress, "clean up", 1, 1)
        all_organs = self.checkpoint.organs
        organ_set = all_organs if kept is None else all_organs.only(sorted(kept))
        affine = run.canonical.affine
        warnings.extend(implausibilities(labels, affine, all_organs, region is None, organ_set))
        if kept is not None:
            lut = np.zeros(max(every_label) + 1, np.uint8)
            for index in kept:
                lut[every_label[index]] = every_label[index]
            for plane in labels:
                plane[...] = lut[plane]
        stop_if(cancelled)
        if volume.is_sheared:
            # canonical belongs to the rectified copy; its labels are pulled onto the sheared grid
            result = labels_onto(volume, labels, run.canonical.affine, cancelled)
        if region is not None:
            region.erase_outside(result, volume)
        return Segmentation(
            result, volume.affine, organ_set,
            {
                **self._provenance(run.backends, warnings, options, cleaned=bool(rules), region=region),
                "input": input_facts(volume, cancelled),
                "labels_sha256": volume_sha256(Volume(result, volume.affine), cancelled),
            },
            nifti_geometry=volume.nifti_geometry,
        )

    def probabilities(
        self, volume: Volume, organs: Sequence[str] | None = None, progress: Progress | None = None,
        cancelled: IsCancelled = None, options: PredictOptions | None = None,
    ) -> np.ndarray:
        """Probabilities (C, K, J, I) float16 of the named organs (None: all) on the volume's own grid.

        The one call that holds organs x volume in memory: two bytes per voxel and organ.
        """
        channels = list(self.checkpoint.organs.subset(organs)) if organs is not None else None
        count = len(self.checkpoint.organs) if channels is None else len(channels)
        out = np.empty((count, *volume.shape), np.float16)
        # Written through views, so that there is never a second array of this size.
        views = [volume.canonical_view(channel) for channel in out]
        for k, values in enumerate(self.probability_slices(volume, progress, cancelled, options)):
            for view, plane in zip(views, values if channels is None else values[channels]):
                view[k] = plane
        return out

    def probability_slices(
        self, volume: Volume, progress: Progress | None = None, cancelled: IsCancelled = None,
        options: PredictOptions | None = None,
    ) -> Iterator[np.ndarray]:
        """Probabilities (C, J, I) float32 of every organ, slice by slice of volume.canonical(), lowest first.

        Raises SegMateError for a sheared volume, and for 3D networks.
        """
        self.checkpoint.require_slices("the output of probabilities")
        if volume.is_sheared:
            raise SegMateError("probabilities of a sheared volume are not supported: rectify it first")
        run, _ = self._start(volume, options or PredictOptions(), progress, cancelled)
        with run:
            yield from run.probability_slices(progress)

    def organ_logits(
        self, volume: Volume, organs: Sequence[np.ndarray], progress: Progress | None = None,
        cancelled: IsCancelled = None, options: PredictOptions | None = None,
    ) -> list[str]:
        """Fill organs, (K, J, I) int8 on the grid of volume.canonical() for each of the checkpoint's, with
        how surely a voxel is the organ's: logits in steps of LOGIT_STEP, above 0 where predict labels it
        (slab_logits.py). The arrays may be memory maps: one slab of them is worked on at a time. Gives
        warnings, as they stand in the provenance of a Segmentation.

        Raises SegMateError for a sheared volume and for 2.5D networks, Cancelled when `cancelled()` turned
        true.
        """
        if any(part.strategy != "patches" for part in self.checkpoint.parts):
            raise SegMateError(f"logits of whole volumes are for 3D networks, not {self.checkpoint.source}")
        if volume.is_sheared:
            raise SegMateError("logits of a sheared volume are not supported: rectify it first")
        run, warnings = self._start(volume, options or PredictOptions(), progress, cancelled)
        for organ in organs:
            organ[...] = -HIGHEST
        with run:
            run.organ_logits(organs, progress)
        return warnings

    def thresholds(self) -> tuple[float, ...]:
        """One per organ; an ensemble averages those of its parts, as it does their probabilities."""
        count = len(self.checkpoint.organs)
        each = [np.broadcast_to(part.threshold, count) for part in self.checkpoint.parts]
        return tuple(float(value) for value in np.mean(each, axis=0))

    def _start(
        self, volume: Volume, options: PredictOptions, progress: Progress | None, cancelled: IsCancelled
    ) -> tuple[SliceRun | PatchRun, list[str]]:
        """The volume's way through the networks, and the list that collects warnings about it."""
        if options.chunk < 1:
            raise SegMateError(f"chunk is {options.chunk}, expected at least one slice")
        if not options.force:
            check_looks_like_ct(volume)
        report(progress, "prepare", 0, 1)
        warnings = list(volume.warnings)
        if volume.is_sheared:
            warnings.append(f"axes deviate {shear_degrees(volume):.1f} degrees from right angles: rectified")
            volume = rectified(volume, cancelled)
        in_patches = self.checkpoint.parts[0].strategy == "patches"
        run = (PatchRun if in_patches else SliceRun)(
            self.checkpoint, self.backends, volume.canonical(), options, warnings.append, cancelled
        )
        for part in self.checkpoint.parts:
            warnings.extend(text for text in part.notes if text not in warnings)
        report(progress, "prepare", 1, 1)
        return run, warnings

    @staticmethod
    def _empty_labels(canonical: Volume, volume: Volume) -> tuple[np.ndarray, np.ndarray]:
        """Labels (K, J, I) uint8 in the volume's own order, and in canonical order: the same memory, unless
        the volume is sheared and canonical a copy of it.
        """
        if volume.is_sheared:
            labels = np.zeros(canonical.shape, np.uint8)
            return labels, labels
        result = np.zeros(volume.shape, np.uint8)
        return result, volume.canonical_view(result)

    def _provenance(
        self, backends: list[Backend], warnings: list[str], options: PredictOptions, cleaned: bool,
        region: BoxRegion | None,
    ) -> dict:
        document = self.checkpoint.document
        return {
            "software": f"segmate-core {__version__}",
            "checkpoint": document["name"],
            "weights_sha256": document["weights_sha256"],
            "demonstration": document["demonstration"],
            "notice": RESEARCH_ONLY,
            "backend": _each(f"{backend.name} {backend.version}" for backend in backends),
            "device": _each(backend.device for backend in backends),
            "precision": _each(backend.precision for backend in backends),
            "versions": versions(f"{backend.name} {backend.version}" for backend in backends),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "forced": options.force,
            "flip_average": options.flip_average,
            "clean_up": cleaned,
            "region": None if region is None else region.to_dict(),
            "warnings": warnings,
            "command": None,
            **self._patch_provenance(options),
        }

    def _patch_provenance(self, options: PredictOptions) -> dict:
        """What more is to be said of a 3D network's result."""
        if self.checkpoint.parts[0].strategy != "patches":
            return {}
        return {"organ_set": self.checkpoint.organ_set, "overlap": options.overlap, "mirror": options.mirror}


def clean_up_rules(checkpoint: Checkpoint, options: PredictOptions) -> dict[str, str | float]:
    """What is kept of each organ, {} for no clean-up: by the checkpoint's rules, else the largest pieces."""
    if options.clean_up is False:
        return {}
    names = checkpoint.organs.names
    # The rules of a document are those of all its organ sets.
    rules = {organ: rule for organ, rule in (checkpoint.document["clean_up"] or {}).items() if organ in names}
    if options.clean_up and not rules:
        return {organ.name: "largest" for organ in checkpoint.organs}
    return rules


def _each(words: Iterable[str]) -> str:
    """Different ones of them, in their order."""
    return ", ".join(dict.fromkeys(words))
