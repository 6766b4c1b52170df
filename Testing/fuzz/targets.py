"""What the fuzzer feeds: by name a maker of honest files, and the function of SegMateCore that reads them.

Seeds are trees (name -> content) made of phantoms, blocks and tiny networks, nothing else. A reader takes the
folder with one changed tree; it may return or raise SegMateError, and nothing else.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "core"))
sys.path.append(str(Path(__file__).parents[1] / "core" / "training"))

from mutations import Tree

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@dataclass(frozen=True)
class Target:
    """seeds: writes honest inputs. read: of the folder with one. words: a command line, None for none."""

    seeds: Callable[[Path], None]
    read: Callable[[Path], None]
    words: Callable[[Path], list[str]] | None = None
    one_tree: bool = False

    def trees(self) -> list[Tree]:
        """The seeds' files: each a tree of its own, or (one_tree) all together."""
        with tempfile.TemporaryDirectory() as folder:
            self.seeds(Path(folder))
            whole = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file() and not path.name.startswith(".")
            }
        if self.one_tree:
            return [whole]
        groups: dict[str, Tree] = {}
        for name, content in whole.items():
            groups.setdefault(name.partition(".")[0], {})[name] = content
        return list(groups.values())


def _blocks() -> tuple:
    from SegMateCore.segmentation import Segmentation
    from SegMateCore.volume import Volume

    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(-1000, 400, (6, 9, 8)).astype(np.int16), AFFINE)
    labels = rng.integers(0, 10, volume.shape).astype(np.uint8)
    return volume, Segmentation(labels, AFFINE, provenance={"checkpoint": "x", "warnings": ["w"]})


def _first(folder: Path, *suffixes: str) -> Path:
    """The file that a reader starts with, also where the change has removed it."""
    found = [path for path in sorted(folder.rglob("*")) if path.name.endswith(suffixes)]
    return found[0] if found else folder / f"gone{suffixes[0]}"


