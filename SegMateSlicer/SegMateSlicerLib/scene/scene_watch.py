"""What must hold of the scene from start to end of a run: its nodes are there, the CT lies where it lay.

Takes the nodes of a run, raises SegMateError with a plain sentence where they have changed under it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from slicer.i18n import tr as _

from SegMateCore.errors import SegMateError
from SegMateSlicerLib.scene.volume_exchange import ijk_to_world, voxels_of

_SAME_MM = 1e-6


class SceneWatch:
    """Remembers the nodes at the start of a run. ijk_to_world: (4, 4) of the CT then, to RAS mm."""

    def __init__(self, volume, nodes: Sequence):
        self._shape = voxels_of(volume).shape
        self._volume, self._nodes = volume, list(nodes)
        self._voxels_state = self._state()
        self.ijk_to_world = ijk_to_world(volume)
        self.check_nodes()

    def check_nodes(self) -> None:
        """Every node is still in its scene."""
        for node in self._nodes:
            if node.GetScene() is None:
                raise SegMateError(
                    _("{name!r} is not in the scene (any more): it was deleted, or the scene was closed")
                    .format(name=node.GetName())
                )  # fmt: skip

    def check_voxels(self) -> None:
        """Nobody has changed the CT's voxels while they were copied."""
        if self._state() != self._voxels_state:
            raise SegMateError(_("the CT was changed while it was being read; segment again"))

    def check_geometry(self) -> None:
        """The CT lies where it lay: results for another place may be wrong about sides."""
        image = self._volume.GetImageData()
        same = image is not None and image.GetDimensions()[::-1] == self._shape
        if not same or not np.allclose(ijk_to_world(self._volume), self.ijk_to_world, rtol=0, atol=_SAME_MM):
            raise SegMateError(
                _("the CT {name!r} was moved or resized during the run: segment it again")
                .format(name=self._volume.GetName())
            )  # fmt: skip

    def _state(self) -> tuple:
        image = self._volume.GetImageData()
        if image is None:
            return ()
        # The image is another one when a volume gets new voxels, the time another when they are edited.
        return image, image.GetPointData().GetScalars().GetMTime()
