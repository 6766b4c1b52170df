"""The results of a checkpoint for the references' CTs, written beside the scores so that they can be looked
at.

Takes an opened Predictor and ReferenceCases, gives OUT/predictions/CASE.nii.gz, or with `multilabel`
OUT/predictions/CASE/ORGAN.nii.gz: each organ where its own probability is above its threshold, without
arg-max, as the original scores it. The highest probability of each organ in each slice goes into
CASE.slices.json. What the same checkpoint has made before is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_folder, atomic_write
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.label_files import LabelFiles, label_files_at
from SegMateCore.evaluation.references import ReferenceCase, require_ct
from SegMateCore.nifti import write_nifti
from SegMateCore.organs import OrganSet
from SegMateCore.predictor import PredictOptions, Predictor, Progress, clean_up_rules
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

PREDICTIONS_FOLDER = "predictions"
# Bits of a voxel: one per organ.
_MOST_ORGANS = 64


@dataclass(frozen=True)
class Prediction:
    """files: the labels; highest: the file with the highest probability per slice, None where not asked
    for.
    """

    files: LabelFiles
    highest: Path | None


@dataclass(frozen=True)
class Predicting:
    """What is made of a CT: label maps or, with multilabel, masks; slices: probabilities per slice as well.

    Masks come with them at no cost, label maps need a second run of the network.
    """

    predictor: Predictor
    output: Path
    multilabel: bool = False
    slices: bool = False
    options: PredictOptions = PredictOptions()

    def predict(
        self, case: ReferenceCase, progress: Progress | None = None, cancelled: IsCancelled = None
    ) -> Prediction:
        """The prediction for a case, from an earlier run where there is one. Raises SegMateError,
        Cancelled.
        """
        folder = self.output / PREDICTIONS_FOLDER
        place = folder / (case.name if self.multilabel else f"{case.name}.nii.gz")
        wants_slices = self.slices or self.multilabel
        highest = folder / f"{case.name}.slices.json" if wants_slices else None
        if not self._is_made(place) or (highest is not None and not highest.is_file()):
            volume = require_ct(case)
            make = self._masks if self.multilabel else self._labels
            make(volume, place, highest, progress, cancelled)
        return Prediction(label_files_at(place), highest)

    def _is_made(self, place: Path) -> bool:
        """Whether this checkpoint with these options has written `place`, whole."""
        files = label_files_at(place) if place.exists() else None
        if files is None:
            return False
        try:
            _, made = read_provenance(files.files()[0])
        except SegMateError:
            return False
        return made.get("weights_sha256") == self.predictor.checkpoint.weights_sha256 and all(
            made.get(key) == value for key, value in self._choices().items()
        )

    def _choices(self) -> dict:
        rules = clean_up_rules(self.predictor.checkpoint, self.options)
        return {
            "flip_average": self.options.flip_average,
            "clean_up": bool(rules) and not self.multilabel,
            "multilabel": self.multilabel or None,
        }

    def _labels(self, volume: Volume, place: Path, highest: Path | None, progress, cancelled) -> None:
        segmentation = self.predictor.predict(volume, None, progress, cancelled, self.options)
        if highest is not None:
            slices = self.predictor.probability_slices(volume, progress, cancelled, self.options)
            self._write_highest([self._highest(values) for values in slices], highest)
        stop_if(cancelled)
        segmentation.write(place)

    def _masks(self, volume: Volume, place: Path, highest: Path | None, progress, cancelled) -> None:
        organs = self.predictor.checkpoint.organs
        if len(organs) > _MOST_ORGANS:
            raise SegMateError(f"--multilabel takes {_MOST_ORGANS} organs, the checkpoint has {len(organs)}")
        canonical = volume.canonical()
        # One bit per organ and voxel instead of an array per organ.
        bits = np.zeros(canonical.shape, np.min_scalar_type(2 ** len(organs) - 1))
        thresholds = np.array(self.predictor.thresholds(), np.float32)[:, None, None]
        shares = []
        slices = self.predictor.probability_slices(volume, progress, cancelled, self.options)
        for plane, values in zip(bits, slices):
            shares.append(self._highest(values))
            for channel, above in enumerate(values > thresholds):
                plane |= above.astype(bits.dtype) << bits.dtype.type(channel)
        stop_if(cancelled)
        self._write_highest(shares, highest)
        self._write_masks(bits, volume, place, organs)

    def _write_masks(self, bits: np.ndarray, volume: Volume, place: Path, organs: OrganSet) -> None:
        document = self.predictor.checkpoint.document
        provenance = {
            "checkpoint": document["name"],
            "weights_sha256": document["weights_sha256"],
            "demonstration": document["demonstration"],
            **self._choices(),
        }
        with atomic_folder(place) as temporary:
            for channel, organ in enumerate(organs):
                mask = ((bits >> bits.dtype.type(channel)) & 1).astype(np.uint8)
                alone = OrganSet((replace(organ, label=1, partner=None),))
                found = Segmentation(
                    volume.from_canonical(mask), volume.affine, alone, provenance, volume.nifti_geometry
                )
                write_nifti(found.as_volume(), temporary / f"{organ.key}.nii.gz", found.document())

    @staticmethod
    def _highest(values: np.ndarray) -> np.ndarray:
        return values.max(axis=(1, 2))

    def _write_highest(self, rows: list[np.ndarray], path: Path) -> None:
        columns = np.round(np.asarray(rows, np.float64).T, 6).tolist()
        document = dict(zip(self.predictor.checkpoint.organs.names, columns))
        with atomic_write(path) as stream:
            stream.write(json.dumps(document).encode())
