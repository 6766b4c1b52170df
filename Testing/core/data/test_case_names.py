"""Names of cases become folders: none may lead out of the Store, hide, or mean something else elsewhere."""

from __future__ import annotations

import json
import shutil

import pytest
from small_datasets import write_case_folder, write_pair

from SegMateCore.data.case_names import LONGEST_BYTES, case_folder, unsuitable_name
from SegMateCore.data.datasets.finding import find_dataset
from SegMateCore.data.prepare import prepare
from SegMateCore.data.store import Store
from SegMateCore.data.store_writer import finished_row, write_case
from SegMateCore.errors import SegMateError

EVIL = (
    "../../victim", "sub-01/ct", ".hidden", ".", "..", "", "a\\b", "C:x", "NUL", "com1.nii", "a" * 256,
    "end.", " blank", "line\nbreak", "caf\udce9", "what?",
)  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_unsuitable_names(tmp_path, name):
    assert unsuitable_name(name)
    with pytest.raises(SegMateError, match="rename it"):
        case_folder(tmp_path, name)
    with pytest.raises(SegMateError, match="rename it"):
        write_case(tmp_path / "store", name, {}, ())
    assert finished_row(tmp_path, name, None) is None


@pytest.mark.parametrize(
    "name", ["s0001", "Patient_01", "sub-01 (2)", "Пациент_1", "a.b", "console", "x" * LONGEST_BYTES]
)
def test_suitable_names(tmp_path, name):
    assert unsuitable_name(name) is None and case_folder(tmp_path, name) == tmp_path / name


def test_a_list_of_cases_that_leads_out_of_the_store(tmp_path):
    """As nnU-Net's dataset.json may have it: the suitable cases are prepared, the others are named."""
    source, victim = tmp_path / "source", tmp_path / "victim"
    write_pair(source / "ct.nii.gz", source / "labels.nii.gz")
    files = {"images": ["ct.nii.gz"], "label": "labels.nii.gz"}
    document = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 5},
        "dataset": {name: files for name in (*EVIL, "ok")},
    }
    (source / "dataset.json").write_text(json.dumps(document))
    write_case_folder(victim)
    for _ in range(2):
        report = prepare(find_dataset("nnunet", source), tmp_path / "store")
        assert [*report.made, *report.kept] == ["ok"]
        assert sorted(name for name, _ in report.left_out) == sorted(EVIL)
        assert len(list(victim.iterdir())) == 3
        assert [path.name for path in (tmp_path / "store" / "cases").iterdir()] == ["ok"]
    store = Store.open(tmp_path / "store")
    assert [case.name for case in store.cases] == ["ok"] and len(store.left_out) == len(EVIL)


def test_two_cases_of_one_name_are_refused(tmp_path):
    for part in ("Tr", "Ts"):
        write_pair(tmp_path / f"images{part}/a_0000.nii.gz", tmp_path / f"labels{part}/a.nii.gz")
    document = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 5}}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(SegMateError, match="two cases are called a and a"):
        find_dataset("nnunet", tmp_path)
    for folder in ("imagesTs", "labelsTs"):
        shutil.rmtree(tmp_path / folder)
    assert len(find_dataset("nnunet", tmp_path).cases) == 1
