"""`segmate prepare` and `segmate store info`: exit codes, messages, signals, and the picture of a Store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from command import ROOT, segmate
from PIL import Image
from small_datasets import SHAPE, small_volume, write_case_folder, write_case_folders, write_masks

from SegMateCore.cli import main
from SegMateCore.data.contact_sheet import COLUMNS, draw_contact_sheet, evenly, shown_slice
from SegMateCore.data.store import Store

SLOW_PREPARE = """
import sys, time
if __name__ == "__main__":
    import SegMateCore.data.prepare as module
    original = module.prepare_case
    def slow(task):
        print("HERE", file=sys.stderr, flush=True)
        time.sleep({seconds})
        return original(task)
    module.prepare_case = slow
    from SegMateCore.cli import main
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def source(tmp_path):
    return write_case_folders(tmp_path / "source", 4)


def prepare(*words) -> int:
    """The command, in this process unless workers are asked for."""
    here = [] if "--workers" in words else ["--workers", "0"]
    return main(["prepare", *map(str, words), *here, "--quiet"])


class TestPrepare:
    def test_a_store_in_one_command(self, source, tmp_path, capsys):
        store = tmp_path / "store"
        words = ["folder", source, store, "--spacing", "4", "--ratio", "2", "1", "1", "--workers", "2"]
        assert prepare(*words) == 0
        assert capsys.readouterr().out == f"{store}: 4 prepared, 0 unchanged, 0 left out\n"
        assert prepare(*words) == 0
        assert "0 prepared, 4 unchanged" in capsys.readouterr().out
        assert Store.open(store).spacing_mm == (4.0, 4.0, 4.0)

    def test_from_phantoms(self, tmp_path, capsys):
        words = ["phantom", str(tmp_path / "torsos"), "--spacing", "10", "--quiet"]
        assert main(words) == 0
        assert prepare("folder", tmp_path / "torsos", tmp_path / "store", "--workers", "0") == 0
        (case,) = Store.open(tmp_path / "store").cases
        assert all(case.annotated) and all(case.voxels) and not case.warnings

    def test_broken_cases_are_named_and_the_exit_code_is_1(self, source, tmp_path, capsys):
        (source / "case_01" / "labels.nii.gz").unlink()
        assert prepare("folder", source, tmp_path / "store") == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("segmate: case_01 left out: no labels.nii.gz: complete the case")
        assert captured.err.count("\n") == 1 and "3 prepared, 0 unchanged, 1 left out" in captured.out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["folder", "{missing}", "{store}"], "not a folder"),
            (["verse", "{source}", "{store}"], "invalid choice"),
            (["folder", "{source}", "{store}", "--spacing", "1", "2"], "--spacing is 1 2"),
            (["folder", "{source}", "{store}", "--spacing", "coarse"], "--spacing is coarse"),
            (["folder", "{source}", "{store}", "--spacing", "0"], "from 0.1 to 20"),
            (["folder", "{source}", "{store}", "--organs", "gizzard"], "unknown organ 'gizzard'"),
            (["folder", "{source}", "{store}", "--split", "folds", "--ratio", "1", "1", "1"], "contradict"),
            (["folder", "{source}", "{store}", "--split", "published"], "no published split"),
            (["folder", "{source}", "{store}", "--folds", "9"], "9 folds of 4 patients"),
            (["folder", "{source}", "{store}", "--patients", "x"], "does not match"),
            (["folder", "{source}", "{store}", "--labels", "{missing}"], "cannot read the label table"),
            (["folder", "{source}", "{source}/store"], "in the data set itself"),
            (["folder", "{source}", "{store}", "--workers", "-1"], "-1 workers"),
        ],
    )
    def test_bad_input_is_one_line_and_leaves_nothing(self, source, tmp_path, capsys, words, message):
        places = {"missing": tmp_path / "missing", "source": source, "store": tmp_path / "store"}
        words = [word.format(**places) for word in words]
        assert prepare(*words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "store").exists() and not (source / "store").exists()

    def test_options_reach_the_store(self, tmp_path):
        for name in ("s0000", "s0001"):
            write_masks(tmp_path / "source" / name)
        store = tmp_path / "store"
        words = ["--organs", "liver,aorta", "--folds", "2", "--seed", "7", "--workers", "0"]
        assert prepare("totalsegmentator", tmp_path / "source", store, *words) == 0
        opened = Store.open(store)
        assert opened.organs.names == ("liver", "aorta") and opened.spacing_mm is None and opened.folds == 2
        assert opened.index.settings.split.seed == 7

    def test_a_really_full_disk(self, source, tmp_path):
        import resource

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

        words = ("prepare", "folder", source, tmp_path / "store", "--quiet", "--workers", "0")
        done = segmate(*words, preexec_fn=limit)
        assert done.returncode == 2 and done.stderr.startswith("segmate: cannot write")
        assert "the same command goes on from there" in done.stderr and done.stderr.count("\n") == 1
        assert not list((tmp_path / "store" / "cases").iterdir())
        assert segmate(*words).returncode == 0


