"""DICOM CT series in: from a folder, a ZIP or a file to a Volume in HU, and to the headers it came from.

`open_series(path, series)` gives a DicomSeries, `list_series(path)` what there is to choose from. The way of
a file: files.py, headers.py, frames.py (one slice each), stack.py (their grid), decoding.py (their HU).
"""

from SegMateCore.dicom.frames import Frame
from SegMateCore.dicom.listing import SeriesSummary, list_series
from SegMateCore.dicom.series import DicomSeries, open_series, read_dicom_series

__all__ = ["DicomSeries", "Frame", "SeriesSummary", "list_series", "open_series", "read_dicom_series"]
