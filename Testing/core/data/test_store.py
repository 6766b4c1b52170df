"""The Store: slices as they were written, from any process; original grids; refusals that say what to do."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_all_start_methods, get_context

import numpy as np
import pytest
from small_datasets import block_labels, small_volume, write_case_folders

from SegMateCore.data.datasets.folder import find
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.slice_arrays import FAST, SMALL, packed, read_slices
from SegMateCore.data.splits import FOLDS, SplitRule
from SegMateCore.data.store import Store
from SegMateCore.data.store_index import StoreIndex, presence_of, runs_of
from SegMateCore.errors import SegMateError
from SegMateCore.organs import NINE


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_case_folders(tmp_path_factory.mktemp("source"), 6)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    """A Store on native grids."""
    path = tmp_path_factory.mktemp("stores") / "native"
    prepare(find(source, NINE), path, PrepareOptions(split=SplitRule(shares=(4, 1, 1))))
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the Store to damage."""
    import shutil

    return shutil.copytree(folder, tmp_path / "copy")


def _sum_of_slices(case) -> int:
    return int(case.hu(0, case.shape[0]).astype(np.int64).sum())


class TestSlices:
    @pytest.mark.parametrize("kept_for", [FAST, SMALL])
    @pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
    def test_any_range_of_slices_comes_back(self, tmp_path, dtype, kept_for):
        array = np.random.default_rng(0).integers(0, 255, (7, 5, 9)).astype(dtype)
        path = tmp_path / "a.b2nd"
        path.write_bytes(packed(array, kept_for))
        assert packed(array, kept_for) == path.read_bytes()
        for first, last in ((0, 7), (0, 1), (6, 7), (2, 5)):
            found = read_slices(path, first, last, array.shape)
            assert found.dtype == dtype and np.array_equal(found, array[first:last])

    @pytest.mark.parametrize("damage", ["missing", "empty", "short", "other"])
    def test_a_damaged_file_is_named(self, tmp_path, damage):
        path = tmp_path / "a.b2nd"
        content = packed(np.random.default_rng(0).integers(0, 99, (4, 40, 40)).astype(np.int16), FAST)
        if damage != "missing":
            path.write_bytes({"empty": b"", "short": content[:900], "other": b"something else" * 20}[damage])
        with pytest.raises(SegMateError, match=r"a\.b2nd.*run the same `segmate prepare`"):
            read_slices(path, 0, 2, (4, 40, 40))

    def test_another_shape_is_refused(self, tmp_path):
        path = tmp_path / "a.b2nd"
        path.write_bytes(packed(np.zeros((4, 5, 6), np.int16), SMALL))
        with pytest.raises(SegMateError, match="shape"):
            read_slices(path, 0, 2, (4, 6, 6))


class TestCases:
    def test_working_arrays_are_canonical(self, folder):
        case = Store.open(folder).cases[0]
        hu, labels = case.hu(0, 10), case.labels(0, 10)
        assert hu.dtype == np.int16 and labels.dtype == np.uint8
        assert np.array_equal(hu, small_volume(0).canonical().voxels)
        assert np.array_equal(labels, small_volume(0).with_voxels(block_labels()).canonical().voxels)
        assert np.allclose(case.geometry.affine, small_volume(0).canonical().affine)

    def test_presence_and_voxels_are_those_of_the_labels(self, folder):
        for case in Store.open(folder).cases:
            labels = case.labels(0, case.shape[0])
            for channel in range(9):
                mask = labels == channel + 1
                assert np.array_equal(case.presence[:, channel], mask.any(axis=(1, 2)))
                assert case.voxels[channel] == mask.sum() == 80

    def test_a_range_outside_is_refused(self, folder):
        case = Store.open(folder).cases[0]
        for first, last in ((-1, 2), (3, 3), (9, 11), (5, 2)):
            with pytest.raises(SegMateError, match="within 0 to 10"):
                case.hu(first, last)

    def test_originals_come_back_from_the_store_or_the_source(self, folder):
        store = Store.open(folder)
        assert [case.keeps_original for case in store.cases] == [c.split != "train" for c in store.cases]
        for number, case in enumerate(store.cases):
            volume, reference = case.original()
            assert np.array_equal(volume.voxels, small_volume(number).voxels)
            assert np.array_equal(volume.affine, small_volume(number).affine)
            assert np.array_equal(reference.labels, block_labels()) and reference.organs == NINE

    def test_a_changed_or_vanished_source_is_noticed(self, copy, tmp_path):
        case = Store.open(copy).split("train")[0]
        with pytest.raises(SegMateError, match="not there any more"):
            replace(case, source_folder=tmp_path).original()
        (tmp_path / case.name).mkdir()
        small_volume(99).write(tmp_path / case.source[0].path)
        with pytest.raises(SegMateError, match="has changed"):
            replace(case, source_folder=tmp_path).original()

    def test_cases_travel_to_threads_and_processes(self, folder):
        cases = Store.open(folder).cases
        expected = [_sum_of_slices(case) for case in cases]
        assert [_sum_of_slices(case) for case in pickle.loads(pickle.dumps(cases))] == expected
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(_sum_of_slices, cases * 5)) == expected * 5
        for method in {"spawn", "fork"} & set(get_all_start_methods()):
            with get_context(method).Pool(1) as pool:
                assert pool.map(_sum_of_slices, cases) == expected