def _nifti_seeds(folder: Path) -> None:
    import nibabel

    volume, segmentation = _blocks()
    for name in ("a.nii", "b.nii.gz"):
        volume.write(folder / name)
    for name in ("c.nii", "d.nii.gz"):
        segmentation.write(folder / name)
    scaled = nibabel.Nifti1Image(np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6), AFFINE)
    scaled.set_data_dtype(np.int16)
    nibabel.save(scaled, folder / "e.nii")
    nibabel.save(nibabel.Nifti2Image(np.zeros((4, 5, 6), np.int16), AFFINE), folder / "f.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 1), np.float64), AFFINE), folder / "g.nii.gz")


def _volume(folder: Path) -> None:
    from SegMateCore.errors import SegMateError
    from SegMateCore.provenance import read_provenance
    from SegMateCore.segmentation import Segmentation
    from SegMateCore.volume import Volume

    path = _first(folder, ".nii", ".nii.gz", ".nhdr", ".nrrd")
    refused = 0
    for reader in (Volume.read, Segmentation.read, read_provenance):
        try:
            reader(path)
        except SegMateError as error:
            refused += 1
            last = error
    if refused == 3:
        raise last


def _info(*suffixes: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["info", str(_first(folder, *suffixes))]


def _nrrd_seeds(folder: Path) -> None:
    import nrrd

    volume, segmentation = _blocks()
    volume.write(folder / "a.nrrd")
    segmentation.write(folder / "b.seg.nrrd")
    header = {"space": "left-posterior-superior", "space origin": [0, 0, 0],
              "space directions": np.diag([2.0, 2, 3]).tolist()}  # fmt: skip
    for name, encoding in (("c.nrrd", "raw"), ("d.nrrd", "ascii"), ("e.nrrd", "bzip2")):
        nrrd.write(str(folder / name), volume.voxels.T, {**header, "encoding": encoding})
    nrrd.write(str(folder / "f.nhdr"), volume.voxels.T, {**header, "encoding": "raw"}, detached_header=True)


def _patch_document() -> dict:
    from small_patches import organ_rows, tiny_part

    options = {"out_channels": 4, "features": [4, 6], "kernels": [[3] * 3] * 2, "strides": [[1] * 3, [2] * 3],
               "encoder_blocks": [1, 1], "decoder_convs": [1]}  # fmt: skip
    part = tiny_part({"liver": [1], "aorta": [2, 3]})
    part["model"] = {"name": "nnunet_plain", "options": options}
    return {
        "name": "tiny", "organs": organ_rows("liver", "aorta"), "parts": [part], "clean_up": {"liver": 0.5},
        "training": {"cases": [{"name": "a", "annotated": ["liver"]}]}, "metrics": {"dice": {"liver": 0.5}},
        "licences": [{"what": "weights", "licence": "CC0-1.0"}],
    }  # fmt: skip


def _checkpoint_seeds(folder: Path) -> None:
    import torch

    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.models import create_model

    document = _patch_document()
    torch.manual_seed(0)
    model = create_model("nnunet_plain", **document["parts"][0]["model"]["options"])
    Checkpoint.write(folder / "a.safetensors", document, [
        {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    ])  # fmt: skip


def _predict(path: Path, **choices) -> None:
    from SegMateCore.predictor import Predictor
    from SegMateCore.volume import Volume

    voxels = np.repeat(np.arange(9) * 40 - 160, 2)[None, :, None] + np.zeros((6, 18, 8))
    voxels[:, :, :2] = -1000
    predictor = Predictor.from_checkpoint(path, "cpu", threads=1, **choices)
    predictor.predict(Volume(voxels.astype(np.int16), AFFINE)).document()


def _safetensors(folder: Path) -> None:
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.checkpoint_description import describe, describe_json

    path = _first(folder, ".safetensors")
    checkpoint = Checkpoint.read(path)
    describe(checkpoint), describe_json(checkpoint)
    _predict(path, backend="torch")


def _onnx_seeds(folder: Path) -> None:
    from bands_graph import write_bands

    write_bands(folder / "a.onnx")
    write_bands(folder / "b.onnx", slices=("batch", 3, 64, 64))


def _onnx(folder: Path) -> None:
    _predict(_first(folder, ".onnx"), backend="onnxruntime")


def _store_seeds(folder: Path) -> None:
    import shutil

    from small_runs import make_store

    make_store(folder, range(3))
    shutil.rmtree(folder / "source")


def _store(folder: Path) -> None:
    from SegMateCore.data.store import Store

    for case in Store.open(folder / "store").cases:
        case.hu(0, case.shape[0])
        case.labels(0, case.shape[0])
        case.original_reference()
        if case.keeps_original:
            case.original_ct()


def _worker_seeds(folder: Path) -> None:
    from bands_graph import write_bands

    matrix = AFFINE.tolist()
    requests = [
        {"id": 1, "op": "hello", "protocol": 1, "folder": "segmate-exchange-x"},
        {"id": 2, "op": "open", "checkpoint": "a.onnx", "backend": "onnxruntime", "device": "cpu"},
        {"id": 3, "op": "run", "voxels": "segmate-exchange-x/v.npy", "affine": matrix,
         "labels": "segmate-exchange-x/l.npy", "organs": ["liver"], "options": {"chunk": 4, "force": True},
         "region": {"ras_to_unit": matrix}},
        {"id": 4, "op": "cancel", "request": 3},
    ]  # fmt: skip
    (folder / "requests.jsonl").write_text("".join(json.dumps(one) + "\n" for one in requests))
    (folder / "segmate-exchange-x").mkdir()
    np.save(folder / "segmate-exchange-x" / "v.npy", _blocks()[0].voxels)
    write_bands(folder / "a.onnx")


def _worker(folder: Path) -> None:
    """Each line as the worker's two threads would take it, in this process."""
    import os

    from SegMateCore.worker import Worker
    from SegMateCore.worker_protocol import BadRequest, Replies, parse_request

    path = _first(folder, ".jsonl")
    if not path.exists():
        return
    os.chdir(folder)
    told = io.BytesIO()
    worker = Worker(io.BytesIO(), Replies(told))
    expected = 0
    for line in path.read_bytes().splitlines():
        try:
            request = parse_request(line)
        except BadRequest:
            continue
        if request.op not in ("close", "cancel"):
            expected += 1
            worker._answer(request)
    replies = [json.loads(line) for line in told.getvalue().splitlines()]
    ended = [reply for reply in replies if reply["event"] != "progress"]
    unexpected = [reply for reply in ended if reply.get("kind") in ("unexpected", "out of memory")]
    if len(ended) != expected or unexpected:
        raise AssertionError(f"the worker answered {ended}")


def _toml_seeds(folder: Path) -> None:
    from SegMateCore.training.recipe_file import bundled_names, read_recipe, recipe_to_toml

    for name in [name for name in bundled_names() if name not in ("distill", "finetune")][:2]:
        (folder / f"{name}.toml").write_text(recipe_to_toml(read_recipe(name)))


def _toml(folder: Path) -> None:
    from SegMateCore.data.datasets.label_table import LabelTable
    from SegMateCore.errors import SegMateError
    from SegMateCore.training.recipe_file import read_recipe, recipe_to_toml

    path = _first(folder, ".toml")
    try:
        LabelTable.read(path)
    except SegMateError:
        pass
    recipe_to_toml(read_recipe(str(path)))


def _labels_seeds(folder: Path) -> None:
    (folder / "labels.toml").write_text('liver = 5\n"left lung" = [1, 2]\naorta = 7\n')


def _pth_seeds(folder: Path) -> None:
    import torch

    from SegMateCore.models import create_model

    torch.manual_seed(0)
    torch.save(create_model("nnunet_plain", **_patch_document()["parts"][0]["model"]["options"]).state_dict(),
               folder / "a.pth")  # fmt: skip
    torch.save({"w": torch.ones(3), "n": [np.float64(1), "x", {"a": (1, 2)}], "b": torch.ones(2).bfloat16()},
               folder / "b.pth")  # fmt: skip


def _pth(folder: Path) -> None:
    from SegMateCore.checkpoint import Checkpoint
    from SegMateCore.errors import SegMateError
    from SegMateCore.torch_archive import StoredTensor, TorchArchive

    path = _first(folder, ".pth")
    try:
        with TorchArchive(path) as archive:
            for tensor in _tensors_in(archive.content):
                if isinstance(tensor, StoredTensor):
                    archive.array(tensor)
    except SegMateError:
        pass
    Checkpoint.read(path)


def _tensors_in(content: object) -> Iterator[object]:
    yield from content.values() if isinstance(content, dict) else [content]


def _nnunet_seeds(folder: Path) -> None:
    from small_nnunet import write_model

    write_model(folder / "Dataset297_TotalSegmentator_total_3mm_1559subj" / "m__nnUNetPlans__3d_fullres")


def _nnunet(folder: Path) -> None:
    from SegMateCore.nnunet_folder import read_nnunet_folders

    plans = _first(folder, "plans.json")
    read_nnunet_folders([plans.parent], orientation="RAS")


def _bundle_seeds(folder: Path) -> None:
    from small_bundle import write_bundle

    write_bundle(folder / "bundle")


def _bundle(folder: Path) -> None:
    from SegMateCore.monai_bundle import read_bundle

    read_bundle(folder / "bundle")


def _tables_seeds(folder: Path) -> None:
    """The small documents beside images: of data sets, of runs, of evaluations, and the list of models."""
    from small_datasets import write_case_folders

    from SegMateCore.case_log import FIELDS
    from SegMateCore.case_table import COLUMNS
    from SegMateCore.model_manifest import RESOURCES
    from SegMateCore.organs import NINE

    write_case_folders(folder / "cases", 1)
    (folder / "organs.json").write_text(json.dumps(NINE.to_list()))
    (folder / "manifest.json").write_bytes((RESOURCES / "manifest.json").read_bytes())
    (folder / "statistics.csv").write_text(
        f"{','.join(COLUMNS)}\n" + ",".join(["a"] + ["1"] * (len(COLUMNS) - 1)) + "\n"
    )
    log = ("a", "done", 1, 2.5, "", "", "2026-11-21T00:00:00+00:00")
    (folder / "cases.jsonl").write_text(json.dumps(dict(zip(FIELDS, log))) + "\n")
    (folder / "list.csv").write_text("path,name,series,affine\nct.nii.gz,anna/first,,sform\nseries,b,1,\n")
    (folder / "meta.csv").write_text("image_id;age;split\ns0001;60;train\ns0002;61;val\n")
    (folder / "dataset.json").write_text(json.dumps({
        "name": "d", "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1},
        "numTraining": 1, "file_ending": ".nii.gz",
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }))  # fmt: skip
    (folder / "results.json").write_text(json.dumps(
        {"segmate_evaluation": 1, "cases": [], "failed": [{"case": "a", "reason": "b"}], "summary": {}}
    ))  # fmt: skip


def _tables(folder: Path) -> None:
    from SegMateCore.case_log import read_case_log
    from SegMateCore.case_manifest import read_manifest as read_list
    from SegMateCore.case_table import CaseTable
    from SegMateCore.data.datasets.finding import find_dataset
    from SegMateCore.data.datasets.organ_names import chosen_organs
    from SegMateCore.data.datasets.totalsegmentator import _published
    from SegMateCore.errors import SegMateError
    from SegMateCore.evaluation.result_files import read_results
    from SegMateCore.model_manifest import read_manifest

    readers = (
        lambda: chosen_organs(str(folder / "organs.json")),
        lambda: read_manifest(folder / "manifest.json"),
        lambda: CaseTable.read(folder / "statistics.csv"),
        lambda: read_case_log(folder / "cases.jsonl"),
        lambda: read_list(folder / "list.csv"),
        lambda: _published(folder / "meta.csv"),
        lambda: find_dataset("nnunet", folder),
        lambda: find_dataset("folder", folder / "cases"),
        lambda: read_results(folder),
    )
    for reader in readers:
        try:
            reader()
        except SegMateError as error:
            last = error
    raise last


def _zip_seeds(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("model/plans.json", "model/fold_0/x.pth", "model/empty/"):
            made.writestr(name, b"" if name.endswith("/") else name.encode() * 50)


def _zip(folder: Path) -> None:
    from SegMateCore.archives import unpack

    unpack(_first(folder, ".zip"), folder / "unpacked")


def _dicom_seeds(folder: Path) -> None:
    from dicom_seeds import write_series

    write_series(folder / "series")


def _dicom(folder: Path) -> None:
    from SegMateCore.volume import Volume

    Volume.read(folder / "series")


_VOLUMES = (".nii", ".nii.gz", ".nhdr", ".nrrd")
TARGETS = {
    "nifti": Target(_nifti_seeds, _volume, _info(*_VOLUMES)),
    "nrrd": Target(_nrrd_seeds, _volume, _info(*_VOLUMES)),
    "safetensors": Target(_checkpoint_seeds, _safetensors, _info(".safetensors")),
    "onnx": Target(_onnx_seeds, _onnx, _info(".onnx"), one_tree=False),
    "store": Target(_store_seeds, _store, lambda folder: ["store", str(folder / "store")], one_tree=True),
    "worker": Target(_worker_seeds, _worker, one_tree=True),
    "toml": Target(_toml_seeds, _toml),
    "labels": Target(_labels_seeds, _toml),
    "pth": Target(_pth_seeds, _pth, _info(".pth")),
    "nnunet": Target(_nnunet_seeds, _nnunet, one_tree=True),
    "bundle": Target(_bundle_seeds, _bundle, one_tree=True),
    "tables": Target(_tables_seeds, _tables, one_tree=True),
    "zip": Target(_zip_seeds, _zip),
    "dicom": Target(_dicom_seeds, _dicom, lambda folder: ["info", str(folder / "series")], one_tree=True),
}
