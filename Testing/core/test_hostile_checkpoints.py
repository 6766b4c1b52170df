"""Checkpoints and Stores made to do harm: refused before they allocate, point elsewhere or run anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from SegMateCore import onnx_guard, protobuf_fields
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE, OrganSet
from SegMateCore.patch_plan import PatchPlan
from SegMateCore.predictor import Predictor
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.resampling import working_grid
from SegMateCore.segmentation import Segmentation
from SegMateCore.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def organ(name: str, label: int = 1) -> dict:
    return {"name": name, "label": label, "code": None, "meaning": None, "modifier": None, "rgb": [1, 2, 3]}


class TestOrgans:
    @given(st.text(max_size=120))
    @example("../escaped")
    @example("/etc/x")
    @example("a\\b")
    @example("c:x")
    @example("a\0b")
    @example("\ud800")
    @example("x" * 300)
    def test_what_is_accepted_is_one_file_in_its_folder(self, name):
        try:
            (row,) = OrganSet.from_list([organ(name)])
        except SegMateError:
            return
        assert (Path("/folder") / f"{row.key}.nii.gz").resolve().parent == Path("/folder")
        assert len(f"{row.key}.nii.gz".encode()) < 255 or not name.isascii()

    def test_masks_stay_in_their_folder(self, tmp_path):
        organs = OrganSet.from_list([organ("..")])
        Segmentation(np.ones((2, 2, 2), np.uint8), AFFINE, organs).write_per_organ(tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_more_rows_than_labels(self):
        with pytest.raises(SegMateError, match="at most 255"):
            OrganSet.from_list([organ(f"organ {number}") for number in range(10**5)])


class TestAllocations:
    def test_a_grid_that_no_machine_holds(self):
        volume = Volume(np.zeros((300, 300, 300), np.int8), np.diag([100.0, 100.0, 100.0, 1.0]))
        with pytest.raises(SegMateError, match="the network's grid of .* would need"):
            working_grid(volume, (0.01, 0.01, 0.01))

    @pytest.mark.parametrize(
        "changes",
        [{"spacing_mm": (1e-9, 1, 1)}, {"spacing_mm": (1e300, 1, 1)}, {"spacing_mm": ("1", "1", "1")},
         {"context": 10**12 + 1}, {"window_hu": (0, float("inf"))}],
    )  # fmt: skip
    def test_preprocessing(self, changes):
        with pytest.raises(SegMateError, match=next(iter(changes))):
            Preprocessing(**{"spacing_mm": None, "window_hu": (-1000, 400), "scale": (0, 1), **changes})

    @pytest.mark.parametrize("changes", [{"size": (10**4,) * 3}, {"overlap": 1 - 1e-12}])
    def test_patches(self, changes):
        with pytest.raises(SegMateError, match=next(iter(changes))):
            PatchPlan(**{"size": (8, 8, 8), **changes})

    def test_a_network_far_larger_than_its_weights(self):
        """Built, its first layer alone would take 200 GB."""
        pytest.importorskip("timm")
        from SegMateCore.backends.torch_backend import load_network

        options = {"organs": 9, "context": 3, "widths": [60_000] * 5}
        part = {"model": {"name": "unet_resnet10t", "options": options},
                "preprocessing": Preprocessing(None, (-1000, 400), (0, 1)).to_dict()}  # fmt: skip
        document = {"organs": NINE.to_list(), "parts": [part]}
        checkpoint = Checkpoint.in_memory(document, [{"seg_head.weight": np.zeros((9, 1, 1, 1), np.float32)}])
        with pytest.raises(SegMateError, match="do not fit the network"):
            load_network(checkpoint, 0)

    def test_a_3d_network_far_larger_than_its_weights(self):
        pytest.importorskip("torch")
        from small_patches import organ_rows, tiny_part

        from SegMateCore.backends.torch_patches import TorchPatches

        part = tiny_part({"liver": [1], "aorta": [2]}, count=3)
        part["model"] = {"name": "nnunet_plain", "options": {"out_channels": 3, "features": [60_000] * 6}}
        part["patches"] = {"size": [32, 32, 32]}
        document = {"organs": organ_rows("liver", "aorta"), "parts": [part]}
        checkpoint = Checkpoint.in_memory(document, [{"x": np.zeros(1, np.float32)}])
        with pytest.raises(SegMateError, match="do not fit the network"):
            TorchPatches.open(checkpoint, 0, "cpu", "fp32", None)

    def test_a_million_million_folds(self):
        from small_patches import organ_rows, tiny_part

        part = tiny_part({"liver": [1]}, count=2)
        part["model"], part["folds"] = {"name": "nnunet_plain", "options": {"out_channels": 2}}, 10**12
        with pytest.raises(SegMateError, match="folds"):
            Checkpoint.in_memory(
                {"organs": organ_rows("liver"), "parts": [part]}, [{"fold0.x": np.zeros(1, np.float32)}]
            )


class TestOnnx:
    def changed(self, tmp_path, change) -> Path:
        onnx = pytest.importorskip("onnx")
        from bands_graph import write_bands

        (tmp_path / "here").mkdir()
        path = write_bands(tmp_path / "here" / "a.onnx")
        model = onnx.load(str(path))
        change(model, onnx)
        path.write_bytes(model.SerializeToString())
        return path

    @pytest.mark.parametrize("place", ["../secret.raw", "secret.raw", "/etc/passwd", "/dev/zero"])
    def test_weights_in_another_file(self, tmp_path, place):
        for folder in (tmp_path, tmp_path / "here"):
            folder.mkdir(exist_ok=True)
            (folder / "secret.raw").write_bytes(bytes(64))
        (tmp_path / "here" / "secret.raw").unlink()
        (tmp_path / "here").rmdir()

        def change(model, onnx):
            tensor = model.graph.initializer[2]
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=place)

        with pytest.raises(SegMateError, match="its weights lie in another file"):
            Predictor.from_checkpoint(self.changed(tmp_path, change), backend="onnxruntime")

    @pytest.mark.parametrize("within", ["graph", "attribute", "function", "function's attribute"])
    def test_a_loop(self, tmp_path, within):
        def change(model, onnx):
            body = onnx.helper.make_graph([], "body", [], [])
            node = onnx.helper.make_node("Loop", ["a", "b"], ["c"], body=body)
            if within == "graph":
                model.graph.node.append(node)
            elif within == "attribute":
                inner = onnx.helper.make_graph([node], "inner", [], [])
                branch = onnx.helper.make_node("If", ["a"], ["d"], then_branch=inner, else_branch=inner)
                model.graph.node.append(branch)
            elif within == "function":
                made = onnx.helper.make_function("d", "f", ["a"], ["c"], [node], [])
                model.functions.append(made)
            else:  # what a branch in the function is where its caller gives none
                inner = onnx.helper.make_graph([node], "inner", [], [])
                made = onnx.helper.make_function("d", "f", ["a"], ["c"], [], [])
                made.attribute_proto.append(onnx.helper.make_attribute("branch", inner))
                model.functions.append(made)

        with pytest.raises(SegMateError, match=r"it has a loop \(Loop\)"):
            Predictor.from_checkpoint(self.changed(tmp_path, change), backend="onnxruntime")

    @pytest.mark.parametrize("where", ["one message", "all together"])
    def test_more_fields_than_any_network_has(self, tmp_path, monkeypatch, where):
        """Two bytes each: a file of a gigabyte would be looked at for a quarter of an hour."""
        monkeypatch.setattr(protobuf_fields if where == "one message" else onnx_guard, "MOST_FIELDS", 9000)

        def change(model, onnx):
            model.graph.node.extend(onnx.NodeProto() for _ in range(9000))

        with pytest.raises(SegMateError, match="more than 9000 fields"):
            Predictor.from_checkpoint(self.changed(tmp_path, change), backend="onnxruntime")

    def test_a_deeply_nested_report_of_the_export(self, tmp_path):
        def change(model, onnx):
            model.metadata_props.add(key="segmate_export", value="[" * 10**5 + "]" * 10**5)

        with pytest.raises(SegMateError, match="is damaged"):
            Predictor.from_checkpoint(self.changed(tmp_path, change), backend="onnxruntime")


class TestStore:
    def test_a_file_that_is_more_than_an_array(self, tmp_path):
        """Versions of Blosc2 before 4.14.1 would evaluate the expression that is kept in such a file."""
        blosc2 = pytest.importorskip("blosc2")
        from SegMateCore.data.slice_arrays import FAST, packed, read_slices

        blosc2.asarray(np.zeros((4, 8, 8), np.int16), urlpath=str(tmp_path / "a.b2nd"), mode="w")
        (blosc2.open(str(tmp_path / "a.b2nd")) + 1).save(str(tmp_path / "hu.b2nd"))
        with pytest.raises(SegMateError, match="not an array alone"):
            read_slices(tmp_path / "hu.b2nd", 0, 4, (4, 8, 8))
        (tmp_path / "honest.b2nd").write_bytes(packed(np.ones((4, 8, 8), np.int16), FAST))
        assert read_slices(tmp_path / "honest.b2nd", 0, 4, (4, 8, 8)).sum() == 256

    def test_any_damaged_byte_is_an_array_or_an_error(self, tmp_path):
        pytest.importorskip("blosc2")
        from SegMateCore.data.slice_arrays import FAST, packed, read_slices

        whole = packed(np.arange(256, dtype=np.int16).reshape(4, 8, 8), FAST)
        path = tmp_path / "hu.b2nd"
        # The header, where a damaged byte changes types, sizes and places.
        for at in range(0, 200, 3):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            try:
                read_slices(path, 0, 4, (4, 8, 8))
            except SegMateError:
                pass

    def test_labels_beyond_the_organs(self, tmp_path):
        pytest.importorskip("blosc2")
        pytest.importorskip("torch")
        import sys

        sys.path.append(str(Path(__file__).parent / "training"))
        from small_runs import make_store

        from SegMateCore.data.slice_arrays import FAST, packed
        from SegMateCore.data.store import Store

        case = Store.open(make_store(tmp_path, range(3))).cases[0]
        (case.folder / "labels.b2nd").write_bytes(packed(np.full(case.shape, 10, np.uint8), FAST))
        with pytest.raises(SegMateError, match="up to 10, expected uint8 from 0 to 9"):
            case.labels(0, case.shape[0])


def test_texts_in_a_result_that_are_nested_deeply(tmp_path):
    from SegMateCore.nifti import write_nifti

    volume = Volume(np.zeros((2, 2, 2), np.uint8), AFFINE)
    write_nifti(volume, tmp_path / "a.nii.gz", "[" * 10**5)
    assert Segmentation.read(tmp_path / "a.nii.gz").provenance == {}


def test_a_case_list_of_a_training_record_with_other_things_than_names(tiny_checkpoint):
    from SegMateCore.checkpoint_description import describe

    checkpoint = Checkpoint.read(tiny_checkpoint)
    cases = [{"name": 3, "annotated": [["x"], None]}, 7, {"annotated": 1}]
    checkpoint._document["training"] = {"cases": cases}
    assert "3: ['x'], None" in describe(checkpoint)
    assert json.loads(json.dumps(checkpoint.document))
