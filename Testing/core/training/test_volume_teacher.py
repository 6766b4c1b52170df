"""A 3D teacher: its targets, what a student learns from them, what interruptions and changes do to them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("blosc2")

from small_patches import CT, TinyOptions, organ_rows, tiny_networks, tiny_part  # noqa: E402, F401
from small_runs import data as cases_in_memory  # noqa: E402
from small_runs import make_store, recipe  # noqa: E402

from SegMateCore.checkpoint import Checkpoint  # noqa: E402
from SegMateCore.data.store import Store  # noqa: E402
from SegMateCore.errors import Cancelled, SegMateError  # noqa: E402
from SegMateCore.organs import NINE, OrganSet  # noqa: E402
from SegMateCore.predictor import PredictOptions, Predictor  # noqa: E402
from SegMateCore.slab_logits import LOGIT_STEP  # noqa: E402
from SegMateCore.training.callbacks import read_metrics  # noqa: E402
from SegMateCore.training.control import Control  # noqa: E402
from SegMateCore.training.data import from_stores  # noqa: E402
from SegMateCore.training.distributed import Ranks  # noqa: E402
from SegMateCore.training.feeds import make_feed  # noqa: E402
from SegMateCore.training.loop import train  # noqa: E402
from SegMateCore.training.networks import new_network  # noqa: E402
from SegMateCore.training.trainer import Trainer  # noqa: E402
from SegMateCore.training.volume_teacher import VolumeTeacher, taught_data  # noqa: E402
from SegMateCore.volume import Volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("tiny_networks")
CPU = torch.device("cpu")
# In the blocks of small_runs: the liver has 110 HU, the aorta 220, the lungs -800 and -750.
LIVER_HU, AORTA_HU = (60.0, 160.0), (180.0, 400.0)


def band_teacher(**bands_hu) -> Checkpoint:
    """A 3D network that gives each organ the voxels within a band of HU, by hand-made weights."""
    names = list(bands_hu)
    rows = NINE.to_list()
    organs = [next(row for row in rows if row["name"] == name.replace("_", " ")) for name in names]
    part = tiny_part(
        {row["name"]: [channel] for channel, row in enumerate(organs, 1)}, (16, 32, 32), 1 + len(names),
        options={"width": 2 * len(names)},
    )  # fmt: skip
    first = np.zeros((2 * len(names), 1, 3, 3, 3), np.float32)
    shifts = np.zeros(2 * len(names), np.float32)
    last = np.zeros((1 + len(names), 2 * len(names), 1, 1, 1), np.float32)
    for number, (low, high) in enumerate(bands_hu.values()):
        for end, (hu, sign) in enumerate(((low, 1), (high, -1))):
            channel = 2 * number + end
            # A step of some 5 HU at the edge of the band.
            first[channel, 0, 1, 1, 1] = sign * CT["std"] / 5
            shifts[channel] = -sign * (hu - CT["mean"]) / 5
            last[1 + number, channel] = 4
    weights = {
        "0.weight": first, "0.bias": shifts, "2.weight": last,
        "2.bias": np.array([0] + [-4] * len(names), np.float32),
    }  # fmt: skip
    assert TinyOptions(**part["model"]["options"]).width == 2 * len(names)
    return Checkpoint.in_memory({"name": "bands", "organs": organs, "parts": [part]}, [weights])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Two cases to learn from, one to validate on; lungs and aorta are annotated, the liver is not."""
    return Store.open(make_store(tmp_path_factory.mktemp("unlabelled"), range(3), (1, 2, 8)))


@pytest.fixture(scope="module")
def teacher(tiny_networks) -> Checkpoint:  # noqa: F811
    return band_teacher(liver=LIVER_HU, aorta=AORTA_HU)


def windows_recipe(*overrides):
    """A small network on windows, without any augmentation."""
    still = [f"augmentation.{key}=0" for key in ("affine", "elastic", "intensity", "noise", "blur")]
    return recipe(
        "model=unet_resnet10t", "sampling.feed=windows", "augmentation.low_resolution=0", *still,
        "augmentation.mirror=0", "teaching.planes=all", "sampling.mix={}", *overrides,
    )  # fmt: skip


def data_of(store, teacher, made):
    return from_stores([store], made.preprocessing, teacher.organs)


def taught(store, teacher, folder, control=None, made=None):
    made = made or windows_recipe()
    return taught_data(
        data_of(store, teacher, made), teacher, made, folder, Ranks(), control or Control()
    )


def targets_in(folder) -> set[str]:
    return {path.name for path in (folder / "teacher").glob("*")}


