"""nnU-Net's plans and descriptions of data sets: read as meant, or refused with file, entry and reason."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from small_nnunet import LABELS, OLD, dataset, plans, residual  # noqa: E402

from SegMateCore.errors import SegMateError  # noqa: E402
from SegMateCore.json_entries import Entries, read_json  # noqa: E402
from SegMateCore.models import create_model  # noqa: E402
from SegMateCore.nnunet_labels import channels_of  # noqa: E402
from SegMateCore.nnunet_plans import known_orientation, planned_part, resolved_configuration  # noqa: E402
from SegMateCore.patch_plan import PatchPlan  # noqa: E402
from SegMateCore.patch_preprocessing import PatchPreprocessing  # noqa: E402

JUNK = [None, True, -1, 0, 1.5, 10**30, float("inf"), float("nan"), "", "x", [], [1], [[]], [None] * 3, {},
        {"0": 1}, 10**9]  # fmt: skip


def planned(content: dict, name: str = "3d_fullres"):
    return planned_part(Entries(content, "plans.json"), name, 5)


def changed(*way, content: dict | None = None, to: object = None) -> dict:
    """Plans in which the entry at the end of the way is another, or absent where `to` is Ellipsis."""
    content = copy.deepcopy(content or plans())
    place = content
    for key in way[:-1]:
        place = place[key]
    if to is ...:
        del place[way[-1]]
    else:
        place[way[-1]] = to
    return content


def fullres(key: str, to: object, content: dict | None = None) -> dict:
    return changed("configurations", "3d_fullres", key, content=content, to=to)


def argument(key: str, to: object, content: dict | None = None) -> dict:
    way = ("configurations", "3d_fullres", "architecture", "arch_kwargs", key)
    return changed(*way, content=content, to=to)


BLOCKS = "dynamic_network_architectures.building_blocks.residual"
REFUSED = {
    "too many blocks": (argument("n_conv_per_stage", 10**9), "encoder_blocks", "100"),
    "too large patches": (fullres("patch_size", [4 * 10**9, 8, 8]), "patch_size", "1024"),
    "cascade": (fullres("previous_stage", "3d_lowres"), "cascade", "3d_lowres"),
    "slices": (fullres("patch_size", [64, 64]), "slices", "3D"),
    "patch": (fullres("patch_size", [8, 12, 18]), "patch_size", "[4, 4, 4]"),
    "patch of texts": (fullres("patch_size", ["8", 8, 8]), "patch_size", "whole numbers"),
    "no patch": (fullres("patch_size", ...), "patch_size", "there is no"),
    "spacing": (fullres("spacing", [1, 0, 1]), "spacing", "above 0"),
    "infinite spacing": (fullres("spacing", [1, float("inf"), 1]), "spacing", "above 0"),
    "preprocessor": (fullres("preprocessor_name", "MyPreprocessor"), "MyPreprocessor", "DefaultPreprocessor"),
    "resampling": (fullres("resampling_fn_data", "resample_torch_simple"), "torch_simple", "default"),
    "resampling back": (fullres("resampling_fn_probabilities", ...), "fn_probabilities", "there is no"),
    "order": (fullres("resampling_fn_data_kwargs", {"order": 1}), "resampling_fn_data_kwargs", "order 3"),
    "separation": (
        fullres("resampling_fn_data_kwargs", {"force_separate_z": True}), "resampling_fn_data_kwargs", "null"
    ),
    "separation of one": (
        fullres("resampling_fn_data_kwargs", {"force_separate_z": False}), "probabilities", "the same"
    ),
    "normalisation": (fullres("normalization_schemes", ["NoNormalization"]), "NoNorm", "ZScore"),
    "two images": (fullres("normalization_schemes", ["CTNormalization"] * 2), "normalization_schemes", "one"),
    "masked": (
        fullres("use_mask_for_norm", [True], fullres("normalization_schemes", ["ZScoreNormalization"])),
        "use_mask_for_norm", "mask",
    ),
    "intensities": (
        changed("foreground_intensity_properties_per_channel", "0", "std", to="1"), "std", "a number"
    ),
    "deviation": (
        changed("foreground_intensity_properties_per_channel", "0", "std", to=0.0), "std", "above 0"
    ),
    "no intensities": (
        changed("foreground_intensity_properties_per_channel", to=...), "foreground_intensity", "there is no"
    ),
    "transposition": (changed("transpose_forward", to=[0, 1, 1]), "transpose_forward", "any order"),
    "label manager": (changed("label_manager", to="Mine"), "Mine", "LabelManager"),
    "network": (
        changed("configurations", "3d_fullres", "architecture", "network_class_name", to="primus.Primus"),
        "primus.Primus", "ResidualEncoderUNet",
    ),
    "old network": (fullres("UNet_class_name", "MyUNet", plans(OLD)), "MyUNet", "PlainConvUNet"),
    "old widths": (fullres("UNet_base_num_features", None, plans(OLD)), "UNet_base_num_features", "number"),
    "2D convolution": (argument("conv_op", "torch.nn.modules.conv.Conv2d"), "Conv2d", "3D"),
    "norm": (argument("norm_op", "torch.nn.GroupNorm"), "GroupNorm", "InstanceNorm3d"),
    "norm's options": (argument("norm_op_kwargs", {"eps": "small"}), "norm_op_kwargs", "eps"),
    "unknown option of the norm": (argument("norm_op_kwargs", {"groups": 2}), "norm_op_kwargs", "eps"),
    "nonlinearity": (argument("nonlin", "torch.nn.GELU"), "GELU", "LeakyReLU"),
    "no nonlinearity": (argument("nonlin", None), "nonlin", "LeakyReLU"),
    "dropout": (argument("dropout_op", "torch.nn.AlphaDropout"), "AlphaDropout", "Dropout3d"),
    "stages": (argument("n_stages", 4), "features_per_stage", "4 entries"),
    "widths": (argument("features_per_stage", [4, 6, -6]), "features", "plans.json"),
    "kernels": (argument("kernel_sizes", [[3, 3, 3], [3, 3], [3, 3, 3]]), "kernels", "plans.json"),
    "even kernels": (argument("kernel_sizes", 2), "odd", "plans.json"),
    "first stride": (argument("strides", 2), "strides[0]", "plans.json"),
    "bias": (argument("conv_bias", "yes"), "conv_bias", "true or false"),
    "something unknown": (argument("attention", True), "attention", "cannot be built"),
    "squeeze and excitation": (
        argument("squeeze_excitation", True, plans(residual())), "squeeze_excitation", "cannot be built"
    ),
    "stochastic depth": (
        argument("stochastic_depth_p", 0.2, plans(residual())), "stochastic_depth_p", "cannot be built"
    ),
    "bottleneck": (
        argument("block", f"{BLOCKS}.BottleneckD", plans(residual())), '"block"', "BasicBlockD",
    ),
    "bottleneck widths": (
        argument("bottleneck_channels", [2, 2, 2], plans(residual())), "bottleneck_channels", "cannot"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(case):
    content, *words = REFUSED[case]
    with pytest.raises(SegMateError) as caught:
        planned(content)
    text = str(caught.value)
    assert "\n" not in text and "plans.json" in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("content", [
    argument("dropout_op", "torch.nn.modules.dropout.Dropout3d"),
    argument("deep_supervision", True),
    argument("nonlin_first", False),
    argument("stochastic_depth_p", 0.0, plans(residual())),
    argument("squeeze_excitation", False, plans(residual())),
    argument("block", f"{BLOCKS}.BasicBlockD", plans(residual())),
])  # fmt: skip
def test_what_changes_nothing_is_accepted(content):
    usual = planned(plans(residual())) if "n_blocks_per_stage" in json.dumps(content) else planned(plans())
    assert planned(content) == usual


def test_zscore_and_the_older_name_of_the_intensities():
    part = planned(fullres("normalization_schemes", ["ZScoreNormalization"]))
    assert part.preprocessing["normalisation"] == {"kind": "zscore"}
    content = plans()
    key = "foreground_intensity_properties_per_channel"
    content["foreground_intensity_properties_by_modality"] = content.pop(key)
    assert planned(content) == planned(plans())


def test_never_separated_axes():
    content = plans()
    for kind, order in (("data", 3), ("probabilities", 1)):
        kwargs = {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": False}
        content = fullres(f"resampling_fn_{kind}_kwargs", kwargs, content)
    assert planned(content).preprocessing["coarse_axis"] is None


def test_inheritance_is_followed_and_own_entries_win():
    content = plans()
    content["configurations"]["a"] = {"inherits_from": "b", "spacing": [9.0, 9.0, 9.0]}
    between = {"inherits_from": "3d_fullres", "spacing": [5.0, 5.0, 5.0], "patch_size": [4, 4, 4]}
    content["configurations"]["b"] = between
    part = planned(content, "a")
    assert part.preprocessing["spacing_mm"] == [9.0, 9.0, 9.0] and part.patches["size"] == [4, 4, 4]
    content["configurations"]["b"]["inherits_from"] = "a"
    with pytest.raises(SegMateError, match="circle"):
        planned(content, "a")
    with pytest.raises(SegMateError, match="there is no c; there are 2d, 3d_fullres, a, b"):
        resolved_configuration(Entries(content, "plans.json"), "c")


def test_the_reader_of_the_images_may_say_their_orientation():
    assert known_orientation(Entries({"image_reader_writer": "NibabelIOWithReorient"}, "")) == "RAS"
    assert known_orientation(Entries({"image_reader_writer": "NibabelIO"}, "")) is None


@st.composite
def networks(draw) -> dict:
    """Plans in the old form, which can say less, with two to four stages."""
    stages = draw(st.integers(2, 4))
    triples = st.lists(st.sampled_from([1, 2]), min_size=3, max_size=3)
    kernels = st.lists(st.sampled_from([1, 3]), min_size=3, max_size=3)
    counts, fewer = st.integers(1, 2), {"min_size": stages - 1, "max_size": stages - 1}
    return {
        "UNet_class_name": draw(st.sampled_from(["PlainConvUNet", "ResidualEncoderUNet"])),
        "UNet_base_num_features": draw(st.integers(1, 4)), "unet_max_num_features": draw(st.integers(2, 9)),
        "n_conv_per_stage_encoder": draw(st.lists(counts, min_size=stages, max_size=stages)),
        "n_conv_per_stage_decoder": draw(st.lists(counts, **fewer)),
        "pool_op_kernel_sizes": [[1, 1, 1], *draw(st.lists(triples, **fewer))],
        "conv_kernel_sizes": draw(st.lists(kernels, min_size=stages, max_size=stages)),
    }  # fmt: skip


@given(networks(), st.lists(st.integers(1, 16), min_size=3, max_size=3))
@settings(max_examples=25)
def test_the_network_of_any_plans_takes_their_patches(network, size):
    """Accepted exactly where striding leaves no rest, and then the logits have the patch's size."""
    sides, fits = list(size), True
    for stride in network["pool_op_kernel_sizes"]:
        fits &= all(side % step == 0 for side, step in zip(sides, stride))
        sides = [side // step for side, step in zip(sides, stride)]
    content = plans(network, patch_size=size)
    if not fits:
        with pytest.raises(SegMateError, match="patch_size"):
            planned(content)
        return
    assume(max(sides) > 1)  # torch refuses the instance norm of a single voxel
    part = planned(content)
    model = create_model(part.network, **part.options).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, *size)).shape == (1, 5, *size)
    base, most = network["UNet_base_num_features"], network["unet_max_num_features"]
    widths = [min(base * 2**stage, most) for stage in range(9)]
    assert part.options["features"] == widths[: len(part.options["features"])]


