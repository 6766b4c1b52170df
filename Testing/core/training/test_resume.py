"""The resume file: training goes on bit for bit, and damage is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.training.averaging import WeightAverage  # noqa: E402
from SegMateCore.training.optimiser import make_optimiser  # noqa: E402
from SegMateCore.training.recipe import Optimisation  # noqa: E402
from SegMateCore.training.resume import load_resume, read_state, write_resume  # noqa: E402


class Moving:
    """A tiny network that is trained on noise."""

    def __init__(self, kind):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
        self.average = WeightAverage(self.model, 0.9)
        self.optimiser = make_optimiser(self.model, Optimisation(optimiser=kind, rate=0.1))

    @property
    def parts(self):
        return self.model, self.average, self.optimiser

    def step(self, number):
        images = torch.randn((2, 1, 6, 6), generator=torch.Generator().manual_seed(number))
        self.optimiser.zero_grad()
        self.model(images).square().mean().backward()
        self.optimiser.step()
        self.average.update(self.model)

    def values(self):
        return [*self.model.state_dict().values(), *self.average.averaged.values()]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_two_and_two_steps_are_four(kind, tmp_path):
    whole = Moving(kind)
    for number in range(4):
        whole.step(number)
    first = Moving(kind)
    first.step(0)
    first.step(1)
    write_resume(tmp_path / "last.resume", *first.parts, {"step": 2})
    second = Moving(kind)
    second.step(7)  # whatever it was before is overwritten
    assert load_resume(tmp_path / "last.resume", *second.parts)["step"] == 2
    second.step(2)
    second.step(3)
    assert all(torch.equal(a, b) for a, b in zip(whole.values(), second.values()))
    assert second.average.updates == 4


def test_what_never_had_a_gradient_has_no_slot(tmp_path):
    moving = Moving("adamw")
    moving.model[0].requires_grad_(False)
    moving.step(0)
    write_resume(tmp_path / "last.resume", *moving.parts, {})
    again = Moving("adamw")
    load_resume(tmp_path / "last.resume", *again.parts)
    assert len(again.optimiser.state) == 2


def test_a_missing_foreign_or_cut_off_file_is_refused(tmp_path):
    path = tmp_path / "last.resume"
    with pytest.raises(SegMateError, match="no resume file"):
        read_state(path)
    moving = Moving("adamw")
    write_resume(path, *moving.parts, {"step": 1})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SegMateError, match="cut off"):
        read_state(path)
    path.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(SegMateError, match="version 9"):
        read_state(path)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "last.resume"
    write_resume(path, *Moving("adamw").parts, {"step": 1})
    other = torch.nn.Linear(2, 2)
    with pytest.raises(SegMateError, match="does not fit"):
        load_resume(path, other, WeightAverage(other, 0.9), make_optimiser(other, Optimisation()))
