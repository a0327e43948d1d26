"""DICOM in and out; the only code that imports pydicom, highdicom or pynetdicom."""
