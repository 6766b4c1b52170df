"""The stream of slices: the thread that runs ahead, windows of air, how many slices go at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from fake_network import BandBackend, band_checkpoint, band_predictor

from SegMateCore.ahead import Ahead
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.predictor import PredictOptions
from SegMateCore.preprocessing import Preprocessing
from SegMateCore.volume import Volume
from SegMateCore.windows import SliceStream, slices_at_once

PREPROCESSING = Preprocessing(None, (-1000, 400), (0, 1), context=3)


def a_ct(slices: int, body=slice(None), seed: int = 0) -> np.ndarray:
    """Noise of -300..300 HU in the slices of `body`, air and padding elsewhere, int16 (slices, 20, 24)."""
    hu = np.full((slices, 20, 24), -1000, np.int16)
    hu[1::2] = -2048
    hu[body] = np.random.default_rng(seed).integers(-300, 300, hu[body].shape)
    return hu


@pytest.fixture
def ahead():
    thread = Ahead("test")
    yield thread
    thread.close()


def stream_of(hu, backend, ahead, preprocessing=PREPROCESSING) -> SliceStream:
    """In chunks of four."""
    return SliceStream(hu, preprocessing, backend, 4, None, lambda text: None, None, ahead)


@pytest.mark.parametrize(
    "chunk, pixels, device, expected",
    [(8, 256 * 256, "cpu", 8), (8, 512 * 512, "cpu", 2), (8, 128 * 128, "cpu", 8), (1, 512 * 512, "cpu", 1),
     (8, 2048 * 2048, "cpu", 1), (8, 512 * 512, "cuda:0", 8), (64, 512 * 512, "cpu", 16)],
)  # fmt: skip
def test_large_slices_go_fewer_at_a_time_through_a_cpu(chunk, pixels, device, expected):
    assert slices_at_once(chunk, pixels, device) == expected


def test_the_next_chunk_is_in_the_network_while_this_one_is_used(ahead):
    running = threading.Event()

    class Slow(BandBackend):
        def run(self, windows, z_positions):
            if self.batches:
                running.set()
            return super().run(windows, z_positions)

    stream_of(a_ct(12), Slow("cuda:0"), ahead).slices(0, 1)
    assert running.wait(10), "nobody asked for the second chunk, and it did not start"


def test_on_a_cpu_the_network_does_not_run_beside_the_labels(ahead):
    class Noting(BandBackend):
        def run(self, windows, z_positions):
            threads.append(threading.current_thread())
            return super().run(windows, z_positions)

    threads: list[threading.Thread] = []
    stream = stream_of(a_ct(12), Noting(), ahead)
    stream.slices(0, 1)
    stream.slices(4, 5)
    assert threads == [threading.main_thread()] * 2


def test_chunks_after_the_last_slice_wanted_are_not_computed(ahead):
    backend = BandBackend("cuda:0")
    stream = stream_of(a_ct(40), backend, ahead)
    stream.until(7)
    stream.slices(0, 7)
    ahead.close()
    assert backend.batches == [4, 4]


def test_what_waits_for_the_thread_is_not_begun_once_it_is_closed():
    thread, begun, first = Ahead("test"), [], threading.Event()

    def work(number):
        begun.append(number)
        first.set()
        time.sleep(0.05)

    futures = [thread.submit(work, number) for number in range(4)]
    first.wait(10)
    thread.close()
    assert begun == [0] and [future.cancelled() for future in futures] == [False, True, True, True]


def test_networks_of_an_ensemble_run_one_after_the_other():
    class Counting(BandBackend):
        now = most = 0

        def run(self, windows, z_positions):
            Counting.now += 1
            Counting.most = max(Counting.most, Counting.now)
            time.sleep(0.005)
            Counting.now -= 1
            return super().run(windows, z_positions)

    volume = Volume(a_ct(20), np.eye(4))
    labels = band_predictor(Counting("cuda:0"), parts=4).predict(volume).labels
    assert Counting.most == 1 and (labels == band_predictor().predict(volume).labels).all()


@pytest.mark.parametrize(
    "value, precision, advice",
    [(np.nan, "fp16", "--precision fp32"), (np.nan, "fp32", "damaged"), (np.inf, "fp16", "--precision fp32")],
)
def test_logits_that_are_no_numbers_are_an_error(value, precision, advice):
    class Overflowing(BandBackend):
        def run(self, windows, z_positions):
            logits = super().run(windows, z_positions)
            logits[-1, 4, 3, 2] = value
            return logits

    backend = Overflowing()
    backend.precision = precision
    with pytest.raises(SegMateError, match=f"NaN.*{precision}: .*{advice}"):
        band_predictor(backend).predict(Volume(a_ct(20), np.eye(4)))


def test_errors_of_the_network_reach_the_caller_and_the_thread_ends():
    class Broken(BandBackend):
        def run(self, windows, z_positions):
            if self.batches:
                raise KeyError("broken")
            return super().run(windows, z_positions)

    before = threading.active_count()
    with pytest.raises(KeyError, match="broken"):
        band_predictor(Broken("cuda:0")).predict(Volume(a_ct(40), np.eye(4)))
    assert threading.active_count() == before


def test_after_a_cancel_no_thread_and_no_chunk_is_left():
    backend = BandBackend("cuda:0")
    before = threading.active_count()
    volume = Volume(a_ct(64), np.eye(4))
    with pytest.raises(Cancelled):
        band_predictor(backend).predict(volume, cancelled=lambda: len(backend.batches) >= 3)
    ran = len(backend.batches)
    time.sleep(0.05)
    assert threading.active_count() == before and len(backend.batches) == ran == 3


def test_a_generator_of_probabilities_that_is_dropped_ends_its_thread():
    before = threading.active_count()
    slices = band_predictor(BandBackend("cuda:0")).probability_slices(Volume(a_ct(64), np.eye(4)))
    next(slices)
    slices.close()
    assert threading.active_count() == before


class Everywhere(BandBackend):
    """A network that finds an organ in air: what counts is that its answer there is used, not skipped."""

    def run(self, windows, z_positions):
        logits = super().run(windows, z_positions)
        logits[:, 3] += np.where(windows.max(axis=(1, 2, 3)) <= -1000, 400, 0)[:, None, None]
        return logits


@pytest.mark.parametrize("make", [BandBackend, Everywhere])
@pytest.mark.parametrize("flip", [False, True])
def test_windows_of_air_go_through_the_network_once_and_keep_their_labels(make, flip):
    hu = a_ct(30, slice(10, 16))
    backend = make()
    options = PredictOptions(chunk=4, flip_average=flip, force=True)
    labels = band_predictor(backend).predict(Volume(hu, np.eye(4)), options=options).labels
    # Slices 9 to 16 see the body; one window of air stands for all 22 of them.
    assert sum(backend.batches) == (17 if flip else 9)
    plain = make()
    for k in range(30):
        window = PREPROCESSING.normalise(hu[np.clip([k - 1, k, k + 1], 0, 29)])[None]
        padded = np.pad(window, ((0, 0), (0, 0), (6, 6), (4, 4)), constant_values=-1000)
        logits = plain.run(padded, None)[0, :, 6:-6, 4:-4]
        best = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0) + 1, 0)
        if not flip:
            assert (labels[k] == best).all()
        elif k < 9 or k > 16:
            assert (labels[k] == (4 if make is Everywhere else 0)).all()


def test_windows_of_air_differ_where_the_network_is_told_their_place(ahead):
    preprocessing = Preprocessing(None, (-1000, 400), (0, 1), context=3, z_position="volume")
    backend = BandBackend()
    stream = stream_of(a_ct(12, slice(4, 6)), backend, ahead, preprocessing)
    stream.slices(0, 12)
    assert sum(backend.batches) == 12


def test_out_of_memory_in_the_thread_halves_the_chunk_and_goes_on():
    volume = Volume(a_ct(20), np.eye(4))
    expected = band_predictor().predict(volume).labels
    found = band_predictor(BandBackend("cuda:0", capacity=3)).predict(volume)
    assert (found.labels == expected).all()
    assert any("2 slices at once" in text for text in found.provenance["warnings"])
    with pytest.raises(SegMateError, match="single slice"):
        band_predictor(BandBackend(capacity=0)).predict(volume)


def test_a_checkpoint_of_the_stand_in_has_the_preprocessing_used_here():
    assert band_checkpoint().parts[0].preprocessing == PREPROCESSING
