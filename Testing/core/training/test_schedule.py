"""Learning rates by hand, and the memory of scores."""

from __future__ import annotations

import pytest

from SegMateCore.training.recipe import Optimisation
from SegMateCore.training.schedule import Patience, learning_rate


def rates(**options):
    made = Optimisation(rate=1.0, **options)
    return [learning_rate(step, made) for step in range(1, made.steps + 1)]


def test_warm_up_then_cosine_to_the_floor():
    found = rates(steps=100, warm_up=0.1, final_rate=0.01)
    assert found[0] == pytest.approx(0.1) and found[9] == 1.0 and found[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in zip(found[9:], found[10:]))


def test_restarts_begin_again_after_five_and_ten_epochs():
    found = rates(steps=40, steps_per_epoch=2, restart_epochs=5, schedule="restarts", warm_up=0, final_rate=0)
    assert [found[0], found[10], found[30]] == [1.0, 1.0, 1.0]
    assert found[5] == pytest.approx(0.5) and found[20] == pytest.approx(0.5)


def test_plateau_halves_after_more_than_three_epochs_without_gain():
    options = Optimisation(schedule="plateau", plateau_patience=3, warm_up=0, rate=1.0, steps=100)
    patience = Patience()
    seen = [patience.observe(score, epoch, options) for epoch, score in enumerate([0.5, *[0.4] * 4], start=1)]
    assert seen == [True, False, False, False, False]
    assert patience.reductions == 1 and learning_rate(50, options, patience.reductions) == 0.5


def test_a_validation_every_third_epoch_waits_as_many_epochs_as_one_every_epoch():
    """Best at epoch 3; a plateau of more than 7 epochs is seen at 12, ten without gain at 15."""
    options = Optimisation(schedule="plateau", plateau_patience=7, early_stop_epochs=10)
    patience, seen = Patience(), {}
    for epoch in range(1, 16):
        patience.observe(None if epoch % 3 else (0.5 if epoch == 3 else 0.4), epoch, options)
        seen[epoch] = (patience.reductions, patience.is_over(options))
    assert seen[11] == (0, False) and seen[12] == seen[14] == (1, False) and seen[15] == (1, True)


def test_early_stopping_counts_epochs_and_decides_where_there_is_a_score():
    options = Optimisation(early_stop_epochs=2)
    patience = Patience()
    for epoch, (score, over) in enumerate([(0.5, False), (None, False), (0.5, True), (0.6, False)], start=1):
        patience.observe(score, epoch, options)
        assert patience.is_over(options) is over
    assert patience.best == 0.6 and patience.best_epoch == 4
    assert not patience.is_over(Optimisation(early_stop_epochs=0))