def test_targets_are_the_teachers_labels_on_the_stores_grid(store, teacher, tmp_path):
    found = taught(store, teacher, tmp_path)
    predictor = Predictor.from_checkpoint(teacher, "cpu")
    for source, case in zip(found.sources, store.split("train"), strict=True):
        volume = Volume(case.hu(0, 16), case.geometry.affine)
        labels = predictor.predict(volume, options=PredictOptions(force=True))
        for k in range(16):
            planes = source.teaching(k)
            assert planes.shape == (len(found.organs), 64, 64) and planes.dtype == np.int8
            for organ in teacher.organs:
                shown = planes[found.organs.index(organ.name)] > 0
                assert np.array_equal(shown, labels.mask(organ.name)[k])
        liver = found.organs.index("liver")
        assert source.voxels[liver] == labels.mask("liver").sum() > 500
        assert set(source.organ_slices[liver]) == set(np.flatnonzero(labels.mask("liver").any(axis=(1, 2))))


def test_the_reference_decides_where_it_is_annotated(store, tmp_path):
    """What the teacher takes for the aorta changes neither labels nor where the aorta is looked for."""
    other = band_teacher(liver=LIVER_HU, aorta=(-2000.0, -900.0))
    plain = data_of(store, other, windows_recipe())
    found = taught(store, other, tmp_path)
    for before, after in zip(plain.sources, found.sources, strict=True):
        aorta = found.organs.index("aorta")
        assert after.annotated == before.annotated and after.voxels[aorta] == before.voxels[aorta] > 0
        assert np.array_equal(after.organ_slices[aorta], before.organ_slices[aorta])
        windows = (source.window(np.arange(3), 1) for source in (before, after))
        assert all(np.array_equal(one, other) for one, other in zip(*windows))


def test_organs_that_the_teacher_lacks_are_not_taught(store, teacher, tmp_path):
    found = taught(store, teacher, tmp_path)
    known = {organ.name for organ in teacher.organs}
    assert found.organs.names[:2] == teacher.organs.names and len(found.organs) == 9
    for source in found.sources:
        assert {o.name for o, is_taught in zip(found.organs, source.taught) if is_taught} == known
        cord = found.organs.index("spinal cord")
        assert not source.annotated[cord] and cord not in source.organ_slices and not source.located[cord]
    made = windows_recipe("loss.bce=1", "loss.dice=1").resolved(found.organs, found.voxels_per_slice, 1)
    trainer = trainer_of(made, found)
    trainer.step(1)
    gradient = trainer.model.seg_head.weight.grad.abs().sum(dim=(1, 2, 3))
    with_gradient = {organ.name for organ, size in zip(found.organs, gradient) if size > 0}
    assert with_gradient == {"liver", "aorta", "left lung", "right lung"}


def trainer_of(made, found):
    partners = found.organs.mirror_partners()
    torch.manual_seed(0)
    model = new_network(made, found.organs)
    feed = make_feed(found.sources, made, made.preprocessing.context, partners, 0)
    return Trainer(made, model, feed, Ranks(), VolumeTeacher())


def test_batches_carry_what_the_teacher_says_of_their_pixels(store, teacher, tmp_path):
    found = taught(store, teacher, tmp_path)
    made = windows_recipe("sampling.rows=32", "sampling.columns=32", "augmentation.organ_centred=1")
    made = made.resolved(found.organs, found.voxels_per_slice, 1)
    feed = make_feed(found.sources, made, 3, found.organs.mirror_partners(), 0)
    seen = {"liver": 0, "aorta": 0}
    for number in range(4):
        batch = feed.batch(number, CPU)
        middle = batch.hu[:, 1]
        for name, (low, high) in (("liver", LIVER_HU), ("aorta", AORTA_HU)):
            shown = batch.logits[:, found.organs.index(name)] > 0
            assert torch.equal(shown, (middle > low) & (middle < high))
            seen[name] += int(shown.sum())
    assert min(seen.values()) > 200
    logits, known = VolumeTeacher().answers(batch)
    assert torch.equal(known, batch.taught)
    assert torch.equal(logits, batch.logits * LOGIT_STEP) and 3 < logits.max() < 12.71


