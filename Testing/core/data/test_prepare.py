"""Preparing: every published layout gives the phantoms' truth; repeated, resumed, stopped, on bad input."""

from __future__ import annotations

import errno
import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_grids import STORAGES, stored_as
from small_datasets import (
    block_labels,
    small_volume,
    write_case_folder,
    write_case_folders,
    write_masks,
    write_pair,
)

from SegMateCore.data import layouts
from SegMateCore.data.datasets.finding import find_dataset
from SegMateCore.data.datasets.references import Reading
from SegMateCore.data.phantom import make_phantom
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.splits import SplitRule
from SegMateCore.data.store import Store
from SegMateCore.data.store_lock import only_here
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.organs import NINE
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.rectify import rectified
from SegMateCore.volume import Volume


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, 8.0) for seed in (3, 4)]


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every file."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestLayouts:
    WRITERS = {
        "totalsegmentator": layouts.write_totalsegmentator,
        "segthor": layouts.write_segthor,
        "amos22": layouts.write_amos22,
        "nnunet": layouts.write_nnunet,
        "decathlon": layouts.write_decathlon,
    }
    ANNOTATED = {
        "segthor": {"esophagus", "aorta", "trachea"},
        "amos22": {"esophagus", "liver", "left kidney", "right kidney", "aorta"},
    }

    @pytest.mark.parametrize("kind", WRITERS)
    def test_the_store_holds_the_phantoms_truth(self, tmp_path, phantoms, kind):
        self.WRITERS[kind](tmp_path / "source", phantoms)
        kind = kind.replace("decathlon", "nnunet")
        report = prepare(find_dataset(kind, tmp_path / "source"), tmp_path / "store")
        assert len(report.made) == 2 and not report.left_out
        known = self.ANNOTATED.get(kind, set(NINE.names))
        store = Store.open(tmp_path / "store")
        for case, phantom in zip(store.cases, phantoms):
            assert {o.name for o, annotated in zip(NINE, case.annotated) if annotated} == known
            truth = phantom.volume.with_voxels(phantom.labels).canonical().voxels
            kept = np.where(np.isin(truth, [NINE.by_name(name).label for name in known]), truth, 0)
            assert np.array_equal(case.labels(0, case.shape[0]), kept)
            hu = np.clip(phantom.volume.canonical().voxels, -1024, 3071)
            assert np.array_equal(case.hu(0, case.shape[0]), hu)

    def test_the_heart_of_segthor(self, tmp_path, phantoms):
        from SegMateCore.data.datasets.organ_names import chosen_organs

        layouts.write_segthor(tmp_path / "source", phantoms[:1])
        organs = chosen_organs("heart,aorta")
        prepare(find_dataset("segthor", tmp_path / "source", organs), tmp_path / "store")
        (case,) = Store.open(tmp_path / "store").cases
        heart = phantoms[0].volume.with_voxels(layouts.heart_mask(phantoms[0]).astype(np.uint8))
        assert Store.open(tmp_path / "store").organs == organs
        assert np.array_equal(case.labels(0, case.shape[0]) == 2, heart.canonical().voxels == 1)


