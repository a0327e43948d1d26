"""Image files in, one Volume out: DICOM, NIfTI, NRRD and MetaImage."""

from spicula.formats.nifti import write as write_nifti
from spicula.formats.nrrd import write as write_nrrd
from spicula.formats.scans import Scan, find_scans, read_volume

__all__ = ["Scan", "find_scans", "read_volume", "write_nifti", "write_nrrd"]
