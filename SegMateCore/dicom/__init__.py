"""DICOM CT series in: from a folder, a ZIP or a file to a Volume in HU, and to the headers it came from.

`open_series(path, series)` gives a DicomSeries, `list_series(path)` what is there to choose from.
"""

from SegMateCore.dicom.series import (
    DicomSeries,
    Frame,
    SeriesSummary,
    list_series,
    open_series,
    read_dicom_series,
)

__all__ = ["DicomSeries", "Frame", "SeriesSummary", "list_series", "open_series", "read_dicom_series"]
