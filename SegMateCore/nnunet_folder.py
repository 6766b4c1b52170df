"""Trained models of nnU-Net v2 as one checkpoint: plans.json, dataset.json, fold_N/checkpoint_final.pth.

Takes one model folder, or several whose networks know different organs (TotalSegmentator's at 1.5 mm), gives
a Checkpoint in memory with one part for each. Nothing is unpickled, nnunetv2 is not needed. A folder does not
say how the images of its training lay in their files, except where they were turned when they were read;
TotalSegmentator's were RAS, of others it must be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.checkpoint import Checkpoint
from SegMateCore.class_table import organ_sets_of
from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import Entries, read_json
from SegMateCore.nnunet_fold import CHECKPOINT_NAME, FoldRecord, fold_paths, record_of
from SegMateCore.nnunet_labels import Channels, channels_of
from SegMateCore.nnunet_plans import PlannedPart, known_orientation, planned_part
from SegMateCore.nnunet_weights import read_weights
from SegMateCore.torch_archive import TorchArchive

PLANS, DATASET = "plans.json", "dataset.json"
_REMEDY = (
    "give the folder of a trained model with plans.json, dataset.json and fold_0/checkpoint_final.pth, as "
    "nnU-Net's training or a download of it leaves it"
)
# The tasks "total", whose images TotalSegmentator turns to RAS, and their licence (its README).
_TOTALSEGMENTATOR = re.compile(r"Dataset(29[1-8]|83[1-7])_TotalSegmentator_")
_APACHE = {"licence": "Apache-2.0", "source": "https://github.com/wasserth/TotalSegmentator"}
_UNSAID = "as published by its source (the folder does not say)"
# Trainers of nnunetv2 2.8 and of TotalSegmentator: none of them changes the network, or its weights show it.
_KNOWN_TRAINER = re.compile(
    r"nnUNetTrainer(_?(NoMirroring|onlyMirror01|DA5(ord0|Segord0)?|DASegOrd0|NoDA|noDummy2DDA|\d+ep(ochs?)?"
    r"|warmup|CosAnneal|(Vanilla)?Adam(\d+en\d+)?|Adan(\d+en\d+)?|NoDeepSupervision|BN|DiceLoss|CELoss|Topk10Loss"
    r"|DiceCELoss_noSmooth|Topk10LossLS01|DiceTopK10Loss|probabilisticOversampling(_\d+)?"
    r"|Benchmark_5epochs(_noDataLoading)?))*"
)
# progress(stage, done, total)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Choice:
    """What the caller decides; see read_nnunet_folders."""

    orientation: str | None
    configuration: str | None
    folds: Sequence[str] | None
    checkpoint_name: str


@dataclass(frozen=True)
class _Model:
    """One folder, read but for its weights."""

    folder: Path
    plans: Entries
    dataset: Entries
    configuration: str
    orientation: str
    channels: Channels
    part: PlannedPart
    folds: tuple[tuple[FoldRecord, TorchArchive], ...]

    @property
    def name(self) -> str:
        """Of the data set."""
        name = self.plans.get("dataset_name")
        return name if isinstance(name, str) and name else self.folder.name


def is_nnunet_folder(folder: Path) -> bool:
    """Whether the folder, or one directly in it, is a trained model of nnU-Net."""
    return bool(_model_folders(folder))


def read_nnunet_folders(
    folders: Sequence[str | Path],
    orientation: str | None = None,
    configuration: str | None = None,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = CHECKPOINT_NAME,
    progress: Progress | None = None,
) -> Checkpoint:
    """The models as one checkpoint; of several, a later one overwrites where both find an organ.

    folders: of models, or of data sets with one model in each. orientation: where the axes of the training's
    arrays pointed ("RAS", "LPS"), needed where neither plans nor name say it. configuration: which of several
    models in a data set's folder. folds: "0", "1", "all"; None: the cross-validation's. Raises SegMateError.
    """
    choice = _Choice(orientation, configuration, folds, checkpoint_name)
    # Each checkpoint is opened once: its log of thousands of epochs takes seconds to read.
    with ExitStack() as opened:
        models = [_read_model(_only_model(Path(folder), configuration), choice, opened) for folder in folders]
        document = _document(models)
        total, done = sum(len(model.folds) for model in models), 0
        weights = []
        for model in models:
            read: dict[str, np.ndarray] = {}
            for index, (_, archive) in enumerate(model.folds):
                prefix = f"fold{index}." if len(model.folds) > 1 else ""
                fold = read_weights(archive, (model.part.network, model.part.options))
                read.update({prefix + key: array for key, array in fold.items()})
                done += 1
                if progress is not None:
                    progress("import", done, total)
            weights.append(read)
    return Checkpoint.in_memory(document, weights)


def _model_folders(folder: Path) -> list[Path]:
    """`folder` itself, or the folders in it, that have plans or a data set's description."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError as error:
        raise SegMateError(f"cannot read {folder}: {error.strerror or error}") from None
    if (folder / PLANS).is_file() or (folder / DATASET).is_file():
        return [folder]
    return [path for path in inside if (path / PLANS).is_file()]


