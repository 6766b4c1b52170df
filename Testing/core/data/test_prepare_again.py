"""A Store that is prepared a second time: killed, with other labels, without cases that the source has no
more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import ROOT
from small_datasets import small_volume, write_case_folder, write_case_folders, write_pair

from SegMateCore.cli import main
from SegMateCore.data import store_lock, store_writer
from SegMateCore.data.datasets.finding import find_dataset
from SegMateCore.data.datasets.label_table import LabelTable
from SegMateCore.data.prepare import PrepareOptions, prepare
from SegMateCore.data.store import Store
from SegMateCore.data.store_writer import StoreWriteError, write_case
from SegMateCore.errors import Cancelled, SegMateError

KILLED_AFTER_ONE_CASE = """
import os, sys
from pathlib import Path
import SegMateCore.data.prepare as module
from SegMateCore.data.datasets.finding import find_dataset
original = module.prepare_case
def fatal(task):
    original(task)
    if task.case.name == "case_00":
        os.kill(os.getpid(), 9)
    return original(task)
module.prepare_case = fatal
module.prepare(find_dataset("folder", Path(sys.argv[1])), sys.argv[2])
"""


@pytest.fixture
def source(tmp_path):
    return write_case_folders(tmp_path / "source", 3)


def shown(case) -> np.ndarray:
    """Presence bool (K, C) as the labels on disk have it."""
    labels = case.labels(0, case.shape[0])
    return np.stack([(labels == c + 1).any(axis=(1, 2)) for c in range(len(case.organs))], axis=1)


class TestKilled:
    def test_while_a_finished_store_is_made_anew(self, source, tmp_path):
        store = tmp_path / "store"
        prepare(find_dataset("folder", source), store)
        write_case_folder(source / "case_00", 0, annotated=["liver"])
        moved = np.zeros((10, 24, 30), np.uint8)
        moved[7:10, 4:8, 4:8] = 5
        small_volume(0).with_voxels(moved).write(source / "case_00" / "labels.nii.gz")
        done = subprocess.run([sys.executable, "-c", KILLED_AFTER_ONE_CASE, source, store], cwd=ROOT)
        assert done.returncode == -9
        opened = Store.open(store)
        assert not opened.is_complete and [case.name for case in opened.cases] == ["case_01", "case_02"]
        assert prepare(find_dataset("folder", source), store).kept == ["case_00", "case_01", "case_02"]
        prepare(find_dataset("folder", source), tmp_path / "straight")
        both = [(tmp_path / name / "store.json").read_bytes() for name in ("store", "straight")]
        assert both[0] == both[1]
        for case in Store.open(store).cases:
            assert np.array_equal(case.presence, shown(case))

    def test_while_the_first_index_was_written(self, source, tmp_path):
        store = tmp_path / "store"
        store.mkdir()
        leftover = store / ".store.abcdef012345.partial.json"
        leftover.write_text('{"segm')
        assert len(prepare(find_dataset("folder", source), store).made) == 3 and not leftover.exists()
        leftover.write_text('{"segm')
        assert len(prepare(find_dataset("folder", source), store).kept) == 3 and not leftover.exists()

    def test_a_case_without_its_files_leaves_the_index_alone(self, source, tmp_path):
        prepare(find_dataset("folder", source), tmp_path / "store")
        (source / "case_01" / "labels.nii.gz").unlink()
        prepare(find_dataset("folder", source), tmp_path / "store")
        before = (tmp_path / "store" / "store.json").stat()
        prepare(find_dataset("folder", source), tmp_path / "store")
        after = (tmp_path / "store" / "store.json").stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)

    def test_a_stop_before_anything_is_made_changes_nothing(self, source, tmp_path):
        store = tmp_path / "store"
        prepare(find_dataset("folder", source), store)
        write_case_folder(source / "case_02", 9)
        with pytest.raises(Cancelled):
            prepare(find_dataset("folder", source), store, cancelled=lambda: True)
        assert Store.open(store).is_complete


class TestReplacing:
    """A case is replaced in one step; where that is not to be, the earlier one stays."""

    def test_the_earlier_case_comes_back_when_the_new_one_cannot_take_its_place(self, tmp_path, monkeypatch):
        write_case(tmp_path, "a", {"name": "a"}, [("x", b"old")])
        replace = os.replace

        def failing(here, there):
            if Path(there).name == "a" and "earlier" not in Path(here).name:
                raise OSError(5, "Input/output error")
            replace(here, there)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(StoreWriteError, match="Input/output error"):
            write_case(tmp_path, "a", {"name": "a"}, [("x", b"new")])
        assert (tmp_path / "cases" / "a" / "x").read_bytes() == b"old"
        assert len(list((tmp_path / "cases").iterdir())) == 1

    def test_a_folder_in_use_stays_whole(self, tmp_path, monkeypatch):
        write_case(tmp_path, "a", {"name": "a"}, [("x", b"old"), ("y", b"old")])

        def in_use(here, there):
            raise PermissionError(13, "in use by another process")

        monkeypatch.setattr(store_writer.os, "replace", in_use)
        with pytest.raises(StoreWriteError, match="in use"):
            write_case(tmp_path, "a", {"name": "a"}, [("x", b"new"), ("y", b"new")])
        assert sorted(path.name for path in (tmp_path / "cases" / "a").iterdir()) == ["case.json", "x", "y"]


class TestOtherLabels:
    def test_another_label_table_is_refused(self, tmp_path):
        source = tmp_path / "source"
        write_pair(source / "scans" / "a.nii.gz", source / "masks" / "a.nii.gz")
        files = '[files]\nct = "scans/{case}.nii.gz"\nlabels = "masks/{case}.nii.gz"\n[labels]\n'
        tables = []
        for number, text in enumerate(("liver = 5", "aorta = 8", "liver = [5, 6]")):
            path = tmp_path / f"{number}.toml"
            path.write_text(files + text)
            tables.append(LabelTable.read(path))
        prepare(find_dataset("folder", source, table=tables[0]), tmp_path / "store")
        for table, words in ((tables[1], "now aorta 8"), (tables[2], r"now liver 5\+6")):
            with pytest.raises(SegMateError, match=rf"labels: liver 5; {words}.*repeat the former options"):
                prepare(find_dataset("folder", source, table=table), tmp_path / "store")
        assert prepare(find_dataset("folder", source, table=tables[0]), tmp_path / "store").kept == ["a"]


class TestGone:
    def test_cases_that_the_source_has_no_more_stay_until_pruned(self, source, tmp_path, capsys):
        store = tmp_path / "store"
        words = ["prepare", "folder", str(source), str(store), "--workers", "0", "--quiet"]
        assert main(words) == 0
        parts = {case.patient: case.split for case in Store.open(store).cases}
        shutil.rmtree(source / "case_01")
        capsys.readouterr()
        assert main(words) == 0
        assert "1 cases stay that the source has no more (case_01): see --prune" in capsys.readouterr().err
        opened = Store.open(store)
        assert len(opened.cases) == 3 and opened.is_complete
        assert opened.stale == (("case_01", "no longer in the data set; --prune removes it"),)
        assert main(["store", "info", str(store)]) == 0
        assert "as prepared earlier: case_01: no longer in the data set" in capsys.readouterr().out
        assert main([*words, "--prune"]) == 0
        captured = capsys.readouterr()
        assert "2 unchanged, 0 left out, 1 removed" in captured.out and "stay" not in captured.err
        opened = Store.open(store)
        assert [case.name for case in opened.cases] == ["case_00", "case_02"] and opened.stale == ()
        assert opened.is_complete and not (store / "cases" / "case_01").exists()
        write_case_folder(source / "case_01", 1)
        assert main(words) == 0
        assert {case.patient: case.split for case in Store.open(store).cases} == parts

    def test_a_broken_case_is_not_pruned(self, source, tmp_path):
        prepare(find_dataset("folder", source), tmp_path / "store")
        (source / "case_01" / "ct.nii.gz").write_bytes(b"broken")
        report = prepare(find_dataset("folder", source), tmp_path / "store", prune=True)
        assert report.pruned == [] and len(Store.open(tmp_path / "store").cases) == 3


class TestSurroundings:
    def test_a_file_system_without_locks_is_told_of(self, source, tmp_path, monkeypatch, capsys):
        def no_locks(stream):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(store_lock, "_lock", no_locks)
        words = ["prepare", "folder", str(source), str(tmp_path / "store"), "--workers", "0", "--quiet"]
        assert main(words) == 0
        assert "without locks" in capsys.readouterr().err

    def test_an_organ_that_the_working_grid_cannot_show_is_told_of(self, tmp_path):
        place = tmp_path / "source" / "case"
        write_case_folder(place, annotated=["liver", "aorta"])
        labels = np.zeros((10, 24, 30), np.uint8)
        labels[2:8, 5:15, 5:15], labels[2:8, 20, 20] = 5, 8
        small_volume().with_voxels(labels).write(place / "labels.nii.gz")
        prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "store", PrepareOptions((6, 6, 6)))
        (case,) = Store.open(tmp_path / "store").cases
        assert case.warnings == ("aorta: 6 voxels on the CT's own grid, none at this spacing",)
        prepare(find_dataset("folder", tmp_path / "source"), tmp_path / "native")
        assert Store.open(tmp_path / "native").cases[0].warnings == ()

    def test_names_that_the_terminal_cannot_show(self, tmp_path):
        write_case_folder(tmp_path / "source" / "Пациент_1")
        write_case_folder(tmp_path / "source" / "Пациент_2")
        (tmp_path / "source" / "Пациент_2" / "ct.nii.gz").write_bytes(b"broken")
        environment = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
        store = tmp_path / "Склад"

        def run(*words) -> subprocess.CompletedProcess:
            command = [sys.executable, "-m", "SegMateCore", *words]
            return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)

        done = run("prepare", "folder", tmp_path / "source", store, "--workers", "0")
        assert done.returncode == 1 and "1 prepared" in done.stdout and "Traceback" not in done.stderr
        done = run("store", "info", store)
        assert done.returncode == 0 and "left out: \\u041f" in done.stdout
