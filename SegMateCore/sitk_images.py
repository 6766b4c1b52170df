"""SimpleITK images to Volumes and back.

SimpleITK keeps positions in LPS millimetres as origin, spacing and direction; Volumes are RAS. SimpleITK is
an optional companion and only imported when one of these functions is called.
"""

from __future__ import annotations

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.volume import Volume

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_from_sitk(image) -> Volume:
    """From a 3D scalar SimpleITK.Image; the voxels are copied. Raises SegMateError for other dimensions."""
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise SegMateError(
            f"the SimpleITK image is {image.GetDimension()}D with {image.GetNumberOfComponentsPerPixel()}"
            " components per voxel, expected a 3D image with one"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(SimpleITK.GetArrayFromImage(image), _LPS_RAS @ affine)


def sitk_from_volume(volume: Volume):
    """A SimpleITK.Image with a copy of the voxels."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.voxels))
    lps = _LPS_RAS @ volume.affine
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection((lps[:3, :3] / volume.spacing_mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