class TestSignals:
    """The command in a process of its own that dawdles over each case."""

    def started(self, source, store, seconds: float, workers: int = 0) -> subprocess.Popen:
        words = ["prepare", "folder", str(source), str(store), "--workers", str(workers)]
        code = SLOW_PREPARE.format(seconds=seconds)
        return subprocess.Popen(
            [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    def wait_for(self, process, times: int) -> None:
        for line in process.stderr:
            times -= line.startswith("HERE")
            if times == 0:
                return

    def test_ctrl_c_finishes_the_case_and_the_next_run_goes_on(self, source, tmp_path):
        process = self.started(source, tmp_path / "store", 0.5)
        self.wait_for(process, 2)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and "Traceback" not in error and "HERE" not in error
        assert "stopping after the cases at work" in error and "goes on from there" in error
        store = Store.open(tmp_path / "store")
        assert len(store.cases) == 2 and not store.is_complete
        assert prepare("folder", source, tmp_path / "store") == 0
        assert len(Store.open(tmp_path / "store").cases) == 4

    def test_killed_it_goes_on_too(self, source, tmp_path):
        process = self.started(source, tmp_path / "store", 0.5)
        self.wait_for(process, 3)
        process.kill()
        process.communicate()
        assert not Store.open(tmp_path / "store").is_complete
        assert prepare("folder", source, tmp_path / "store") == 0
        assert prepare("folder", source, tmp_path / "straight") == 0
        both = [(tmp_path / name / "store.json").read_bytes() for name in ("store", "straight")]
        assert both[0] == both[1]

    def test_processes_end_with_their_parent(self, tmp_path):
        """Killed, it cannot tell its workers: they notice by themselves."""
        code = (
            "import time\nfrom SegMateCore.data.workers import run_all\n"
            "if __name__ == '__main__':\n    list(run_all(time.sleep, [60, 60], workers=2))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        children = []
        deadline = time.monotonic() + 60
        while len(children) < 3 and time.monotonic() < deadline:  # two workers and a resource tracker
            time.sleep(0.2)
            children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(2)
        process.kill()
        process.wait()
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert not alive


class TestStoreInfo:
    @pytest.fixture
    def store(self, source, tmp_path, capsys):
        write_case_folder(source / "case_04", 4, annotated=["liver"])
        write_case_folder(source / "case_05", 5, annotated=[])
        assert prepare("folder", source, tmp_path / "store", "--ratio", "3", "1", "1") == 1
        capsys.readouterr()
        return tmp_path / "store"

    def test_text(self, store, capsys):
        assert main(["store", "info", str(store), "--check"]) == 0
        captured = capsys.readouterr()
        rows = {line[:12].strip(): line.split() for line in captured.out.splitlines()}
        assert "5 cases of 5 patients, 50 slices" in captured.out and "3 train, 1 val, 1 test" in captured.out
        # 80 voxels of 2 x 2 x 3 mm on 5 of 10 slices of each case.
        assert rows["liver"][-5:] == ["5", "5", "25", "50.0", "1.0"]
        assert rows["aorta"][-5:] == ["4", "4", "20", "50.0", "1.0"]
        assert "case_05: " in captured.out and "nothing can be learnt" in captured.out
        assert captured.err == "every file is as it was written\n"

    def test_json(self, store, capsys):
        assert main(["store", "info", str(store), str(store), "--json"]) == 0
        first, second = json.loads(capsys.readouterr().out)
        assert first == second and first["cases"] == 5 and first["parts"] == {"train": 3, "val": 1, "test": 1}
        on_disk = sum(path.stat().st_size for path in store.rglob("*.b2nd"))
        assert sum(first["bytes"].values()) == on_disk
        assert first["organs"][4] == {
            "organ": "liver", "annotated": 5, "present": 5, "slices": 25, "slice_share": 0.5,
            "median_ml": 1.0,
        }  # fmt: skip

    def test_a_flipped_bit_is_found(self, store, capsys):
        path = store / "cases" / "case_01" / "hu.b2nd"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert main(["store", "info", str(store)]) == 0
        assert main(["store", "info", str(store), "--check"]) == 1
        assert "case_01/hu.b2nd is damaged" in capsys.readouterr().err

    def test_one_ct_under_two_names(self, store, source, capsys):
        write_case_folder(source / "case_09", 0)
        assert prepare("folder", source, store, "--ratio", "3", "1", "1") == 1
        assert main(["store", "info", str(store)]) == 0
        assert "the same CT: case_00 (" in capsys.readouterr().out

    def test_sheet(self, store, tmp_path, capsys):
        path = tmp_path / "sheet.png"
        assert main(["store", "info", str(store), "--sheet", str(path)]) == 0
        assert f"wrote {path}: 5 of 5 cases" in capsys.readouterr().err
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        for rgb in ((221, 130, 101), (224, 97, 76)):  # outlines of liver and aorta
            assert (np.abs(picture - rgb).max(axis=2) < 3).sum() > 40

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["{missing}"], "not a Store"),
            (["{store}", "--sheet", "a.jpg"], "ending in .png"),
            (["{store}", "{store}", "--sheet", "a.png"], "one Store"),
            (["{store}", "--sheet", "a.png", "--most", "0"], "--most is 0"),
        ],
    )
    def test_bad_input(self, store, tmp_path, capsys, words, message):
        words = [word.format(store=store, missing=tmp_path / "missing") for word in words]
        assert main(["store", "info", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


class TestSheet:
    def test_the_patients_left_is_on_the_right(self, tmp_path):
        """One organ of one voxel column: it must appear where a radiologist expects it."""
        place = tmp_path / "source" / "case"
        write_case_folder(place, annotated=["liver"])
        labels = np.zeros(SHAPE, np.uint8)
        labels[4:7, 4:8, 24:29] = 5  # high i is the patient's left, low j the front
        small_volume().with_voxels(labels).write(place / "labels.nii.gz")
        assert prepare("folder", tmp_path / "source", tmp_path / "store") == 0
        store = Store.open(tmp_path / "store")
        assert shown_slice(store.cases[0]) == 5
        assert draw_contact_sheet(store, tmp_path / "sheet.png") == 1
        picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
        tile = picture[56:240, 20:250]
        rows, columns = np.nonzero(np.abs(tile - (221, 130, 101)).max(axis=2) < 3)
        assert columns.min() > 115 + 50 and rows.max() < 92

    def test_of_many_cases_evenly_spread_ones(self):
        assert evenly(range(5), 9) == [0, 1, 2, 3, 4] and evenly(range(101), 3) == [0, 50, 100]
        assert COLUMNS > 1