def _only_model(folder: Path, configuration: str | None) -> Path:
    found = _model_folders(folder)
    if not found:
        raise SegMateError(f"{folder} is no model of nnU-Net: there is no {PLANS}; {_REMEDY}")
    if len(found) > 1 and configuration is not None:
        found = [path for path in found if path.name.split("__")[-1] == configuration]
    if len(found) != 1:
        names = ", ".join(path.name for path in _model_folders(folder))
        raise SegMateError(f"{folder} holds several models ({names}); give one of these folders")
    return found[0]


def _read_model(folder: Path, choice: _Choice, opened: ExitStack) -> _Model:
    """The checkpoints stay open as long as `opened`."""
    plans, dataset = read_json(folder / PLANS, _REMEDY), read_json(folder / DATASET, _REMEDY)
    channels = channels_of(dataset)
    paths = fold_paths(folder, choice.folds, choice.checkpoint_name)
    archives = [opened.enter_context(TorchArchive(path)) for path in paths.values()]
    records = [record_of(fold, archive) for fold, archive in zip(paths, archives)]
    for record in records[1:]:
        if _training_of(record) != _training_of(records[0]):
            raise SegMateError(
                f"{folder}: the folds {records[0].fold} and {record.fold} were trained differently "
                f"({_training_of(records[0])}, {_training_of(record)}); choose with --folds"
            )
    configuration = _configuration(folder, records[0], choice.configuration)
    part = planned_part(plans, configuration, len(channels.names))
    if records[0].batch_norm:
        part.options["norm"] = "batch"
    orientation = _orientation(plans, folder, choice.orientation)
    folds = tuple(zip(records, archives))
    return _Model(folder, plans, dataset, configuration, orientation, channels, part, folds)


def _training_of(record: FoldRecord) -> dict:
    return {
        "configuration": record.configuration,
        "mirrored axes": record.mirror_axes,
        "batch norm": record.batch_norm,
    }


def _configuration(folder: Path, record: FoldRecord, asked: str | None) -> str:
    """The one that the checkpoint names, else the one asked for or in the folder's name."""
    if None not in (record.configuration, asked) and record.configuration != asked:
        raise SegMateError(
            f"{folder} was trained for the configuration {record.configuration}, {asked} is asked for; leave "
            "--configuration out, or give the other folder"
        )
    name = folder.name.split("__")[-1] if "__" in folder.name else None
    found = record.configuration or asked or name
    if found is None:
        raise SegMateError(f"{folder} does not say its configuration; give it, --configuration 3d_fullres")
    return found


