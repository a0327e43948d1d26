"""DICOM in and out; the only code that imports pydicom or highdicom."""