@given(st.permutations([0, 1, 2]), st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_spacing_is_that_of_the_axes_whatever_the_transposition(axes, spacing):
    """As nnU-Net: transposed spacing[d] = spacing[transpose_forward[d]] of the (k, j, i) array."""
    transposed = [spacing[axis] for axis in axes]
    content = changed("transpose_forward", content=fullres("spacing", transposed), to=list(axes))
    assert planned(content).preprocessing["spacing_mm"] == spacing[::-1]


def places(value: object, way: tuple = ()) -> list[tuple]:
    """The ways to all entries below a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in [(*way, key), *places(value[key], (*way, key))]]


@given(st.data())
@settings(max_examples=150)
def test_any_wrong_entry_is_refused_or_without_effect(data):
    content = data.draw(st.sampled_from([plans(), plans(OLD), plans(residual())]))
    way = data.draw(st.sampled_from(places(content)))
    content = changed(*way, content=content, to=data.draw(st.sampled_from([*JUNK, ...])))
    try:
        part = planned(content)
    except SegMateError as error:
        assert "plans.json" in str(error) and "\n" not in str(error)
        return
    # What was accepted can be a part of a checkpoint.
    with torch.device("meta"):
        create_model(part.network, **part.options)
    PatchPlan.from_dict(part.patches)
    PatchPreprocessing.from_dict({"orientation": "RAS", **part.preprocessing})


class TestLabels:
    def channels(self, labels: object, **changes):
        return channels_of(Entries(dataset(labels, **changes), "dataset.json"))

    def test_channels_follow_the_labels_and_not_the_order_of_the_file(self):
        found = self.channels({"aorta": 2, "background": 0, "liver": [1], "ignore": 3})
        assert (found.names, found.activation) == (("background", "liver", "aorta"), "softmax")

    def test_regions_follow_the_order_of_the_file(self):
        labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
        found = self.channels(labels, regions_class_order=[5, 2])
        assert (found.names, found.activation) == (("whole", "core"), "regions")

    @pytest.mark.parametrize("labels, word", [
        ({"liver": 1}, "background"),
        ({"0": "background", "1": "liver"}, "0"),
        ({"background": [0, 1], "liver": 1}, "background"),
        ({"background": 0}, "nothing but"),
        ({"background": 0, "liver": 2}, "[0, 2]"),
        ({"background": 0, "liver": 1, "aorta": 1}, "[0, 1, 1]"),
        ({"background": 0, "liver": True}, "liver"),
        ({"background": 0, "liver": []}, "liver"),
        ({"background": 0, "liver": "1"}, "liver"),
        ({"background": 0, "liver": -1}, "liver"),
        ([], "labels"),
    ])  # fmt: skip
    def test_wrong_labels_are_refused(self, labels, word):
        with pytest.raises(SegMateError) as caught:
            self.channels(labels)
        assert word in str(caught.value) and "dataset.json" in str(caught.value)

    @pytest.mark.parametrize("order", [..., [1], [1, 1], [0, 1], ["a", "b"], None])
    def test_regions_need_an_order(self, order):
        changes = {} if order is ... else {"regions_class_order": order}
        with pytest.raises(SegMateError, match="regions_class_order"):
            self.channels({"background": 0, "whole": [1, 2], "core": 2}, **changes)

    @pytest.mark.parametrize("images", [{"0": "CT", "1": "PET"}, {}, ["CT"]])
    def test_other_numbers_of_images_are_refused(self, images):
        with pytest.raises(SegMateError, match="image|channel_names"):
            self.channels(LABELS, channel_names=images)
        assert self.channels(LABELS, modality={"0": "CT"}).names == tuple(LABELS)

    @given(st.data())
    def test_any_wrong_entry_is_refused_or_without_effect(self, data):
        content = {**dataset({"background": 0, "a": [1, 2], "b": 2}), "regions_class_order": [1, 2]}
        way = data.draw(st.sampled_from(places(content)))
        content = changed(*way, content=content, to=data.draw(st.sampled_from([*JUNK, ...])))
        try:
            found = channels_of(Entries(content, "dataset.json"))
        except SegMateError as error:
            assert "dataset.json" in str(error) and "\n" not in str(error)
        else:
            assert found.names and found.activation in ("softmax", "regions")


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path, "mend it").values == {"a": 1}
    monkeypatch.setattr("SegMateCore.json_entries.LARGEST_BYTES", 3)
    with pytest.raises(SegMateError, match="too many"):
        read_json(path, "mend it")
