"""A checkpoint: one self-describing file with networks, preprocessing, organs, training record and licences.

`Checkpoint.read(path)` takes .safetensors, .onnx, or a .pth of the original project; `Checkpoint.write`
makes a .safetensors. Reading needs numpy alone, writing also safetensors (.pth needs torch). The format:
docs/checkpoint.md.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.checkpoint_document import (
    FORMAT,
    METADATA_KEY,
    complete_document,
    document_text,
    parse_document,
)
from SegMateCore.errors import SegMateError
from SegMateCore.onnx_metadata import read_onnx_metadata
from SegMateCore.organs import OrganSet
from SegMateCore.patch_plan import PatchPlan
from SegMateCore.patch_preprocessing import PatchPreprocessing
from SegMateCore.patches_document import current_organ_set, needed_version
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.weights_file import WeightsFile, WeightsInMemory, check_arrays, weights_hash, write_weights

SUFFIXES = (".safetensors", ".onnx", ".pth", ".pt")


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint and what belongs to it.

    model_options: keyword arguments of create_model. threshold: a probability, or one per organ. notes:
    sentences that every result must carry as warnings. strategy: "slices" (a 2.5D network, whose channels are
    the organs) or "patches" (a 3D one). Of patches alone: classes: names of the channels; grouping: organ ->
    its channels; folds: networks whose logits are averaged; patches: where they lie.
    """

    model_name: str
    model_options: dict
    preprocessing: Preprocessing | PatchPreprocessing
    activation: str
    threshold: float | tuple[float, ...]
    grouping: dict[str, tuple[int, ...]] | None
    notes: tuple[str, ...] = ()
    strategy: str = "slices"
    folds: int = 1
    classes: tuple[str, ...] = ()
    patches: PatchPlan | None = None