class TestGrids:
    @given(storage=st.sampled_from(STORAGES), labels_storage=st.sampled_from(STORAGES))
    @settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_the_way_of_storing_changes_no_byte(self, tmp_path_factory, storage, labels_storage):
        """The same anatomy with its axes in any order and direction, labels differently from the CT."""
        volume = small_volume(affine=np.diag([2.0, 2.5, 3.0, 1.0]))
        labels = volume.with_voxels(block_labels())
        files = []
        for how, labels_how in ((STORAGES[0], STORAGES[0]), (storage, labels_storage)):
            folder = tmp_path_factory.mktemp("any")
            write_case_folder(folder / "source" / "case")
            stored_as(volume, *how).write(folder / "source" / "case" / "ct.nii.gz")
            stored_as(labels, *labels_how).write(folder / "source" / "case" / "labels.nii.gz")
            options = PrepareOptions((3, 3, 4))
            prepare(find_dataset("folder", folder / "source"), folder / "store", options)
            place = folder / "store" / "cases" / "case"
            files.append([(place / name).read_bytes() for name in ("hu.b2nd", "labels.b2nd")])
            (case,) = Store.open(folder / "store").cases
            assert np.array_equal(case.original()[1].labels, stored_as(labels, *how).voxels)
        assert files[0] == files[1]

    def test_the_spacing_is_that_of_predict(self, tmp_path):
        write_case_folders(tmp_path / "source", 1)
        options = PrepareOptions((4, 4, 3))
        prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "store", options)
        store = Store.open(tmp_path / "store")
        (case,) = store.cases
        preprocessing = Preprocessing((4.0, 4.0, 3.0), (-1000, 400), (0, 1))
        canonical = small_volume(0).canonical()
        grid = preprocessing.working_grid(canonical)
        assert store.spacing_mm == (4.0, 4.0, 3.0) and case.shape == grid.shape == (10, 12, 15)
        assert np.array_equal(case.geometry.affine, grid.affine)
        hu = np.rint(np.clip(preprocessing.working_hu(canonical, grid), -1024, 3071))
        assert np.array_equal(case.hu(0, 10), hu)
        assert case.geometry.voxel_ml == pytest.approx(0.048)
        # Where a block of 4 x 4 voxels lies on the coarser grid, it has a quarter of the voxels there.
        assert case.voxels[0] == case.voxels[2] == case.voxels[4] == 20

    def test_a_tilted_ct_is_rectified_with_its_labels(self, tmp_path):
        sheared = small_volume().affine.copy()
        sheared[1, 2] = 1.0
        volume = Volume(small_volume().voxels, sheared)
        place = tmp_path / "source" / "tilted"
        write_case_folder(place)
        volume.write(place / "ct.nii.gz")
        volume.with_voxels(block_labels()).write(place / "labels.nii.gz")
        prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "store")
        (case,) = Store.open(tmp_path / "store").cases
        straight = rectified(volume.canonical())
        assert case.shape == straight.shape and np.array_equal(case.hu(0, case.shape[0]), straight.voxels)
        # A nearest-neighbour copy: amounts stay about the same, and the labels move with the voxels.
        amounts_ml = np.array(case.voxels) * case.geometry.voxel_ml
        assert np.allclose(amounts_ml, 80 * volume.voxel_ml, rtol=0.2)
        assert np.array_equal(case.original()[1].labels, block_labels())


