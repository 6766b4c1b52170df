"""Validation: processes share the cases, and stop together."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from small_runs import recipe, validation  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.errors import Cancelled  # noqa: E402
from SegMateCore.organs import NINE  # noqa: E402
from SegMateCore.training.networks import new_network  # noqa: E402
from SegMateCore.training.record import checkpoint_document  # noqa: E402
from SegMateCore.training.validation import validate  # noqa: E402


@dataclass
class TwoRanks:
    """The first of two processes; other: what the second one brings to a gathering."""

    other: list
    rank: int = 0
    world: int = 2
    device: torch.device = torch.device("cpu")
    gathered: int = 0

    def gather(self, value):
        self.gathered += 1
        return [value, self.other]


@pytest.fixture(scope="module")
def checkpoint():
    made = recipe()
    model = new_network(made, NINE)
    document = checkpoint_document(made, model, [], NINE, 1)
    return Checkpoint.in_memory(document, [{key: value.numpy() for key, value in model.state_dict().items()}])


CASES = [validation(100), validation(101)]


def test_each_process_scores_its_own_cases_and_all_know_all_scores(checkpoint):
    ranks = TwoRanks([{"seen_101": {"liver": 0.25}}, False])
    scores, kept = validate(checkpoint, CASES, ranks, previews=2)
    assert list(scores.cases) == ["seen_100", "seen_101"] and scores.cases["seen_101"] == {"liver": 0.25}
    assert [scored.name for scored in kept] == ["seen_100"]


def test_a_cancel_in_one_process_stops_both(checkpoint):
    with pytest.raises(Cancelled):
        validate(checkpoint, CASES, TwoRanks([{}, True]))
    ranks = TwoRanks([{"seen_101": {}}, False])
    with pytest.raises(Cancelled):
        validate(checkpoint, CASES, ranks, cancelled=lambda: True)
    assert ranks.gathered == 1  # where the other process waits
