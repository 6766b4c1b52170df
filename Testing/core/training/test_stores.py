"""Training from Stores: several with other organs annotated, other organ tables, validation, refusals."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("blosc2")

from small_runs import blocks, case, make_store, recipe, write_cases  # noqa: E402

from SegMateCore.data.sources import MemorySource, StoreSource  # noqa: E402
from SegMateCore.data.store import Store  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.class_weights import weights_from_voxels  # noqa: E402
from SegMateCore.training.data import (  # noqa: E402
    from_cases,
    from_stores,
    validation_case,
    validation_folder,
    without,
)
from SegMateCore.training.feeds import make_feed  # noqa: E402

TERMS = {"licence": "CC0", "source": "made here"}
GRID = recipe().preprocessing


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Store.open(make_store(tmp_path_factory.mktemp("whole"), range(3)))


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    """Lungs and liver in a table of their own, in another order; the liver alone is annotated."""
    table = NINE.only([4, 1, 0])
    return Store.open(make_store(tmp_path_factory.mktemp("partial"), range(10, 13), (5,), table))


def test_a_store_source_gives_what_the_same_case_in_memory_gives(whole):
    stored = StoreSource(whole.split("train")[0], NINE, "folder", TERMS)
    held = MemorySource(case(int(stored.name[-3:])))
    assert stored.shape == held.shape and stored.voxels == held.voxels
    assert stored.annotated == held.annotated and stored.centre == pytest.approx(held.centre, abs=4)
    assert {k: v.tolist() for k, v in stored.organ_slices.items()} == {
        k: v.tolist() for k, v in held.organ_slices.items()
    }
    for one, two in zip(stored.slab(4, 9), held.slab(4, 9)):
        assert one.shape == two.shape
    assert np.array_equal(stored.slab(4, 9)[2], held.slab(4, 9)[2])
    slices = np.array([3, 4, 5])
    hu, labels = stored.window(slices, 4)
    assert np.array_equal(hu, held.window(slices, 4)[0].clip(-1024))
    assert np.array_equal(labels, held.window(slices, 4)[1])


def test_organs_of_another_table_get_the_channels_of_the_run(partial):
    source = StoreSource(partial.split("train")[0], NINE, "folder", TERMS)
    assert source.annotated == tuple(organ.name == "liver" for organ in NINE)
    assert list(source.organ_slices) == [4] and set(np.unique(source.slab(0, 16)[2])) == {0, 5}
    expected = blocks(int(source.name[-3:]))[1]
    assert np.array_equal(source.slab(0, 16)[2] == 5, expected == 5)


def test_only_a_case_whose_organs_all_have_a_tissue_is_painted_anew(whole):
    """An organ beyond the nine, or nine in another order, would be painted over like what lies around it."""
    stored = whole.split("train")[0]
    assert StoreSource(stored, NINE, "folder", TERMS).is_complete
    assert not StoreSource(stored, NINE.only(range(8, -1, -1)), "folder", TERMS).is_complete


def test_several_stores_and_cases_in_memory_share_one_table(whole, partial):
    data = from_stores([partial, whole], GRID, cases=[case(20)])
    assert data.organs == NINE and len(data.sources) == 5 and len(data.validation) == 2
    assert data.slices == 5 * 16
    assert [case.organs == ("liver",) for case in data.validation] == [True, False]
    folders = {f"{store.folder.parent.name}/store" for store in (whole, partial)}
    assert {source.group for source in data.sources} == {*folders, "complete"}
    smaller = from_stores([partial], GRID)
    assert set(smaller.organs.names) == {"liver", "left lung", "right lung"}


def test_an_organ_that_few_cases_have_annotated_weighs_what_its_size_says():
    """Three cases with everything, three with the liver alone: the sizes are those of the first three."""
    whole, lonely = [case(seed) for seed in range(3)], [case(seed, (5,)) for seed in range(3)]
    few, all_known = from_cases([*whole, *lonely]), from_cases(whole)
    assert few.voxels_per_slice == all_known.voxels_per_slice
    by_hand = [np.mean([(made.labels == label).sum() / 16 for made in whole]) for label in range(1, 10)]
    assert few.voxels_per_slice == pytest.approx(by_hand)
    weights = weights_from_voxels(few.voxels_per_slice)
    assert weights[1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("feed", ["chunks", "windows"])
def test_batches_come_from_stores_with_their_annotation(whole, partial, feed):
    data = from_stores([whole, partial], GRID)
    made = recipe(
        f"sampling.feed={feed}", "sampling.mix={}", "optimisation.batch=6", "augmentation.mirror=0"
    )
    made = made.resolved(data.organs, data.voxels_per_slice, 10)
    partners = data.organs.mirror_partners()
    batch = make_feed(data.sources, made, 3, partners, 0).batch(0, torch.device("cpu"))
    assert batch.hu.shape == (6, 3, 64, 64) and batch.labels.any()
    counts = set(batch.annotated.sum(dim=1).tolist())
    assert counts <= {1, 9}


def test_validation_cases_know_what_is_annotated(whole, partial, tmp_path):
    case_of_store = validation_case(partial.split("val")[0])
    volume, reference = case_of_store.load()
    assert case_of_store.organs == ("liver",) and reference.organs.names[0] == "liver"
    assert reference.mask("liver").any() and volume.shape == reference.labels.shape
    folder = write_cases(tmp_path, [7], annotated=(5, 8)) / "case_007"
    from_folder = validation_folder(folder)
    assert from_folder.organs == ("liver", "aorta") and from_folder.load()[1].mask("aorta").any()
    (folder / "organs.json").unlink()
    with pytest.raises(SegMateError, match="organs.json"):
        validation_folder(folder)


def test_stores_of_one_kind_are_told_apart_by_their_folders(whole, partial, tmp_path):
    names = []
    for store in (whole, partial):
        link = tmp_path / f"copy_of_{len(names)}"
        shutil.copytree(store.folder, link)
        names.append(link)
    data = from_stores([Store.open(path) for path in names], GRID)
    assert {source.group for source in data.sources} == {"copy_of_0", "copy_of_1"}


def test_stores_whose_folders_share_a_name_too_are_told_apart_by_the_folders_above(whole, partial, tmp_path):
    for place, store in (("a/store", whole), ("b/store", partial), ("c/partial", whole)):
        shutil.copytree(store.folder, tmp_path / place)

    def groups(*places):
        data = from_stores([Store.open(tmp_path / place) for place in places], GRID)
        return [source.group for source in data.sources]

    assert groups("a/store", "b/store") == ["a/store"] * 2 + ["b/store"] * 2
    # the name of a group of case folders is not for a Store
    assert groups("a/store", "c/partial") == ["a/store"] * 2 + ["c/partial"] * 2
    with pytest.raises(SegMateError, match="twice"):
        groups("a/store", "a/store")


def test_validation_cases_of_one_name_are_all_scored_under_names_of_their_own(whole, tmp_path):
    for place in ("a/store", "b/store"):
        shutil.copytree(whole.folder, tmp_path / place)
    stores = [Store.open(tmp_path / place) for place in ("a/store", "b/store")]
    name = stores[0].split("val")[0].name
    write_cases(tmp_path / "more", [int(name[-3:])])
    data = from_stores(stores, GRID, validation=[tmp_path / "more" / name, tmp_path / "more" / name])
    names = [case.name for case in data.validation]
    assert names == [f"a_store_{name}", f"b_store_{name}", f"more_{name}", f"more_{name}_2"]
    apart = from_stores([whole], GRID)
    assert [case.name for case in apart.validation] == [name]
    with pytest.raises(SegMateError, match=f"2 validation cases are called {name}"):
        from_cases([case(0)], [*apart.validation, *apart.validation])


def test_cases_of_stores_and_folders_are_left_out_by_name(whole):
    first = whole.split("train")[0].name
    validated = whole.split("val")[0].name
    cases, stores = without([first, validated, "blocks_20"], [case(20), case(21)], [whole])
    data = from_stores(stores, GRID, cases=cases)
    assert [source.name for source in data.sources] == ["blocks_21", whole.split("train")[1].name]
    assert not data.validation and len(whole.cases) == 3
    with pytest.raises(SegMateError, match="cannot exclude blocks_2x: did you mean blocks_20"):
        without(["blocks_2x"], [case(20)], [whole])


def test_a_fold_without_folds_is_refused(whole):
    with pytest.raises(SegMateError, match="fold 3"):
        from_stores([whole], GRID, fold=3)


def test_a_store_on_another_grid_is_refused(whole):
    with pytest.raises(SegMateError, match="prepared at 3 x 3 x 3 mm"):
        from_stores([whole], recipe("preprocessing.spacing_mm=[1.5,1.5,1.5]").preprocessing)
