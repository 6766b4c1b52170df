"""When a network is recorded, and that its answers stay its own; on a GPU, that CUDA's records are right."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from SegMateCore.backends.recorded_network import (  # noqa: E402
    Record,
    RecordedNetwork,
    recorded_on_cuda,
)


class Doubling(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, *inputs):
        self.calls += 1
        return 2 * sum(inputs)


class Recorder:
    """Records on the CPU: a replay computes the same as the network, without calling it."""

    def __init__(self, factor: float | None = 2):
        self.factor = factor
        self.shapes = []

    def __call__(self, network, inputs):
        self.shapes.append(tuple(inputs[0].shape))
        output = network(*inputs)
        network.calls -= 1
        if self.factor is None:
            return Record(inputs, output, lambda: None)
        return Record(inputs, output, lambda: output.copy_(self.factor * sum(inputs)))


def test_a_shape_that_comes_twice_in_a_row_is_recorded():
    plain, recorder = Doubling(), Recorder()
    network = RecordedNetwork(plain, recorder)
    eight, three = torch.ones(8, 2), torch.ones(3, 2)
    for number, batch in enumerate((eight, 2 * eight, 3 * eight, three, 4 * eight)):
        assert torch.equal(network(batch), 2 * batch), number
    # The third and the last one were replayed.
    assert recorder.shapes == [(8, 2)] and plain.calls == 3


def test_the_ends_of_volumes_do_not_take_the_record_s_place():
    plain, recorder = Doubling(), Recorder()
    network = RecordedNetwork(plain, recorder)
    for _ in range(3):
        for count in (8, 8, 8, 5, 5):
            network(torch.ones(count, 2))
    assert recorder.shapes == [(8, 2)] and plain.calls == 2 + 6
    for columns in (7, 7, 7):  # slices of another size, of the next CT
        network(torch.ones(2, columns))
    assert recorder.shapes == [(8, 2), (2, 7)] and plain.calls == 2 + 6 + 2


def test_an_answer_is_not_written_over_by_the_next():
    network = RecordedNetwork(Doubling(), Recorder())
    answers = [network(torch.full((2, 2), float(number))) for number in range(6)]
    assert [float(answer[0, 0]) for answer in answers] == [0, 2, 4, 6, 8, 10]


def test_several_inputs_belong_together():
    network = RecordedNetwork(Doubling(), Recorder())
    for number in range(5):
        windows, z = torch.full((2, 2), float(number)), torch.ones(2, 2)
        assert torch.equal(network(windows, z), 2 * (windows + z))


@pytest.mark.parametrize("wrong", [2.1, float("nan"), None])
def test_a_record_with_other_answers_is_never_used(wrong):
    plain, recorder = Doubling(), Recorder(wrong)
    network = RecordedNetwork(plain, recorder)
    for number in range(1, 6):
        batch = torch.full((2, 2), float(number))
        assert torch.equal(network(batch), 2 * batch)
    assert len(recorder.shapes) == 1 and plain.calls == 5


def test_what_cannot_be_recorded_runs_as_it_is():
    def recorder(network, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    plain = Doubling()
    network = RecordedNetwork(plain, recorder)
    for _ in range(4):
        assert torch.equal(network(torch.ones(2)), torch.full((2,), 2.0))
    assert plain.calls == 4


def test_records_give_their_memory_where_it_is_missing():
    class Hungry(Doubling):
        """Has room for slices of 9 pixels only while no other network's record is held."""

        def forward(self, inputs):
            if inputs.shape[1] == 9 and other._record is not None:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(inputs)

    other, network = (RecordedNetwork(plain, Recorder()) for plain in (Doubling(), Hungry()))
    for one in (other, network):
        one(torch.ones(2, 2)), one(torch.ones(2, 2))
        assert one._record is not None
    assert torch.equal(network(torch.ones(2, 9)), torch.full((2, 9), 2.0))
    assert other._record is None and network._record is None
    assert torch.equal(other(torch.ones(2, 2)), torch.full((2, 2), 2.0))


def test_without_records_the_error_is_the_caller_s():
    class Full(Doubling):
        def forward(self, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        RecordedNetwork(Full(), Recorder())(torch.ones(2, 2))


def test_threads_do_not_get_each_others_answers():
    network = RecordedNetwork(Doubling(), Recorder())
    wrong = []

    def ask(value: float) -> None:
        for _ in range(200):
            if not torch.equal(network(torch.full((4, 4), value)), torch.full((4, 4), 2 * value)):
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_records_of_a_real_network_on_cuda():
    pytest.importorskip("timm")
    from SegMateCore.backends.fused_network import fused_network
    from SegMateCore.models import create_model

    torch.manual_seed(0)
    plain = fused_network(create_model("segmate_fastvit").eval(), 3, False, "cuda:0", torch.float16)
    network = RecordedNetwork(plain, recorded_on_cuda)
    with torch.inference_mode():
        for _ in range(5):
            batch = torch.randn(2, 3, 64, 64, device="cuda:0", dtype=torch.float16)
            batch = batch.contiguous(memory_format=torch.channels_last)
            expected = plain(batch)
            close = 1e-3 * float(expected.abs().max())
            torch.testing.assert_close(network(batch), expected, rtol=0, atol=close)
    assert network._record is not None
