"""The results of a checkpoint for the references' CTs, written beside the scores so that they can be looked
at.

Takes an opened Predictor and ReferenceCases, gives OUT/predictions/CASE.nii.gz, or with `multilabel`
OUT/predictions/CASE/ORGAN.nii.gz: each organ where its own probability is above its threshold, without
arg-max, as the original scores it. The highest probability of each organ in each slice goes into
CASE.slices.json. Every file says of which CT and with which checkpoint and options it was made, and what a
run would make again is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from SegMateCore.atomic import atomic_folder
from SegMateCore.cancelling import IsCancelled, stop_if
from SegMateCore.content_hash import json_sha256, volume_sha256
from SegMateCore.errors import SegMateError
from SegMateCore.evaluation.label_files import LabelFiles, mask_files
from SegMateCore.evaluation.references import ReferenceCase, require_ct
from SegMateCore.evaluation.slice_probabilities import made_from, write_highest
from SegMateCore.nifti import write_nifti
from SegMateCore.organs import OrganSet
from SegMateCore.predictor import PredictOptions, Predictor, Progress, clean_up_rules
from SegMateCore.provenance import read_provenance
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

PREDICTIONS_FOLDER, SUFFIX = "predictions", ".nii.gz"
# The key in a prediction's provenance under which the hash of all that decides it stands.
ORIGIN_KEY = "made_from"
# What of a checkpoint's document decides its labels; its name and description do not.
DECIDING = ("weights_sha256", "precision", "organs", "merge", "parts")
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
        place = folder / (case.name if self.multilabel else f"{case.name}{SUFFIX}")
        wants_slices = self.slices or self.multilabel
        highest = folder / f"{case.name}.slices.json" if wants_slices else None
        origin = self._origin(case)
        if not self._is_made(place, origin) or (highest is not None and made_from(highest) != origin):
            volume = require_ct(case)
            make = self._masks if self.multilabel else self._labels
            make(volume, place, highest, origin, progress, cancelled)
        return Prediction(self._files(place), highest)

    def _files(self, place: Path) -> LabelFiles | None:
        """What lies at `place`, None where nothing does."""
        if self.multilabel:
            return mask_files(place, self.predictor.checkpoint.organs)
        return LabelFiles(place.name.removesuffix(SUFFIX), place) if place.is_file() else None

    def _origin(self, case: ReferenceCase) -> str:
        """A hash of all that decides a prediction: the CT, the weights, what is done before and after."""
        checkpoint = self.predictor.checkpoint
        parts = {key: checkpoint.document[key] for key in DECIDING}
        rules = {} if self.multilabel else clean_up_rules(checkpoint, self.options)
        made_of = [case.ct_facts(), parts, rules, self.options.flip_average, self.multilabel]
        return json_sha256(made_of)

    def _is_made(self, place: Path, origin: str) -> bool:
        """Whether what lies at `place` is what would be made again."""
        files = self._files(place)
        if files is None:
            return False
        try:
            _, made = read_provenance(files.files()[0])
        except SegMateError:
            return False
        return made.get(ORIGIN_KEY) == origin

    def _labels(
        self, volume: Volume, place: Path, highest: Path | None, origin: str, progress, cancelled
    ) -> None:
        segmentation = self.predictor.predict(volume, None, progress, cancelled, self.options)
        if highest is not None:
            # A sheared CT is segmented as a rectified copy, whose slices are not its own.
            sheared = volume.is_sheared
            predictor, options = self.predictor, self.options
            slices = () if sheared else predictor.probability_slices(volume, progress, cancelled, options)
            organs = self.predictor.checkpoint.organs.names
            write_highest(highest, organs, [_highest(values) for values in slices], origin)
        stop_if(cancelled)
        replace(segmentation, provenance={**segmentation.provenance, ORIGIN_KEY: origin}).write(place)

    def _masks(self, volume: Volume, place: Path, highest: Path, origin: str, progress, cancelled) -> None:
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
            shares.append(_highest(values))
            for channel, above in enumerate(values > thresholds):
                plane |= above.astype(bits.dtype) << bits.dtype.type(channel)
        stop_if(cancelled)
        write_highest(highest, organs.names, shares, origin)
        self._write_masks(bits, volume, place, origin)

    def _write_masks(self, bits: np.ndarray, volume: Volume, place: Path, origin: str) -> None:
        document = self.predictor.checkpoint.document
        provenance = {
            "checkpoint": document["name"],
            "weights_sha256": document["weights_sha256"],
            "demonstration": document["demonstration"],
            "precision": self.predictor.backends[0].precision,
            "flip_average": self.options.flip_average,
            "clean_up": False,
            "multilabel": True,
            ORIGIN_KEY: origin,
        }
        with atomic_folder(place) as temporary:
            for channel, organ in enumerate(self.predictor.checkpoint.organs):
                mask = ((bits >> bits.dtype.type(channel)) & 1).astype(np.uint8)
                alone = OrganSet((replace(organ, label=1, partner=None),))
                found = Segmentation(
                    volume.from_canonical(mask), volume.affine, alone, provenance, volume.nifti_geometry
                )
                document = found.document(content_sha256=volume_sha256(found.as_volume()))
                write_nifti(found.as_volume(), temporary / f"{organ.key}.nii.gz", document)


def _highest(values: np.ndarray) -> np.ndarray:
    """Of the probabilities (C, J, I) of one slice, for each organ."""
    return values.max(axis=(1, 2))