class TestRepeating:
    def options(self) -> PrepareOptions:
        return PrepareOptions((4, 4, 3), SplitRule(shares=(2, 1, 1)))

    def test_twice_changes_nothing(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 4)
        first = prepare(find_dataset("folder", source), tmp_path / "store", self.options())
        before = everything(tmp_path / "store")
        again = prepare(find_dataset("folder", source), tmp_path / "store", self.options())
        assert len(first.made) == 4 and len(again.kept) == 4 and not again.made
        assert everything(tmp_path / "store") == before

    def test_processes_give_the_same_bytes(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 4)
        prepare(find_dataset("folder", source), tmp_path / "a", self.options())
        prepare(find_dataset("folder", source), tmp_path / "b", self.options(), workers=2)
        first, second = everything(tmp_path / "a"), everything(tmp_path / "b")
        assert {name: content for name, (_, content) in first.items()} == {
            name: content for name, (_, content) in second.items()
        }

    def test_only_what_changed_is_made_anew(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 4)
        prepare(find_dataset("folder", source), tmp_path / "store", self.options())
        parts = {case.patient: case.split for case in Store.open(tmp_path / "store").cases}
        write_case_folder(source / "case_01", 77)
        write_case_folder(source / "case_02", 2, annotated=["liver"])
        write_case_folder(source / "case_04", 4)
        report = prepare(find_dataset("folder", source), tmp_path / "store", self.options())
        assert report.made == ["case_01", "case_02", "case_04"] and report.kept == ["case_00", "case_03"]
        store = Store.open(tmp_path / "store")
        assert len(store.cases) == 5 and sum(store.cases[2].annotated) == 1
        assert all(case.split == parts[case.name] for case in store.cases if case.name in parts)

    def test_the_source_may_move_and_lose_cases(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 3)
        prepare(find_dataset("folder", source), tmp_path / "store", self.options())
        moved = source.rename(tmp_path / "moved")
        shutil.rmtree(moved / "case_01")
        report = prepare(find_dataset("folder", moved), tmp_path / "store", self.options())
        store = Store.open(tmp_path / "store")
        assert len(report.kept) == 2 and len(store.cases) == 3 and report.gone == ["case_01"]
        assert all(case.source_folder == moved for case in store.cases)

    def test_other_settings_are_refused(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 3)
        dataset, options = find_dataset("folder", source), self.options()
        prepare(dataset, tmp_path / "store", options)
        before = everything(tmp_path / "store")
        changes = {
            "spacing_mm.*now native": (dataset, replace(options, spacing_mm=None)),
            "split.*seed 42; now.*seed 1": (
                dataset,
                replace(options, split=SplitRule(shares=(2, 1, 1), seed=1)),
            ),
            "organs.*now liver": (find_dataset("folder", source, NINE.only([4])), options),
            "patient_pattern": (dataset.grouped_by("case"), options),
            "overlaps: refuse; now first": (dataset, replace(options, reading=Reading("first"))),
            "affine: none; now qform": (dataset, replace(options, reading=Reading(affine_source="qform"))),
            "keep_empty: False; now True": (dataset, replace(options, keep_empty=True)),
            "force: False; now True": (dataset, replace(options, force=True)),
        }
        for words, (other_dataset, other_options) in changes.items():
            with pytest.raises(SegMateError, match=words):
                prepare(other_dataset, tmp_path / "store", other_options)
        assert everything(tmp_path / "store") == before

    def test_places_that_are_no_store(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 1)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("mine")
        for place, words in (
            ("full", "not empty"),
            ("source/store", "data set itself"),
            ("full/thesis.txt", "a file"),
        ):
            with pytest.raises(SegMateError, match=words):
                prepare(find_dataset("folder", source), tmp_path / place)

    def test_scans_of_a_patient_stay_together(self, tmp_path):
        for patient in range(6):
            for scan in range(3):
                write_case_folder(tmp_path / "source" / f"p{patient}_{scan}", annotated=["liver"])
        dataset = find_dataset("folder", tmp_path / "source").grouped_by(r"(p\d)_")
        prepare(dataset, tmp_path / "store", PrepareOptions(split=SplitRule(shares=(4, 1, 1))))
        store = Store.open(tmp_path / "store")
        patients = [{case.patient for case in store.split(part)} for part in ("train", "val", "test")]
        assert [len(names) for names in patients] == [4, 1, 1] and len(set.union(*patients)) == 6