class TestSplit:
    def test_fixed(self, folder):
        store = Store.open(folder)
        parts = {part: {case.name for case in store.split(part)} for part in ("train", "val", "test")}
        assert [len(names) for names in parts.values()] == [4, 1, 1]
        assert len(set.union(*parts.values())) == 6
        with pytest.raises(SegMateError, match="no folds"):
            store.split("val", fold=0)
        with pytest.raises(SegMateError, match="expected one of train, val, test"):
            store.split("validation")

    def test_folds(self, source, tmp_path):
        prepare(find(source, NINE), tmp_path / "s", PrepareOptions(split=SplitRule(FOLDS, folds=3)))
        store = Store.open(tmp_path / "s")
        assert all(case.keeps_original for case in store.cases)
        held_out = [{case.name for case in store.split("val", fold)} for fold in range(3)]
        assert [len(names) for names in held_out] == [2, 2, 2] and len(set.union(*held_out)) == 6
        for fold in range(3):
            train = {case.name for case in store.split("train", fold)}
            assert len(train) == 4 and not train & held_out[fold]
        for fold in (None, 3, -1):
            with pytest.raises(SegMateError, match="expected 0 to 2"):
                store.split("train", fold)


class TestRefusals:
    def test_no_store(self, tmp_path):
        with pytest.raises(SegMateError, match="not a Store"):
            Store.open(tmp_path)
        (tmp_path / "store.json").write_text("{}")
        with pytest.raises(SegMateError, match="not the index of a Store"):
            Store.open(tmp_path)
        (tmp_path / "store.json").write_text('{"segmate_store"')
        with pytest.raises(SegMateError, match="cannot be read"):
            Store.open(tmp_path)

    @pytest.mark.parametrize(("version", "advice"), [(3, "update segmate"), (1, "prepare it anew")])
    def test_another_version(self, copy, version, advice):
        text = (copy / "store.json").read_text()
        (copy / "store.json").write_text(text.replace('"segmate_store": 2', f'"segmate_store": {version}'))
        with pytest.raises(SegMateError, match=f"format {version}.*{advice}"):
            Store.open(copy)

    @pytest.mark.parametrize("key", ["organs", "patients", "cases", "left_out", "split"])
    def test_an_index_without_a_part(self, copy, key):
        document = json.loads((copy / "store.json").read_text())
        del document[key]
        (copy / "store.json").write_text(json.dumps(document))
        with pytest.raises(SegMateError):
            Store.open(copy)

    def test_a_case_that_is_not_the_one_in_the_index(self, copy):
        path = copy / "cases" / "case_02" / "case.json"
        row = json.loads(path.read_text())
        path.write_text(json.dumps({**row, "patient": "somebody else"}))
        with pytest.raises(SegMateError, match="case case_02: .*say different things: run the same"):
            Store.open(copy)
        path.unlink()
        with pytest.raises(SegMateError, match=r"case case_02: .*case\.json cannot be read"):
            Store.open(copy)

    def test_a_case_outside_the_store(self, copy):
        text = (copy / "store.json").read_text()
        (copy / "store.json").write_text(text.replace('"name": "case_02"', '"name": "../case_02"'))
        with pytest.raises(SegMateError, match="has the character '/'"):
            Store.open(copy)

    def test_a_case_with_a_missing_or_cut_file(self, copy):
        path = copy / "cases" / "case_02" / "hu.b2nd"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(SegMateError, match="case case_02: .* bytes, expected"):
            Store.open(copy)
        path.unlink()
        with pytest.raises(SegMateError, match="case case_02: .*missing"):
            Store.open(copy)


def test_the_index_survives_reading(folder):
    index = StoreIndex.read(folder)
    assert index.to_bytes() == (folder / "store.json").read_bytes()


def test_runs():
    present = np.array([1, 1, 0, 0, 1, 0, 1], bool)
    assert runs_of(present) == [[0, 2], [4, 5], [6, 7]] and runs_of(present[2:4]) == []
    assert np.array_equal(presence_of({"liver": runs_of(present)}, NINE, 7)[:, 4], present)
