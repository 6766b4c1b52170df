"""The pool and the mix: shares as asked, chunks renewed in turn, batches from different chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegMateCore.data.cases import TrainingCase  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.recipe import Recipe, Sampling  # noqa: E402
from SegMateCore.training.sampling import CaseMix, ChunkPool, network_values  # noqa: E402

PARTNERS = NINE.partner_permutation()


def case(name, group, annotated=(True,) * 9):
    labels = np.zeros((12, 40, 40), np.uint8)
    labels[2:10, 12:28, 12:28] = 5
    hu = None if group == "phantom" else np.where(labels > 0, 60, -90).astype(np.int16)
    tissue = np.where(labels > 0, labels, 10).astype(np.uint8)
    return TrainingCase(name, group, hu, tissue, labels, annotated)


def recipe(**sampling):
    small = Sampling(rows=32, columns=32, chunk_slices=4, pool_chunks=8, **sampling)
    return replace(Recipe.bundled("demo"), sampling=small)


def test_groups_and_cases_are_drawn_by_their_shares():
    cases = [case("whole", "complete"), case("a", "partial"), case("b", "partial"), case("p", "phantom")]
    mix = CaseMix(
        cases, recipe(mix={"complete": 0.5, "partial": 0.2, "phantom": 0.3}, case_weights={"b": 3.0})
    )
    assert mix.shares == pytest.approx([0.5, 0.05, 0.15, 0.3])
    rng = np.random.default_rng(0)
    drawn = [mix.draw(rng).case.name for _ in range(2000)]
    assert [drawn.count(name) / 2000 for name in ("whole", "a", "b", "p")] == pytest.approx(
        mix.shares, abs=0.04
    )


def test_groups_that_are_not_there_leave_their_share_to_the_others():
    mix = CaseMix(
        [case("p", "phantom"), case("q", "pseudo")], recipe(mix={"complete": 9, "pseudo": 1, "phantom": 3})
    )
    assert mix.shares == pytest.approx([0.75, 0.25])


def test_no_cases_and_no_share_are_refused():
    with pytest.raises(SegMateError, match="no training cases"):
        CaseMix([], recipe())
    with pytest.raises(SegMateError, match="no share"):
        CaseMix([case("p", "phantom")], recipe(mix={"complete": 1.0}))


def test_renewal_replaces_the_oldest_chunk():
    pool = ChunkPool(CaseMix([case("p", "phantom")], recipe()), recipe(), PARTNERS)
    before = pool.hu.clone()
    pool.renew()
    changed = [not torch.equal(before[index], pool.hu[index]) for index in range(8)]
    assert changed == [True] + [False] * 7


def test_a_batch_holds_windows_of_different_chunks_with_the_middle_slice_labelled():
    made = recipe()
    pool = ChunkPool(CaseMix([case("p", "phantom")], made), made, PARTNERS)
    for index in range(8):
        pool.hu[index] = index * 10
        pool.labels[index] = torch.arange(6, dtype=torch.uint8)[:, None, None]
        pool.hu[index] += torch.arange(6, dtype=torch.int16)[:, None, None]
    batch = pool.batch(8)
    hu = batch.slices / made.preprocessing.scale[1] - made.preprocessing.scale[0]
    middle = hu[:, 1, 0, 0].round().int()
    assert sorted((middle // 10).tolist()) == list(range(8))
    assert (middle % 10).tolist() == batch.labels[:, 0, 0].tolist()
    assert torch.equal((hu[:, 2, 0, 0] - hu[:, 0, 0, 0]).round(), torch.full((8,), 2.0))


def test_unannotated_organs_stay_so_in_the_batch():
    made = recipe()
    known = tuple(channel == 4 for channel in range(9))
    pool = ChunkPool(CaseMix([case("q", "partial", known)], made), made, PARTNERS)
    assert (pool.batch(4).annotated == torch.tensor(known)).all()


def test_network_values_are_the_preprocessing_s():
    preprocessing = Recipe.bundled("demo").preprocessing
    hu = torch.tensor([-2000, -1000, 0, 400, 3000], dtype=torch.int16)
    assert np.array_equal(network_values(hu, preprocessing).numpy(), preprocessing.normalise(hu.numpy()))
