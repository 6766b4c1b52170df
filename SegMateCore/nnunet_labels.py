"""What the channels of an nnU-Net network are: its dataset.json as names and an activation.

Takes the Entries of a dataset.json, gives Channels. Labels: one channel for each, background first. Regions
(a label that stands for several): one channel for each but the background, painted one over the other in the
order of the file (nnU-Net's documentation, "Region-based training").
"""

from __future__ import annotations

from dataclasses import dataclass

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import Entries

BACKGROUND, IGNORED = "background", "ignore"


@dataclass(frozen=True)
class Channels:
    """names: of the output channels; activation: "softmax" or "regions"."""

    names: tuple[str, ...]
    activation: str


def channels_of(dataset: Entries) -> Channels:
    """Of the network that was trained on this data set. Raises SegMateError."""
    _check_one_image(dataset)
    labels = dataset.table("labels")
    values = {name: _label(labels, name) for name in labels.values if name != IGNORED}
    if values.get(BACKGROUND) not in (0, [0]):
        raise SegMateError(
            f'{labels.where}: there is no "{BACKGROUND}" with the label 0; expected names and their labels '
            'as nnU-Net v2 has them, {"background": 0, "liver": 1}. Models of nnU-Net v1 cannot be imported'
        )
    if any(isinstance(value, list) and len(value) > 1 for value in values.values()):
        return Channels(_regions(dataset, values), "regions")
    single = {name: value[0] if isinstance(value, list) else value for name, value in values.items()}
    if sorted(single.values()) != list(range(len(single))):
        raise SegMateError(
            f"{labels.where}: the labels are {sorted(single.values())}; expected 0, 1, 2 and so on, each once"
        )
    if len(single) < 2:
        raise SegMateError(f"{labels.where}: there is nothing but the background; expected one label more")
    return Channels(tuple(sorted(single, key=single.__getitem__)), "softmax")


def _check_one_image(dataset: Entries) -> None:
    # The older name of the same entry.
    key = "modality" if "modality" in dataset.values else "channel_names"
    images = dataset.table(key).values
    if len(images) != 1:
        given = ", ".join(map(str, images.values())) or "none"
        raise SegMateError(
            f"{dataset.where}: the network takes {len(images)} images ({given}); expected one, since all "
            "that it is given here is one CT"
        )


def _label(labels: Entries, name: str) -> int | list[int]:
    value = labels.values[name]
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise labels.refused(name, "a label, a whole number from 0, or a list of labels")
    return value


def _regions(dataset: Entries, values: dict[str, int | list[int]]) -> tuple[str, ...]:
    """Names of the regions in the order in which they are painted."""
    names = tuple(name for name, value in values.items() if value not in (0, [0]))
    painted = dataset.sequence("regions_class_order")
    whole = all(type(label) is int and label > 0 for label in painted)
    if not whole or len(painted) != len(names) or len(set(painted)) != len(painted):
        raise dataset.refused(
            "regions_class_order", f"{len(names)} different labels from 1, one for each region"
        )
    return names