def _orientation(plans: Entries, folder: Path, asked: str | None) -> str:
    known = known_orientation(plans)
    if _TOTALSEGMENTATOR.match(str(plans.get("dataset_name"))):
        known = "RAS"
    if None not in (known, asked) and known != asked:
        raise SegMateError(f"{folder} was trained with images as {known}, {asked} is asked for; leave it out")
    if known is None and asked is None:
        raise SegMateError(
            f"{folder} does not say how the images of its training lay in their files. Say where the axes i, "
            "j and k of their arrays pointed: --orientation LPS for most images from DICOM, RAS for images "
            "that were made canonical; a wrong one swaps sides"
        )
    return known or asked


def _document(models: Sequence[_Model]) -> dict:
    """The checkpoint document of the models, one part for each."""
    if not models:
        raise SegMateError(f"no folder is given; {_REMEDY}")
    where = ", ".join(str(model.folder) for model in models)
    try:
        sets = organ_sets_of(*(model.channels.names for model in models))
    except SegMateError as error:
        raise SegMateError(f"{where}: {error}") from None
    for index, model in enumerate(models):
        if not any(choice.grouping[index] for choice in sets.values()):
            raise SegMateError(f"{model.folder} finds nothing that the folders before it miss; leave it out")
    first = next(iter(sets.values())).to_dict()
    records = [_training(model) for model in models]
    names = list(dict.fromkeys(model.name for model in models))
    return {
        "name": " + ".join(names),
        "description": "Imported from nnU-Net v2 (Isensee et al., Nature Methods 18, 2021).",
        "organs": first["organs"],
        "merge": "single" if len(models) == 1 else "union",
        "parts": [_part(model, grouping) for model, grouping in zip(models, first["grouping"])],
        "organ_sets": {name: choice.to_dict() for name, choice in sets.items()},
        "training": records[0] if len(records) == 1 else {"members": records},
        "licences": [licence for model in models for licence in _licences(model)],
    }


def _part(model: _Model, grouping: dict) -> dict:
    record = model.folds[0][0]
    notes = []
    if not _KNOWN_TRAINER.fullmatch(record.trainer):
        notes.append(
            f"Trained by {record.trainer}, which this version does not know: if it changes the network in a "
            "way that its weights do not show, results are not nnU-Net's."
        )
    return {
        "strategy": "patches",
        "model": {"name": model.part.network, "options": model.part.options},
        "folds": len(model.folds),
        "preprocessing": {"orientation": model.orientation, **model.part.preprocessing},
        "patches": {**model.part.patches, "mirror_axes": list(record.mirror_axes)},
        "activation": model.channels.activation,
        "classes": list(model.channels.names),
        "grouping": grouping,
        "notes": notes,
    }


def _training(model: _Model) -> dict:
    cases, plans = model.dataset.get("numTraining"), model.plans.get("plans_name")
    records = [record for record, _ in model.folds]
    return {
        "framework": "nnU-Net v2",
        "imported_from": model.folder.name,
        "dataset": model.name,
        "training_cases": cases if type(cases) is int else None,
        "plans": plans if isinstance(plans, str) else None,
        "trainer": records[0].trainer,
        "configuration": model.configuration,
        "folds": [record.fold for record in records],
        "checkpoint": model.folds[0][1].path.name,
        "epochs": [record.epochs for record in records],
        "best_mean_dice": [record.best for record in records],
    }


def _licences(model: _Model) -> list[dict]:
    """Of the weights, and what the data set's description says of the data."""
    known = _APACHE if _TOTALSEGMENTATOR.match(model.name) else {"licence": _UNSAID, "source": None}
    licences = [{"what": f"weights of {model.name}", **known}]
    said = model.dataset.get("licence") or model.dataset.get("license")
    if isinstance(said, str) and said.strip():
        reference = model.dataset.get("reference")
        source = reference if isinstance(reference, str) else None
        licences.append({"what": f"training data of {model.name}", "licence": said.strip(), "source": source})
    return licences
