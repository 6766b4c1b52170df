"""Training in tests runs on one thread: repeatable, and fair to the other tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of a run of four epochs without an interruption."""
    torch = pytest.importorskip("torch")
    from small_runs import data, dropout_recipe

    from SegMateCore.training.loop import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(dropout_recipe(), data(validated=1), folder)
    return folder