def test_a_student_learns_what_the_teacher_says_and_not_something_else(teacher, tmp_path):
    """Two teachers that differ in what they call liver and aorta, of which the Store says nothing."""
    store = Store.open(make_store(tmp_path, range(3), (1, 2)))
    wrong = band_teacher(liver=AORTA_HU, aorta=LIVER_HU)
    learnt = {}
    for name, chosen in (("right", teacher), ("wrong", wrong)):
        made = windows_recipe(
            "optimisation.rate=1e-2", "optimisation.schedule=constant", "optimisation.average_decay=0.8",
            "teaching.planes=unannotated", "teaching.fill_confidence=0.9", "sampling.rows=32",
            "sampling.columns=32", "optimisation.epochs=1", "optimisation.steps_per_epoch=80",
            "augmentation.organ_centred=1",
        )  # fmt: skip
        folder = tmp_path / name
        student = train(made, data_of(store, chosen, made), folder, teacher=chosen)
        assert {"teacher", "bce"} <= set(read_metrics(folder)[0]["terms"])
        case = store.split("val")[0]
        volume = Volume(case.hu(0, 16), case.geometry.affine)
        opened, force = Predictor.from_checkpoint(student, "cpu"), PredictOptions(force=True)
        (probability,) = opened.probabilities(volume, ["liver"], options=force)
        inside = {"right": LIVER_HU, "wrong": AORTA_HU}
        learnt[name] = {
            band: float(probability[(volume.voxels > low) & (volume.voxels < high)].mean())
            for band, (low, high) in inside.items()
        }
        assert student.document["training"]["teacher"]["weights_sha256"] == chosen.weights_sha256
    assert learnt["right"]["right"] > 0.5 > learnt["right"]["wrong"], learnt
    assert learnt["wrong"]["wrong"] > 0.5 > learnt["wrong"]["right"], learnt


def test_soft_targets_alone_teach(store, teacher, tmp_path):
    """Without pseudo-labels, the only term of the liver is the teacher's."""
    made = windows_recipe("teaching.planes=unannotated", "loss.temperature=1")
    found = taught(store, teacher, tmp_path)
    resolved = made.resolved(found.organs, found.voxels_per_slice, 1)
    heads = {}
    for weight in (0, 1):
        trainer = trainer_of(replace(resolved, loss=replace(resolved.loss, teacher=float(weight))), found)
        trainer.step(1)
        heads[weight] = trainer.model.seg_head.weight.grad.abs().sum(dim=(1, 2, 3))
    liver, aorta = (found.organs.index(name) for name in ("liver", "aorta"))
    assert heads[0][liver] == 0 < heads[1][liver] and heads[0][aorta] == heads[1][aorta] > 0


class Watch:
    """A callback that notes CTs which a teacher begins with, and cancels in the middle of the chosen one."""

    def __init__(self, stop_in: int | None = None):
        self.begun, self.stop_in, self.reports, self.notes = [], stop_in, 0, []

    def __call__(self, event):
        if event.kind == "teach" and event.values["notes"]:
            self.notes += event.values["notes"]
        elif event.kind == "teach":
            self.begun.append((event.values["case"], event.step, event.steps))

    def progress(self, stage, done, total):
        self.reports += len(self.begun) == self.stop_in and stage == "segment"

    def control(self, **more) -> Control:
        return Control(
            callbacks=(self,), progress=self.progress, cancelled=lambda: self.reports > 1, **more
        )


def test_a_cancelled_teacher_leaves_whole_cases_and_goes_on_with_the_next(store, teacher, tmp_path):
    made = windows_recipe("optimisation.epochs=1", "optimisation.steps_per_epoch=1")
    stopped, goes_on, again = Watch(stop_in=2), Watch(), Watch()
    with pytest.raises(Cancelled, match="the same command goes on"):
        train(made, data_of(store, teacher, made), tmp_path, stopped.control(), teacher=teacher)
    names = [case.name for case in store.split("train")]
    assert stopped.begun == [(names[0], 0, 2), (names[1], 1, 2)]
    (kept,) = targets_in(tmp_path)
    assert kept.startswith(names[0]) and [path.name for path in tmp_path.iterdir()] == ["teacher"]
    train(made, data_of(store, teacher, made), tmp_path, goes_on.control(), teacher=teacher)
    assert goes_on.begun == [(names[1], 1, 2)] and len(targets_in(tmp_path)) == 2
    whole = tmp_path / "at_once"
    train(made, data_of(store, teacher, made), whole, again.control(), teacher=teacher)
    assert len(again.begun) == 2
    for name in targets_in(whole):
        for file in ("logits.b2nd", "targets.json"):
            one, other = (run / "teacher" / name / file for run in (tmp_path, whole))
            assert one.read_bytes() == other.read_bytes()
    ends = [Checkpoint.read(run / "last.safetensors").weights_sha256 for run in (tmp_path, whole)]
    assert ends[0] == ends[1]


def test_what_there_is_to_say_of_the_teacher_is_said_once(store, teacher, tmp_path):
    """Such as a note of its checkpoint, or that it fell back to the CPU."""
    (part,) = teacher.document["parts"]
    noted = {**teacher.document, "parts": [{**part, "notes": ["trained by somebody"]}]}
    watch = Watch()
    taught(store, Checkpoint.in_memory(noted, [teacher.weights(0)]), tmp_path, watch.control())
    assert watch.notes == ["trained by somebody"] and len(watch.begun) == 2


