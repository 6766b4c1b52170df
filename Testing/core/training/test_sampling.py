"""Sampling: shares as asked, organs really balanced, each process with its own stream, nothing remembered."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegMateCore.data.cases import TrainingCase  # noqa: E402
from SegMateCore.data.sources import MemorySource  # noqa: E402
from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.feeds import ChunkFeed, ReadAhead, WindowFeed, crop  # noqa: E402
from SegMateCore.training.recipe import Sampling  # noqa: E402
from SegMateCore.training.recipe_file import read_recipe  # noqa: E402
from SegMateCore.training.sampling import BalancedSampler, generator_of  # noqa: E402

PARTNERS = NINE.mirror_partners()
CPU = torch.device("cpu")


def source(name, group, annotated=(True,) * 9, organs=None):
    """A block; organs: label -> slices, by default a liver on slices 2..9."""
    labels = np.zeros((12, 40, 40), np.uint8)
    for label, slices in (organs or {5: range(2, 10)}).items():
        labels[list(slices), 12:28, 3 * label : 3 * label + 3] = label
    hu = None if group == "phantom" else np.where(labels > 0, 60, -90).astype(np.int16)
    tissue = np.where(labels > 0, labels, 10).astype(np.uint8)
    return MemorySource(TrainingCase(name, group, hu, tissue, labels, annotated))


def sampling(**changes):
    return Sampling(
        rows=32, columns=32, chunk_slices=4, pool_chunks=8, **{"organ_weights": (1.0,) * 9, **changes}
    )


def recipe(**changes):
    return replace(read_recipe("demo", ["optimisation.batch=4"]), sampling=sampling(**changes))


def draws(sampler, count=2000, rank=0):
    return [sampler.draw(generator_of(0, rank, 0, number)) for number in range(count)]


def test_groups_and_cases_are_drawn_by_their_shares():
    sources = [source("whole", "complete"), source("a", "partial"), source("b", "partial")]
    sources.append(source("p", "phantom"))
    made = sampling(mix={"complete": 0.5, "partial": 0.2, "phantom": 0.3}, case_weights={"b": 3.0})
    drawn = Counter(draw.source.name for draw in draws(BalancedSampler(sources, made, 0.6)))
    shares = [drawn[name] / 2000 for name in ("whole", "a", "b", "p")]
    assert shares == pytest.approx([0.5, 0.05, 0.15, 0.3], abs=0.04)


def test_groups_that_are_not_there_leave_their_share_to_the_others():
    made = sampling(mix={"complete": 9, "pseudo": 1, "phantom": 3})
    sampler = BalancedSampler([source("p", "phantom"), source("q", "pseudo")], made, 0.6)
    assert list(sampler.shares.values()) == pytest.approx([0.75, 0.25])


def test_a_case_of_weight_zero_is_never_drawn_and_its_organs_are_nobodys():
    liver, lung = source("liver", "complete"), source("lung", "complete", organs={1: range(12)})
    sampler = BalancedSampler([liver, lung], sampling(case_weights={"lung": 0.0}), 1.0)
    assert {(draw.source.name, draw.channel) for draw in draws(sampler, 50)} == {("liver", 4)}


def test_a_group_whose_cases_all_have_the_weight_zero_is_refused_unless_its_share_is_zero_too():
    sources = [source("a", "partial"), source("b", "complete")]
    with pytest.raises(SegMateError, match="0 for every case of partial"):
        BalancedSampler(sources, sampling(mix={"partial": 1, "complete": 1}, case_weights={"a": 0}), 0.6)
    rest = sampling(mix={"partial": 0, "complete": 1}, case_weights={"a": 0})
    assert {draw.source.name for draw in draws(BalancedSampler(sources, rest, 0.6), 20)} == {"b"}


def test_a_misspelt_group_of_the_mix_is_refused_and_one_of_another_run_is_not():
    sources = [source("a", "partial")]
    with pytest.raises(SegMateError, match="a share for partal.*did you mean partial"):
        BalancedSampler(sources, sampling(mix={"partial": 1, "partal": 3}), 0.6)
    shares = BalancedSampler(sources, sampling(mix={"partial": 1, "pseudo": 3, "amos22": 1}), 0.6).shares
    assert shares == {"partial": 1}


def test_no_cases_no_share_and_a_forgotten_group_are_refused():
    with pytest.raises(SegMateError, match="no training cases"):
        BalancedSampler([], sampling(), 0.6)
    with pytest.raises(SegMateError, match="no share"):
        BalancedSampler([source("p", "phantom")], sampling(mix={"phantom": 0.0}), 0.6)
    with pytest.raises(SegMateError, match="no share for phantom"):
        BalancedSampler([source("p", "phantom")], sampling(mix={"complete": 1.0}), 0.6)


class TestBalance:
    """Two cases: one with an organ on a single slice of it, the other full of lung."""

    sources = [
        source("much", "complete", organs={1: range(12), 2: range(12)}),
        source("little", "complete", organs={1: range(12), 8: [5]}),
    ]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_each_organ_is_in_the_centre_equally_often_on_every_rank(self, rank):
        drawn = draws(BalancedSampler(self.sources, sampling(), 1.0), 3000, rank)
        counts = Counter(draw.channel for draw in drawn)
        assert set(counts) == {0, 1, 7}
        assert all(count / 3000 == pytest.approx(1 / 3, abs=0.03) for count in counts.values())
        assert {(draw.source.name, draw.slice) for draw in drawn if draw.channel == 7} == {("little", 5)}

    def test_organ_weights_set_the_proportions(self):
        weights = (1.0,) * 7 + (4.0, 1.0)
        drawn = draws(BalancedSampler(self.sources, sampling(organ_weights=weights), 1.0))
        counts = Counter(draw.channel for draw in drawn)
        assert counts[7] / 2000 == pytest.approx(4 / 6, abs=0.03)

    def test_organs_that_are_not_annotated_are_never_the_reason(self):
        only_liver = tuple(channel == 4 for channel in range(9))
        partial = source("partial", "partial", only_liver, organs={5: [3], 1: range(12)})
        drawn = draws(BalancedSampler([partial], sampling(), 1.0), 100)
        assert {draw.channel for draw in drawn} == {4}

    def test_ranks_draw_differently_and_each_repeats_itself(self):
        sampler = BalancedSampler(self.sources, sampling(), 0.5)
        first, again, other = ([(d.source.name, d.slice) for d in draws(sampler, 50, r)] for r in (0, 0, 1))
        assert first == again != other


class TestChunkFeed:
    def test_each_batch_is_a_function_of_its_number(self):
        made = recipe(steps_per_chunk=2)
        sources = [source("p", "phantom")]
        steady = ChunkFeed(sources, made, 3, PARTNERS, 0)
        seen = [steady.batch(number, CPU) for number in range(20)]
        resumed = ChunkFeed(sources, made, 3, PARTNERS, 0).batch(19, CPU)
        assert torch.equal(seen[19].hu, resumed.hu) and torch.equal(seen[19].labels, resumed.labels)
        assert not torch.equal(seen[18].hu, seen[19].hu)
        other = ChunkFeed(sources, made, 3, PARTNERS, 1).batch(19, CPU)
        assert not torch.equal(other.hu, resumed.hu)

    def test_renewal_replaces_the_oldest_chunk(self):
        feed = ChunkFeed([source("p", "phantom")], recipe(steps_per_chunk=1), 3, PARTNERS, 0)
        feed.batch(0, CPU)
        before = feed.hu.clone()
        feed.batch(1, CPU)
        changed = [not torch.equal(before[index], feed.hu[index]) for index in range(8)]
        assert changed == [True] + [False] * 7

    def test_a_batch_holds_windows_of_different_chunks_with_the_middle_slice_labelled(self):
        made = read_recipe("demo", ["optimisation.batch=8"])
        feed = ChunkFeed([source("p", "phantom")], replace(made, sampling=sampling()), 3, PARTNERS, 0)
        feed.batch(0, CPU)
        for index in range(8):
            feed.hu[index] = index * 10 + torch.arange(6, dtype=torch.int16)[:, None, None]
            feed.labels[index] = torch.arange(6, dtype=torch.uint8)[:, None, None]
        batch = feed.batch(0, CPU)
        middle = batch.hu[:, 1, 0, 0].int()
        assert sorted((middle // 10).tolist()) == list(range(8))
        assert (middle % 10).tolist() == batch.labels[:, 0, 0].tolist()
        assert torch.equal(batch.hu[:, 2, 0, 0] - batch.hu[:, 0, 0, 0], torch.full((8,), 2.0))

    def test_unannotated_organs_stay_so_in_the_batch(self):
        known = tuple(channel == 4 for channel in range(9))
        feed = ChunkFeed([source("q", "partial", known)], recipe(), 3, PARTNERS, 0)
        assert (feed.batch(0, CPU).annotated == torch.tensor(known)).all()


class TestWindowFeed:
    def test_threads_that_read_ahead_change_nothing(self):
        sources = [source("a", "complete"), source("b", "complete", organs={1: range(3)})]
        plain = WindowFeed(sources, recipe(), 3, PARTNERS, 0)
        threaded = WindowFeed(sources, recipe(workers=2), 3, PARTNERS, 0)
        for number in (0, 1, 2, 7):
            a, b = plain.batch(number, CPU), threaded.batch(number, CPU)
            assert torch.equal(a.hu, b.hu) and torch.equal(a.labels, b.labels)
        threaded.close()

    def test_the_organ_of_the_draw_is_in_the_crop(self):
        made = replace(recipe(), augmentation=replace(recipe().augmentation, organ_centred=1.0))
        feed = WindowFeed([source("a", "complete", organs={9: [4]})], made, 3, PARTNERS, 0)
        batch = feed.read(0)
        assert batch.hu.shape == (4, 3, 32, 32) and (batch.labels == 9).flatten(1).any(dim=1).all()

    def test_a_single_slice_lies_in_the_middle_as_in_predict(self):
        whole = source("a", "complete").case
        cut = (array[5:6] for array in (whole.hu, whole.tissue, whole.labels))
        one = TrainingCase("one", "complete", *cut, (True,) * 9)
        batch = WindowFeed([MemorySource(one)], recipe(), 3, PARTNERS, 0).read(0)
        assert set(batch.heights.tolist()) == {0.5}

    def test_an_anatomy_without_hu_is_refused(self):
        feed = WindowFeed([source("p", "phantom")], recipe(), 3, PARTNERS, 0)
        with pytest.raises(SegMateError, match="chunks"):
            feed.batch(0, CPU)


def test_a_crop_larger_than_the_image_is_filled_around_it():
    plane = np.arange(6).reshape(1, 2, 3)
    assert crop(plane, (-1, -1), (4, 5), 9)[0].tolist() == [
        [9, 9, 9, 9, 9], [9, 0, 1, 2, 9], [9, 3, 4, 5, 9], [9, 9, 9, 9, 9],
    ]  # fmt: skip
    assert crop(plane, (0, 1), (2, 2), 9)[0].tolist() == [[1, 2], [4, 5]]


def test_read_ahead_gives_an_exception_of_its_thread():
    def fail(number):
        raise SegMateError(f"slice {number} cannot be read")

    with pytest.raises(SegMateError, match="slice 3"):
        ReadAhead(fail, 2).get(3)