class TestStopping:
    def test_cancelled_keeps_what_is_finished(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 4)
        done = []
        with pytest.raises(Cancelled):
            prepare(
                find_dataset("folder", source), tmp_path / "store",
                progress=lambda stage, number, total: done.append((stage, number, total)),
                cancelled=lambda: len(done) > 2,
            )  # fmt: skip
        assert done == [("prepare", 0, 4), ("prepare", 1, 4), ("prepare", 2, 4)]
        store = Store.open(tmp_path / "store")
        assert [case.name for case in store.cases] == ["case_00", "case_01"] and not store.is_complete
        report = prepare(find_dataset("folder", source), tmp_path / "store")
        assert report.kept == ["case_00", "case_01"] and Store.open(tmp_path / "store").is_complete
        prepare(find_dataset("folder", source), tmp_path / "straight")
        assert (tmp_path / "store/store.json").read_bytes() == (tmp_path / "straight/store.json").read_bytes()

    def test_a_full_disk_in_the_middle(self, tmp_path, monkeypatch):
        source = write_case_folders(tmp_path / "source", 4)
        write = Path.write_bytes
        full = []

        def write_until_full(path: Path, content: bytes) -> int:
            if "case_02" in path.as_posix() and path.name == "labels.b2nd":
                full.append(path)
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", write_until_full)
            with pytest.raises(
                SegMateError, match=r"cannot write .*case_02: No space left.*goes on from there"
            ):
                prepare(find_dataset("folder", source), tmp_path / "store")
        assert len(full) == 1
        assert [case.name for case in Store.open(tmp_path / "store").cases] == ["case_00", "case_01"]
        assert sorted(path.name for path in (tmp_path / "store/cases").iterdir()) == ["case_00", "case_01"]
        assert prepare(find_dataset("folder", source), tmp_path / "store").made == ["case_02", "case_03"]

    def test_a_second_preparation_waits_its_turn(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 2)
        with only_here(tmp_path / "store"):
            with pytest.raises(SegMateError, match="being prepared by another process"):
                prepare(find_dataset("folder", source), tmp_path / "store")
        assert len(prepare(find_dataset("folder", source), tmp_path / "store").made) == 2

    def test_leftovers_of_a_killed_run_are_removed(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 2)
        leftover = tmp_path / "store" / "cases" / ".case_01.0123456789ab.partial"
        prepare(find_dataset("folder", source), tmp_path / "store")
        leftover.mkdir()
        (leftover / "hu.b2nd").write_bytes(b"half")
        shutil.rmtree(tmp_path / "store" / "cases" / "case_01")
        with pytest.raises(SegMateError, match="case_01"):
            Store.open(tmp_path / "store")
        assert prepare(find_dataset("folder", source), tmp_path / "store").made == ["case_01"]
        assert not leftover.exists() and len(Store.open(tmp_path / "store").cases) == 2

    def test_a_cut_file_is_mended(self, tmp_path):
        source = write_case_folders(tmp_path / "source", 2)
        prepare(find_dataset("folder", source), tmp_path / "store")
        path = tmp_path / "store/cases/case_01/hu.b2nd"
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        assert prepare(find_dataset("folder", source), tmp_path / "store").made == ["case_01"]
        assert path.read_bytes() == whole


