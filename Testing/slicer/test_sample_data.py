"""SegMate's section of Sample Data: Slicer's own module with SLICER_SOURCE, else a stand-in."""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import slicer

from SegMateCore.data.phantom import make_phantom
from SegMateCore.demo import DEMO_SEED


class SampleDataSource:
    """As Slicer's: uris and nodeNames are two strings, or two lists of the same length; None is an error."""

    def __init__(
        self, sampleName=None, uris=None, nodeNames=None, thumbnailFileName=None, customDownloader=None
    ):
        if isinstance(uris, str):
            uris, nodeNames = [uris], [nodeNames]
        if len(uris) != len(nodeNames):
            raise ValueError("All fields of sample data source must have the same length")
        self.sampleName = sampleName
        self.uris = uris
        self.nodeNames = nodeNames
        self.thumbnailFileName = thumbnailFileName
        self.customDownloader = customDownloader


class SampleDataLogic:
    """As Slicer's, with two of the CTs that Slicer offers."""

    def __init__(self):
        names = ("MRHead", "CTChest", "CTLiver")
        sources = [SampleDataSource(name, f"https://example.org/{name}", name) for name in names]
        slicer.modules.sampleDataSources.setdefault("General", sources)

    def sourceForSampleName(self, sampleName):
        every = [source for sources in slicer.modules.sampleDataSources.values() for source in sources]
        return next((source for source in every if source.sampleName == sampleName), None)

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", **fields):
        slicer.modules.sampleDataSources.setdefault(category, []).append(SampleDataSource(**fields))


@pytest.fixture
def sources(host, scene, monkeypatch) -> dict:
    """slicer.modules.sampleDataSources, filled by the module Sample Data alone."""
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    if host.uses_slicer_sources:
        folder = Path(os.environ["SLICER_SOURCE"], "Modules", "Scripted", "SampleData")
        host.load_module(folder / "SampleData.py")
    else:
        module = types.ModuleType("SampleData")
        module.SampleDataLogic = SampleDataLogic
        monkeypatch.setitem(sys.modules, "SampleData", module)
        monkeypatch.setattr(slicer.modules, "sampledata", object(), raising=False)
    return slicer.modules.sampleDataSources


@pytest.fixture
def sample_data(host):
    from SegMateSlicerLib.setup import sample_data

    return sample_data


def test_the_section_offers_slicers_own_cts_and_the_phantom(sources, sample_data):
    sample_data.register_sample_data()
    *public, phantom = sources[sample_data.CATEGORY]
    built_in = {source.sampleName: source for source in sources["General"]}
    assert {"CTChest", "CTLiver"} <= {source.sampleName for source in public} <= set(sample_data.PUBLIC_CTS)
    assert all(built_in[source.sampleName] is source for source in public)
    assert phantom.sampleName == "SegMate phantom"
    assert phantom.customDownloader is sample_data.load_phantom
    assert Path(phantom.thumbnailFileName).is_file()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0  # nothing is loaded unasked


def test_registering_again_leaves_one_of_each(sources, sample_data):
    for _ in range(3):
        sample_data.register_sample_data()
    names = [source.sampleName for source in sources[sample_data.CATEGORY]]
    assert len(names) == len(set(names)) and "SegMate phantom" in names


def test_a_slicer_without_sample_data_is_left_alone(host, scene, sample_data, monkeypatch):
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    monkeypatch.delattr(slicer.modules, "sampledata", raising=False)
    sample_data.register_sample_data()
    assert slicer.modules.sampleDataSources == {}


def test_the_phantom_is_one_that_the_checkpoint_has_not_seen(sample_data):
    assert sample_data.PHANTOM_SEED == DEMO_SEED


def test_the_phantom_is_loaded_while_the_window_stays_alive(scene, sample_data, monkeypatch):
    monkeypatch.setattr(sample_data, "PHANTOM_SPACING_MM", 5.0)
    times = [time.monotonic()]
    process_events = slicer.app.processEvents

    def processEvents():
        times.append(time.monotonic())
        process_events()

    monkeypatch.setattr(slicer.app, "processEvents", processEvents)
    node = sample_data.load_phantom()
    phantom = make_phantom(DEMO_SEED, 5.0)
    assert np.array_equal(slicer.util.arrayFromVolume(node), phantom.volume.voxels)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(ijk_to_ras(node)), phantom.volume.affine, atol=1e-6)
    assert node.GetName() == "SegMate phantom"
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (400, 40)
    # The thread holds the interpreter for whole numpy calls; a stand-still would be one gap of seconds.
    gaps = np.diff(times)
    assert len(gaps) > 5 and np.median(gaps) < 0.2, np.sort(gaps)[-5:]


def test_a_second_click_while_the_phantom_is_made_starts_no_second_one(scene, sample_data, monkeypatch):
    monkeypatch.setattr(sample_data, "PHANTOM_SPACING_MM", 8.0)
    messages, nested, made = [], [], []
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda text, ms: messages.append(text))
    make, process_events = sample_data._make_phantom, slicer.app.processEvents
    monkeypatch.setattr(sample_data, "_make_phantom", lambda: made.append(1) or make())

    def click_again():
        nested.append(sample_data.load_phantom())
        process_events()

    monkeypatch.setattr(slicer.app, "processEvents", click_again)
    assert sample_data.load_phantom() is not None
    assert nested and set(nested) == {None} and len(made) == 1
    assert len(messages) == len(nested) and "already" in messages[0]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    monkeypatch.setattr(slicer.app, "processEvents", process_events)
    assert sample_data.load_phantom() is not None and len(made) == 2


def ijk_to_ras(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_what_goes_wrong_in_the_thread_reaches_the_caller(scene, sample_data, monkeypatch):
    monkeypatch.setattr(sample_data, "PHANTOM_SPACING_MM", -1)
    with pytest.raises(Exception, match="phantom spacing -1 mm"):
        sample_data.load_phantom()
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
