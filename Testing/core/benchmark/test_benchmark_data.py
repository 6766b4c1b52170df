"""`segmate benchmark data`: windows per second and formats of slices, on Stores of a few thousand voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("blosc2")
pytest.importorskip("matplotlib")

from SegMateCore.benchmark.slice_formats import compare_formats  # noqa: E402
from SegMateCore.cli import main  # noqa: E402
from SegMateCore.data.phantom import make_phantom  # noqa: E402

SMALL = ["--windows", "4", "--set", "optimisation.batch=2"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two Stores of one phantom, at 8 mm and on its own grid."""
    folder = tmp_path_factory.mktemp("stores")
    phantom = make_phantom(1, 8.0)
    place = folder / "source" / "one"
    phantom.volume.write(place / "ct.nii.gz")
    phantom.volume.with_voxels(phantom.labels).write(place / "labels.nii.gz")
    (place / "organs.json").write_text(json.dumps({"annotated": ["liver"]}), encoding="utf-8")
    made = folder / "at_8_mm", folder / "native"
    for store, spacing in zip(made, ("8", "native")):
        words = ["--spacing", spacing, "--ratio", "1", "0", "0", "--workers", "0", "--quiet"]
        assert main(["prepare", "folder", str(folder / "source"), str(store), *words]) == 0
    return made


def test_rates_and_formats_of_a_store_as_json(stores, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["benchmark", "data", str(stores[0]), "--json", *SMALL]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    rates = found["windows"]["steps"]
    assert list(rates) == ["read and crop", "augment", "read, crop and augment"]
    # Doing both takes at least as long as the slower of the two; a fifth for the noise of two-window batches.
    assert 0 < rates["read, crop and augment"] < 1.2 * min(rates["read and crop"], rates["augment"])
    assert found["windows"]["batch"] == 2 and found["windows"]["rows"] == 288
    assert found["windows"]["windows"] == 4 and found["machine"]["cores"] >= 1
    assert [row["array"].split(",")[0] for row in found["formats"]] == ["HU"] * 3 + ["labels"] * 3


def test_as_many_windows_are_told_as_are_made(stores, capsys, monkeypatch):
    """Whole batches: 2 of 2 windows where 5 were asked for, 1 of 2 where 1 was."""
    made = []

    def per_second(make, size, calls):
        made.append(size * calls)
        return 1.0

    monkeypatch.setattr("SegMateCore.benchmark.windows._per_second", per_second)
    for asked, expected in (("5", 4), ("1", 2)):
        words = ["--json", "--windows", asked, "--set", "optimisation.batch=2"]
        assert main(["benchmark", "data", str(stores[0]), *words]) == 0
        assert json.loads(capsys.readouterr().out)["windows"]["windows"] == expected == made[-1]


def test_the_grid_is_that_of_the_store(stores, capsys):
    chunks = ["--recipe", "demo", "--windows", "2"]
    chunks += ["--set", "sampling.mix={}", "--set", "sampling.chunk_slices=2"]
    assert main(["benchmark", "data", str(stores[0]), *chunks]) == 0
    out = capsys.readouterr().out
    assert "read, bend and spoil chunks" in out and ".npy, memory map" in out
    assert main(["benchmark", "data", str(stores[1]), *SMALL]) == 0
    assert main(["benchmark", "data", str(stores[1]), *chunks]) == 2
    assert 'feed "chunks" needs preprocessing.spacing_mm' in capsys.readouterr().err


def test_formats_say_what_is_on_disk(tmp_path):
    array = np.arange(4 * 8 * 8, dtype=np.int16).reshape(4, 8, 8)
    rows = {row.kept_as: row for row in compare_formats("ramp", array, tmp_path)}
    assert set(path.name for path in tmp_path.iterdir()) == {"array.npy", "fast.b2nd", "small.b2nd"}
    plain = rows[".npy, memory map"]
    assert plain.megabytes == (tmp_path / "array.npy").stat().st_size / 1e6
    assert plain.share == pytest.approx(1 + 128 / array.nbytes)
    for row in rows.values():
        assert row.read_ms[0] > 0 and row.read_ms[1] is None  # four slices have no five neighbours


@pytest.mark.parametrize(
    "words, expected",
    [
        (["data", "nowhere"], "nowhere"),
        (["data", "--windows", "0"], "--windows is 0"),
        (["data", "--recipe", "bogus"], "no bundled recipe 'bogus'"),
        ([], "WHAT"),
        (["bogus"], "bogus"),
    ],
)
def test_bad_input_is_one_line(words, expected, capsys):
    assert main(["benchmark", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error
