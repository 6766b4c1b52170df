"""Lists of cases: what a row means, and that every wrong one is refused with its line."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from SegMateCore.case_manifest import read_manifest
from SegMateCore.errors import SegMateError
from SegMateCore.input_cases import Case, find_cases, is_one_case


@pytest.fixture
def listed(tmp_path):
    """A list with the text that is given."""
    def write(text: str, encoding="utf-8"):
        path = tmp_path / "list.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_every_column(listed, tmp_path):
    path = listed(
        "name,path,series,affine\n"
        "p1/first,a.nii.gz,,sform\n"
        '"p1/second, late",/data/dicom,1.2.3,\n'
        ",sub/ct.nii.gz,,\n"
        "\n"
        ",b.nrrd,,\n"
    )
    assert read_manifest(path) == [
        Case("p1/first", tmp_path / "a.nii.gz", None, "sform"),
        Case("p1/second, late", tmp_path / "/data/dicom", "1.2.3", None),
        Case("sub", tmp_path / "sub" / "ct.nii.gz"),
        Case("b", tmp_path / "b.nrrd"),
    ]
    assert find_cases(path) == read_manifest(path) and not is_one_case(path)


def test_a_spreadsheet_s_mark_is_no_part_of_the_first_column(listed):
    assert [case.name for case in read_manifest(listed("path,name\r\nx.nii,a\r\n", "utf-8-sig"))] == ["a"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected path"),
        ("name\na\n", "expected path"),
        ("path,serie\na.nii,1\n", "'serie'"),
        ("path,path\na,b\n", "each once"),
        ("path,name\n", "lists no case"),
        ("path,name\na.nii\n", "line 2: not as many values"),
        ("path,name\na.nii,a,b\n", "line 2: not as many values"),
        ("path,name\n,a\n", "line 2: no path"),
        ("path,affine\na.nii,\nb.nii,both\n", "line 3: affine is 'both'"),
        ("path,name\na.nii,x\nb.nii,X\n", "would both be the case"),
        ('path,name\n"a.nii,x\n', "cannot read the list"),
        ("path,name\nä.nii,x\n".encode("latin-1"), "expected CSV in UTF-8"),
        *((f"path,name\na.nii,{name}\n", "cannot be that of results") for name in (
            "../a", "a/../b", "/a", "a/", "a//b", ".a", "a/.b", "a\\b", "C:a", "a\tb", "a\0b",
        )),
    ],
)  # fmt: skip
def test_refused(listed, tmp_path, text, words):
    path = listed(text) if isinstance(text, str) else tmp_path / "list.csv"
    if not isinstance(text, str):
        path.write_bytes(text)
    with pytest.raises(SegMateError) as caught:
        read_manifest(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "would both be" in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"path,name\n" + data)
    try:
        cases = read_manifest(path)
    except SegMateError:
        return
    for case in cases:
        target = (path.parent / "out" / f"{case.name}.nii.gz").resolve()
        assert (path.parent / "out").resolve() in target.parents


@given(st.dictionaries(
    st.from_regex(r"[a-z]([a-z0-9 ,']{0,8}[a-z,])?(/[a-zäöü][a-z0-9]{0,4})?", fullmatch=True),
    st.from_regex(r"[a-z,\"][a-z0-9 ,\"';]{0,8}\.nii", fullmatch=True), min_size=1, max_size=9,
))  # fmt: skip
@settings(max_examples=30)
def test_what_python_s_writer_writes_is_read_back(tmp_path_factory, cases):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "name"), *((source, name) for name, source in cases.items())])
    assert {case.name: case.source.name for case in read_manifest(path)} == cases