class Checkpoint:
    """A value: nothing in it changes after it is made, so threads may share it.

    organs: OrganSet; with strategy "slices" channel c of every part is organ c. parts: tuple of Part. path:
    the file, None in memory. weights_sha256: identifies the trained weights, whatever the rest of the
    document says. organ_set_names: what with_organ_set takes, () where there is no choice; organ_set: the
    current one.
    """

    def __init__(
        self, document: dict, weights: WeightsFile | WeightsInMemory | None, path: Path | None, source: str
    ):
        self._document = complete_document(document, source, buildable=weights is not None)
        self._weights = weights
        self._weights_verified = False
        self.path = path
        self.source = source
        self.weights_sha256: str = self._document["weights_sha256"]
        self.is_onnx = weights is None
        try:
            self.organs = OrganSet.from_list(self._document["organs"])
            self.parts = tuple(_part(entry) for entry in self._document["parts"])
            for entry in self._document["organ_sets"].values():
                OrganSet.from_list(entry["organs"])
        except SegMateError as error:
            raise SegMateError(f"{source}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise SegMateError(f"{source}: organs or preprocessing are malformed ({error!r})") from None
        if weights is not None:
            self._check_keys(weights.keys)

    @classmethod
    def read(cls, path: str | Path) -> Checkpoint:
        """The checkpoint in `path`. Weights stay on disk until they are asked for.

        Raises SegMateError for a missing file, another format, damage, a newer version, an unknown model.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if not path.is_file():
            raise SegMateError(f"no checkpoint at {path}; expected a file ({', '.join(SUFFIXES)})")
        if suffix == ".safetensors":
            weights = WeightsFile(path)
            return cls(
                parse_document(weights.metadata.get(METADATA_KEY), str(path)), weights, path, str(path)
            )
        if suffix == ".onnx":
            text = read_onnx_metadata(path).get(METADATA_KEY)
            return cls(parse_document(text, str(path)), None, path, str(path))
        if suffix in (".pth", ".pt"):
            from SegMateCore.original import read_original

            return read_original(path)
        raise SegMateError(f'{path} has the suffix "{suffix}", expected one of {", ".join(SUFFIXES)}')

    @classmethod
    def in_memory(
        cls, document: dict, weights: Sequence[Mapping[str, np.ndarray]], path: Path | None = None
    ) -> Checkpoint:
        """From a document and one dictionary of arrays per part; format, version and hash are filled in."""
        tensors = _joined(weights)
        made = WeightsInMemory(tensors)
        document = {
            **document,
            "format": FORMAT,
            "format_version": needed_version(document),
            "weights_sha256": weights_hash(made.items(made.keys)),
        }
        return cls(document, made, path, str(path or "the new checkpoint"))

    @classmethod
    def write(
        cls, path: str | Path, document: dict, weights: Sequence[Mapping[str, np.ndarray]]
    ) -> Checkpoint:
        """Writes a .safetensors, whole or not at all, and gives it back as read.

        document: as in docs/checkpoint.md; "format", "format_version" and "weights_sha256" are set here.
        weights: one dictionary key -> array per part, the keys of several folds beginning with "fold0." and
        so on; float16 stays float16. Raises SegMateError.
        """
        path = Path(path)
        if path.suffix.lower() != ".safetensors":
            raise SegMateError(f"cannot write {path}: expected the suffix .safetensors")
        made = cls.in_memory(document, weights)
        write_weights(path, made._weights.tensors, {METADATA_KEY: document_text(made._document)})
        return cls.read(path)

    @property
    def document(self) -> dict:
        """A copy of the whole document, defaults filled in."""
        return copy.deepcopy(self._document)

    @property
    def organ_set_names(self) -> tuple[str, ...]:
        return tuple(self._document["organ_sets"])

    @property
    def organ_set(self) -> str | None:
        return current_organ_set(self._document)

    def with_organ_set(self, name: str) -> Checkpoint:
        """The same networks with another choice of organs; weights and their hash stay.

        Raises SegMateError that lists the names.
        """
        if name not in self.organ_set_names:
            known = ", ".join(self.organ_set_names) or f"its {len(self.organs)} organs alone"
            raise SegMateError(f"{self.source} has no organ set {name!r}, expected: {known}")
        document = self.document
        chosen = copy.deepcopy(document["organ_sets"][name])
        document["organs"] = chosen["organs"]
        for part, grouping in zip(document["parts"], chosen["grouping"]):
            part["grouping"] = grouping
        other = Checkpoint(document, self._weights, self.path, self.source)
        other._weights_verified = self._weights_verified
        return other

    def require_slices(self, purpose: str) -> None:
        """Raise SegMateError where a part is a 3D network, for which `purpose` is not to be had."""
        for part in self.parts:
            if part.strategy != "slices":
                raise SegMateError(
                    f"{purpose} is for 2.5D networks, {self.source} holds the 3D network {part.model_name!r}"
                )

    def weights(self, part: int = 0, fold: int | None = None) -> dict[str, np.ndarray]:
        """Key -> array of one part, stored dtypes kept (float16 stays).

        fold: of a part with several, of which None gives all, their keys beginning with "fold0." and so on.
        The first call verifies the hash of all parts. Raises SegMateError for a .onnx, whose weights are in
        its graph, and where the hash does not agree.
        """
        if self._weights is None:
            raise SegMateError(
                f"{self.source} keeps its weights in its graph; take the .safetensors it was made from"
            )
        if not self._weights_verified:
            found = weights_hash(self._weights.items(self._weights.keys))
            if found != self.weights_sha256:
                raise SegMateError(
                    f"{self.source} is damaged: its weights have the hash {found[:12]}…, the document says "
                    f"{self.weights_sha256[:12]}…; copy or download it again"
                )
            self._weights_verified = True
        prefix, keys = self._keys_of(part, fold)
        return {key[len(prefix) :]: array for key, array in self._weights.items(keys)}

    def weight_shapes(self, part: int = 0, fold: int | None = None) -> dict[str, tuple[int, ...]]:
        """Key -> shape of what `weights` gives; nothing is read for it."""
        prefix, keys = self._keys_of(part, fold)
        return {key[len(prefix) :]: self._weights.shape(key) for key in keys}

    def _keys_of(self, part: int, fold: int | None) -> tuple[str, list[str]]:
        """What the keys of a part or fold begin with, and these keys."""
        prefix = f"part{part}."
        if fold is not None and self.parts[part].folds > 1:
            prefix += f"fold{fold}."
        return prefix, [key for key in self._weights.keys if key.startswith(prefix)]

    def _check_keys(self, keys: Sequence[str]) -> None:
        found = {key.partition(".")[0] for key in keys}
        expected = {f"part{index}" for index in range(len(self.parts))}
        if found != expected:
            raise SegMateError(
                f"{self.source}: the tensors belong to {', '.join(sorted(found)) or 'nothing'}, "
                f"the document describes {', '.join(sorted(expected))}"
            )
        for index, part in enumerate(self.parts):
            if part.folds == 1:
                continue
            found = {key.split(".")[1] for key in keys if key.startswith(f"part{index}.")}
            if len(found) != part.folds or found != {f"fold{fold}" for fold in range(part.folds)}:
                raise SegMateError(
                    f"{self.source}: the tensors of part {index} belong to {', '.join(sorted(found))}, the"
                    f" document describes {part.folds} folds from fold0 on"
                )


def _part(entry: dict) -> Part:
    threshold = entry["threshold"]
    in_patches = entry["strategy"] == "patches"
    kind = PatchPreprocessing if in_patches else Preprocessing
    grouping = entry["grouping"]
    return Part(
        entry["model"]["name"],
        dict(entry["model"]["options"]),
        kind.from_dict(entry["preprocessing"]),
        entry["activation"],
        tuple(threshold) if isinstance(threshold, list) else float(threshold),
        None if grouping is None else {organ: tuple(channels) for organ, channels in grouping.items()},
        tuple(entry["notes"]),
        entry["strategy"],
        entry["folds"],
        tuple(entry["classes"]) if in_patches else (),
        PatchPlan.from_dict(entry["patches"]) if in_patches else None,
    )


def _joined(weights: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return check_arrays(
        {f"part{i}.{key}": array for i, part in enumerate(weights) for key, array in part.items()}
    )