def test_what_a_killed_process_left_is_cleared_and_broken_targets_are_made_again(store, teacher, tmp_path):
    taught(store, teacher, tmp_path)
    first, second = sorted((tmp_path / "teacher").iterdir())
    content = (first / "logits.b2nd").read_bytes()
    (first / "logits.b2nd").write_bytes(content[:-10])
    (tmp_path / "teacher" / ".case.0123.partial").mkdir()
    (tmp_path / "teacher" / ".case.0123.partial" / "raw").write_bytes(b"half")
    watch = Watch()
    taught(store, teacher, tmp_path, watch.control())
    assert len(watch.begun) == 1 and targets_in(tmp_path) == {first.name, second.name}
    assert (first / "logits.b2nd").read_bytes() == content
    facts = json.loads((second / "targets.json").read_text())
    (second / "targets.json").write_text(json.dumps({**facts, "key": "another"}))
    taught(store, teacher, tmp_path, watch.control())
    assert len(watch.begun) == 2


def test_targets_of_another_teacher_are_never_taken(store, teacher, tmp_path):
    """Also of the same network with other organs."""
    taught(store, teacher, tmp_path)
    before = targets_in(tmp_path)
    for other in (band_teacher(liver=AORTA_HU, aorta=LIVER_HU), band_teacher(liver=LIVER_HU)):
        watch = Watch()
        taught(store, other, tmp_path, watch.control())
        assert len(watch.begun) == 2 and not before & targets_in(tmp_path)


def test_a_run_is_not_resumed_with_another_teacher(store, teacher, tmp_path):
    made = windows_recipe("optimisation.epochs=2", "optimisation.steps_per_epoch=1")
    data = data_of(store, teacher, made)
    train(made, data, tmp_path, Control(stop_after_epochs=1), teacher=teacher)
    watch, before = Watch(), targets_in(tmp_path)
    other, fewer = band_teacher(liver=AORTA_HU, aorta=LIVER_HU), teacher.organs.only([0])
    with pytest.raises(SegMateError, match="another teacher"):
        train(made, data, tmp_path, watch.control(resume=True), teacher=other)
    only_liver = {**teacher.document, "organs": fewer.to_list()}
    only_liver["parts"] = [{**only_liver["parts"][0], "grouping": {"liver": [1]}}]
    chosen = Checkpoint.in_memory(only_liver, [teacher.weights(0)])
    turned = from_stores([store], made.preprocessing, chosen.organs)
    with pytest.raises(SegMateError, match="another set of organs"):
        train(made, turned, tmp_path, watch.control(resume=True), teacher=chosen)
    assert not watch.begun and targets_in(tmp_path) == before
    train(made, data, tmp_path, watch.control(resume=True), teacher=teacher)
    assert not watch.begun and [line["kind"] for line in read_metrics(tmp_path)].count("end") == 1


def test_processes_share_the_cases(store, teacher, tmp_path):
    """Each of two makes its own half, and both then read all of them."""
    for rank in (0, 1):
        words = SimpleNamespace(
            rank=rank, world=2, device=CPU, is_first=rank == 0, gather=lambda value: [[0, 1], value],
            any=lambda flag: flag,
        )  # fmt: skip
        made = windows_recipe()
        data = data_of(store, teacher, made)
        if rank == 0:
            with pytest.raises(SegMateError, match="a disk that they share"):
                taught_data(data, teacher, made, tmp_path, words, Control())
            assert len(targets_in(tmp_path)) == 1
        else:
            assert len(taught_data(data, teacher, made, tmp_path, words, Control()).sources) == 2


def test_what_a_3d_teacher_cannot_go_over_is_refused(store, teacher, tmp_path):
    made = windows_recipe()
    with pytest.raises(SegMateError, match="goes over Stores, blocks_0.*segmate prepare"):
        taught_data(replace(cases_in_memory(), organs=NINE), teacher, made, tmp_path, Ranks(), Control())
    chunks = windows_recipe("sampling.feed=chunks")
    with pytest.raises(SegMateError, match='set sampling.feed to "windows"'):
        taught_data(data_of(store, teacher, chunks), teacher, chunks, tmp_path, Ranks(), Control())
    spleen = OrganSet.from_list(organ_rows("spleen"))
    data = from_stores([store], made.preprocessing)
    stranger = Checkpoint.in_memory(
        {**teacher.document, "organs": [*teacher.organs.to_list()[:1], *spleen.to_list()], "parts": [
            {**teacher.document["parts"][0], "grouping": {"liver": [1], "spleen": [2]}}
        ]}, [teacher.weights(0)],
    )  # fmt: skip
    with pytest.raises(SegMateError, match="1 of the 2 organs"):
        taught_data(data, stranger, made, tmp_path, Ranks(), Control())
    assert not (tmp_path / "teacher").exists()
