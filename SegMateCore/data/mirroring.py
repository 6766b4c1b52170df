"""What organs are called in the mirror image: left ones right, right ones left.

Takes OrganSet.mirror_partners(), gives the labels and annotated flags of a mirrored image. An organ whose
partner is not in the table has no name there: it is not labelled and not annotated.
"""

from __future__ import annotations

from torch import Tensor


class MirrorNames:
    """renaming: for each label from 0 on (0, or channel + 1), the one in the mirror."""

    def __init__(self, partners: tuple[int | None, ...]):
        self.renaming = (0, *(0 if partner is None else partner + 1 for partner in partners))
        self._sources = [channel if partner is None else partner for channel, partner in enumerate(partners)]
        self._has_name = [partner is not None for partner in partners]

    def annotated(self, annotated: Tensor) -> Tensor:
        """bool (..., C) of an image -> that of its mirror image."""
        return annotated[..., self._sources] & annotated.new_tensor(self._has_name)

    def planes(self, planes: Tensor) -> Tensor:
        """Channels (B, C, ...) of a mirrored image under their names there; one without a name stays."""
        return planes[:, self._sources]