class TestBrokenCases:
    """Each is left out with its reason; the others are prepared."""

    @pytest.fixture
    def source(self, tmp_path):
        return write_case_folders(tmp_path / "source", 2)

    def left_out(self, source, tmp_path, **options) -> str:
        report = prepare(find_dataset("folder", source), tmp_path / "store", PrepareOptions(**options))
        assert report.made == ["case_00", "case_01"]
        store = Store.open(tmp_path / "store")
        assert [case.name for case in store.cases] == report.made and store.is_complete
        assert list(store.left_out) == report.left_out
        ((name, reason),) = report.left_out
        assert name == "odd" and "\n" not in reason
        return reason

    def test_labels_on_another_grid(self, source, tmp_path):
        write_case_folder(source / "odd")
        Volume(block_labels(), np.diag([-2, -2, 2.5, 1])).write(source / "odd" / "labels.nii.gz")
        assert "another grid than its CT" in self.left_out(source, tmp_path)

    def test_missing_labels(self, source, tmp_path):
        write_case_folder(source / "odd")
        (source / "odd" / "labels.nii.gz").unlink()
        assert "no labels.nii.gz" in self.left_out(source, tmp_path)

    def test_a_damaged_ct(self, source, tmp_path):
        write_case_folder(source / "odd")
        path = source / "odd" / "ct.nii.gz"
        path.write_bytes(path.read_bytes()[:3000])
        assert "ct.nii.gz" in self.left_out(source, tmp_path)

    def test_no_ct_at_all(self, source, tmp_path):
        write_case_folder(source / "odd")
        small_volume().with_voxels(block_labels()).write(source / "odd" / "ct.nii.gz")
        assert "normalised" in self.left_out(source, tmp_path)

    def test_an_empty_label_map_unless_it_is_meant(self, source, tmp_path):
        write_pair(source / "odd/ct.nii.gz", source / "odd/labels.nii.gz", 5, block_labels() * 0)
        shutil.copy(source / "case_00/organs.json", source / "odd")
        assert "--keep-empty" in self.left_out(source, tmp_path)
        dataset = find_dataset("folder", source)
        prepare(dataset, tmp_path / "with", PrepareOptions(keep_empty=True))
        case = Store.open(tmp_path / "with").cases[2]
        assert not any(case.voxels) and not case.presence.any() and all(case.annotated)

    def test_a_case_that_breaks_later_stays_as_it_was(self, source, tmp_path):
        prepare(find_dataset("folder", source), tmp_path / "store")
        (source / "case_01" / "ct.nii.gz").write_bytes(b"broken")
        report = prepare(find_dataset("folder", source), tmp_path / "store")
        ((name, reason),) = report.left_out
        assert report.kept == ["case_00"] and name == "case_01" and reason.endswith("it stays in the Store")
        store = Store.open(tmp_path / "store")
        assert len(store.cases) == 2 and store.left_out == () and list(store.stale) == report.left_out

    def test_overlapping_masks(self, tmp_path):
        write_masks(tmp_path / "source" / "s0000")
        write_masks(tmp_path / "source" / "s0001", 1)
        segmentations = tmp_path / "source" / "s0001" / "segmentations"
        shutil.copy(segmentations / "liver.nii.gz", segmentations / "aorta.nii.gz")
        dataset = find_dataset("totalsegmentator", tmp_path / "source")
        report = prepare(dataset, tmp_path / "store")
        assert report.made == ["s0000"] and "both liver and aorta" in report.left_out[0][1]
        report = prepare(dataset, tmp_path / "first", PrepareOptions(reading=Reading("first")))
        assert report.made == ["s0000", "s0001"] and Store.open(tmp_path / "first").left_out == ()

    def test_two_geometries_in_one_header(self, source, tmp_path):
        import nibabel

        write_case_folder(source / "odd")
        for path in (source / "odd" / "ct.nii.gz", source / "odd" / "labels.nii.gz"):
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
            elsewhere = image.affine.copy()
            elsewhere[2, 3] += 9
            image.set_sform(elsewhere, 1)
            nibabel.save(image, path)
        assert "--affine" in self.left_out(source, tmp_path)
        options = PrepareOptions(reading=Reading(affine_source="qform"), split=SplitRule(shares=(1, 0, 0)))
        prepare(find_dataset("folder", source), tmp_path / "chosen", options)
        case = Store.open(tmp_path / "chosen").cases[2]
        assert not case.keeps_original and np.allclose(case.original()[0].affine, small_volume().affine)

    def test_mirrored_anatomy_is_noted_and_kept(self, tmp_path):
        place = tmp_path / "source" / "case"
        write_case_folder(place, annotated=["left kidney", "right kidney"])
        labels = np.zeros((10, 24, 30), np.uint8)
        labels[2:8, 5:9, 5:9], labels[2:8, 5:9, 20:24] = 6, 7  # low i is the patient's right
        small_volume().with_voxels(labels).write(place / "labels.nii.gz")
        prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "store")
        (case,) = Store.open(tmp_path / "store").cases
        assert "left kidney lies on the right" in case.warnings[0]


@pytest.mark.parametrize("wrong", [{"spacing_mm": (0, 1, 1)}, {"spacing_mm": (1, 1)}])
def test_impossible_options(wrong):
    with pytest.raises(SegMateError, match="expected"):
        PrepareOptions(**wrong)
    for reading in ({"overlaps": "last"}, {"affine_source": "both"}):
        with pytest.raises(SegMateError, match="expected one of"):
            Reading(**reading)
