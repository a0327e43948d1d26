"""NIfTI-1 and NIfTI-2, .nii and .nii.gz, through nibabel."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from spicula.core.geometry import RAS_TO_LPS, Geometry
from spicula.core.volume import Acquisition, Volume


def read(path: Path) -> Volume:
    """Read one NIfTI file.

    Args:
        path: The file.

    Returns:
        Its volume in HU as stored.
    """
    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    affine = (RAS_TO_LPS @ image.affine)[:, [2, 1, 0, 3]]
    array_zyx = np.ascontiguousarray(array.T)
    if array_zyx.dtype != np.int16:
        array_zyx = array_zyx.astype(np.float32)
    return Volume(array_zyx, Geometry(array_zyx.shape, affine), acquisition=Acquisition(str(path), "NIfTI"))
