"""SegMate in 3D Slicer: choose a CT and a checkpoint, press Segment, get named, coded, coloured organs.

Four classes, as Slicer expects of a scripted module: SegMateSlicer describes the module, SegMateSlicerWidget
is its panel, SegMateSlicerLogic is what scripts call, SegMateSlicerTest tests it inside Slicer. What stands
behind them is in SegMateSlicerLib, imported only when needed: this file hardly adds to Slicer's start.
"""

from __future__ import annotations

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

DOCUMENTATION = "https://github.com/SegMateSlicer/SlicerSegMate/blob/main/docs/slicer/tutorial.md"
AFTER_SELECTORS = -1.0
"""Priority of an observer that is called after those of Slicer's widgets, which have 0."""


class SegMateSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module: its name, its place in the menu, help and credits."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SegMate")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "SubjectHierarchy"]
        self.parent.contributors = ["SegMateSlicer developers"]
        self.parent.helpText = _(
            "Segments organs in CT with networks of the SegMate family: lungs, liver, kidneys, aorta,"
            " trachea, esophagus and spinal cord with the bundled checkpoint, which is for demonstration"
            " only. Runs on the CPU without PyTorch, or on a GPU with it. <b>Research use only, not for"
            " diagnosis.</b>"
            ' <a href="{address}">Tutorial and help</a>.'
        ).format(address=DOCUMENTATION)
        self.parent.acknowledgementText = _(
            "The bundled checkpoint was trained on synthetic CTs and on public CTs; its model card credits"
            " them, and the panel shows the checkpoint's licences."
        )
        from SegMateSlicerLib.core_path import ensure_core

        ensure_core()
        slicer.app.startupCompleted.connect(self.registerAdditions)
        # Slicer loads its first module when it has made all of them: here is one that was added later, for
        # which the signal never comes.
        if slicer.util.moduleNames():
            self.registerAdditions()

    def registerAdditions(self) -> None:
        """Register what needs other modules to be loaded: sample data and the right-click menu."""
        from SegMateSlicerLib.setup.registration import register_additions

        register_additions()


class SegMateSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: what Slicer calls, and the scene's events. What it does: SegMateSlicerLib.panel.panel."""

    def __init__(self, parent=None) -> None:
        # All of this first: without a parent the base class calls setup() at once.
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameterNode = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self) -> None:
        """Slicer calls this when the module is opened for the first time, and after a reload."""
        ScriptedLoadableModuleWidget.setup(self)
        from SegMateSlicerLib.core_path import ensure_core

        ensure_core()
        from SegMateSlicerLib.panel.panel import Panel
        from SegMateSlicerLib.panel.settings import Settings

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SegMateSlicer.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.logic = SegMateSlicerLogic()
        self.panel = Panel(self.ui, self.logic, Settings(slicer.app.settings()))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        # After Slicer's node selectors, which list the new scene's nodes at the same events.
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self.onSceneReady, priority=AFTER_SELECTORS)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.NodeAddedEvent, self.onSceneNodes)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onSceneNodes)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Slicer calls this when it ends and before a reload: no process and no observer stays."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
        if self.logic is not None:
            self.logic.close()

    def onReload(self) -> None:
        """Developers' button "Reload": ends what is under way and the worker; changed files of the library
        and of SegMateCore count from now on.
        """
        # Slicer cleans up once more, which does no harm: but then the library of this panel has gone.
        self.cleanup()
        from SegMateSlicerLib.setup.reload import forget_library

        forget_library()
        ScriptedLoadableModuleWidget.onReload(self)

    def enter(self) -> None:
        """The user opens the module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """The user opens another module. A run goes on; its result is there when the user comes back."""

    def initializeParameterNode(self) -> None:
        """Show the scene's parameter node, a new one where it has none."""
        shown = self._parameterNode
        if shown is None or shown.parameterNode.GetScene() is None:
            self.setParameterNode(self.logic.getParameterNode())
        else:
            self.panel.refresh()

    def setParameterNode(self, parameterNode) -> None:
        """Show these parameters; None forgets those that were shown."""
        if self._parameterNode is not None:
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self._parameterNode = parameterNode
        self.panel.set_parameters(parameterNode)
        if parameterNode is not None:
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameters)

    def onParameters(self, caller=None, event=None) -> None:
        self.panel.refresh()

    def onSceneNodes(self, caller=None, event=None) -> None:
        self.panel.refresh_soon()

    def onSceneStartClose(self, caller=None, event=None) -> None:
        """The nodes of a run are about to go: end it."""
        self.logic.cancel()
        self.setParameterNode(None)

    def onSceneStartImport(self, caller=None, event=None) -> None:
        """Nodes come from a file: the node selectors choose none meanwhile, which nobody has asked for."""
        self.setParameterNode(None)

    def onSceneReady(self, caller=None, event=None) -> None:
        self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """Before the node selectors know: they would choose a neighbour instead."""
        self.panel.forget_node(node)


class SegMateSlicerLogic(ScriptedLoadableModuleLogic):
    """What scripts call: segment a volume, a scene, a sequence or a folder. Research use only.

    SegMateSlicerLogic().segment(volumeNode) gives a segmentation node with nine organs. The networks run in a
    process of their own, which stays warm for the next call of the same logic. One run at a time. Everything
    that can go wrong raises SegMateCore.errors.SegMateError with a plain sentence; cancelled runs raise
    SegMateCore.errors.Cancelled.
    """

    IDLE_TIMEOUT_S = 600.0

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from SegMateSlicerLib.core_path import ensure_core

        ensure_core()
        from SegMateSlicerLib.runs.run_driver import RunDriver
        from SegMateSlicerLib.worker.warm_worker import WarmWorker

        self.worker = WarmWorker()
        self.driver = RunDriver(self.worker, self.IDLE_TIMEOUT_S)

    def getParameterNode(self):
        """The panel's choices, saved with the scene: SegMateSlicerLib.panel.parameters.SegMateParameters."""
        from SegMateSlicerLib.panel.parameters import SegMateParameters

        return SegMateParameters(super().getParameterNode())

    @property
    def activeRun(self):
        """The run or batch that is under way, else None."""
        return self.driver.active

    def segment(
        self, volumeNode, checkpoint=None, segmentationNode=None, options=None, wait=True, onProgress=None
    ):
        """Segment a CT; gives the vtkMRMLSegmentationNode, with wait=False the SegmentRun.

        checkpoint: a file or the name of a bundled one, None for the bundled "demo" (demonstration only).
        segmentationNode: an existing one, in which only these organs are replaced; None for a new one.
        options: SegmentOptions or a dict of its fields. onProgress(RunProgress): in the window's thread.
        """
        if not wait:
            return self.start(volumeNode, checkpoint, segmentationNode, options, onProgress)
        request = self._request(volumeNode, checkpoint, segmentationNode, options)
        return self.driver.run(self._newRun(request, onProgress))

    def start(
        self, volumeNode, checkpoint=None, segmentationNode=None, options=None, onProgress=None, onEnd=None
    ):
        """Start a run that the event loop drives; gives the SegmentRun. onEnd(run) is called exactly once."""
        request = self._request(volumeNode, checkpoint, segmentationNode, options)
        run = self._newRun(request, onProgress, onEnd)
        self.driver.start(run)
        return run

    def segmentScene(
        self, checkpoint=None, options=None, overwrite=False, wait=True, onProgress=None, onEnd=None
    ):
        """Segment every CT of the scene that has no segmentation by SegMate yet (overwrite: every one).

        Gives a BatchSummary (done, skipped, failed), with wait=False the BatchRun.
        """
        from SegMateSlicerLib.runs.scene_cases import scene_cases

        checkpoint, options = self._choices(checkpoint, options)
        cases = scene_cases(slicer.mrmlScene, checkpoint, options, overwrite)
        return self._batch(cases, wait, onProgress, onEnd)

    def segmentSequence(
        self, sequence, checkpoint=None, options=None, browser=None, wait=True, onProgress=None, onEnd=None
    ):
        """Segment every item of a sequence node, or of the sequence that a volume shows an item of.

        Makes a sequence of segmentations with the same index values, which the browser then shows too. Gives
        as segmentScene.
        """
        from SegMateSlicerLib.runs.scene_cases import sequence_cases

        checkpoint, options = self._choices(checkpoint, options)
        return self._batch(sequence_cases(sequence, browser, checkpoint, options), wait, onProgress, onEnd)

    def segmentFolder(
        self, inputFolder, outputFolder, checkpoint=None, options=None, overwrite=False, wait=True,
        onProgress=None, onEnd=None,
    ):  # fmt: skip
        """Segment the CT files of a folder: <name>.seg.nrrd for each and one segmate_volumes.csv.

        Finished cases are skipped, so that a stopped batch can be started again. Gives as segmentScene.
        """
        from SegMateSlicerLib.runs.folder_cases import folder_cases

        checkpoint, options = self._choices(checkpoint, options)
        cases = folder_cases(inputFolder, outputFolder, checkpoint, options, overwrite)
        return self._batch(cases, wait, onProgress, onEnd)

    def workerInfo(self, devices=False):
        """What the worker finds: versions, engines, cpu_count, memory_gb; with devices=True also "devices".

        Waits for the answer: a second, with devices several (PyTorch is imported there).
        """
        from SegMateSlicerLib.runs.worker_questions import InfoTask

        return self.driver.run(InfoTask(self.worker, devices))

    def cancel(self):
        """Stop what is under way within a second."""
        self.driver.cancel()

    def close(self):
        """End what is under way and the worker; another segment() starts a new one."""
        self.driver.close()

    def _choices(self, checkpoint, options):
        from SegMateSlicerLib.runs.run_options import SegmentOptions
        from SegMateSlicerLib.runs.segment_run import DEFAULT_CHECKPOINT

        self.driver.check_free()
        return str(checkpoint or DEFAULT_CHECKPOINT), SegmentOptions.of(options)

    def _request(self, volumeNode, checkpoint, segmentationNode, options):
        from SegMateSlicerLib.runs.segment_run import SegmentRequest

        checkpoint, options = self._choices(checkpoint, options)
        return SegmentRequest(volumeNode, checkpoint, segmentationNode, options)

    def _newRun(self, request, onProgress=None, onEnd=None):
        from SegMateSlicerLib.runs.segment_run import SegmentRun

        return SegmentRun(request, self.worker, onProgress, onEnd)

    def _batch(self, cases, wait, onProgress, onEnd):
        from SegMateSlicerLib.runs.batch import BatchRun

        batch = BatchRun(cases, self._newRun, onProgress, onEnd)
        if wait:
            return self.driver.run(batch)
        self.driver.start(batch)
        return batch


class SegMateSlicerTest(ScriptedLoadableModuleTest):
    """Slicer's own "Reload and Test": a synthetic CT through the real worker and the bundled checkpoint."""

    def setUp(self) -> None:
        """An empty scene and a logic of its own; skipped where the engine is not installed."""
        slicer.mrmlScene.Clear()
        self.logic = SegMateSlicerLogic()
        self.addCleanup(self.logic.close)
        from SegMateSlicerLib.setup.dependencies import missing_for

        if missing_for():
            self.skipTest(_("ONNX Runtime is not installed: open Dependencies in the SegMate panel"))

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """What Slicer calls; runs every test, each in an empty scene."""
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.tearDown()
                self.doCleanups()

    def test_nine_organs_on_their_sides(self) -> None:
        volumeNode = self.phantom()
        segmentationNode = self.logic.segment(volumeNode)
        segmentation = segmentationNode.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 9)
        from SegMateCore.organs import NINE

        centres = {}
        for number, organ in enumerate(NINE):
            segmentId = segmentation.GetNthSegmentID(number)
            segment = segmentation.GetSegment(segmentId)
            self.assertEqual(segment.GetName(), organ.name)
            self.assertIn(f"SCT^{organ.code}^", segment.GetTerminology())
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode)
            self.assertEqual(mask.shape, slicer.util.arrayFromVolume(volumeNode).shape)
            self.assertGreater(mask.sum(), 10, organ.name)
            centres[organ.name] = segmentationNode.GetSegmentCenterRAS(segmentId)
        # R grows to the patient's right: the left lung lies at smaller R.
        self.assertLess(centres["left lung"][0], centres["right lung"][0])
        self.assertLess(centres["spinal cord"][0], centres["liver"][0])
        self.assertIs(segmentationNode.GetNodeReference("referenceImageGeometryRef"), volumeNode)
        self.assertIn("not for diagnosis", segmentationNode.GetAttribute("SegMate.notice"))

    def test_surfaces(self) -> None:
        segmentationNode = self.logic.segment(self.phantom(), options={"show_3d": True})
        segment = segmentationNode.GetSegmentation().GetNthSegment(0)
        self.assertGreater(segment.GetRepresentation("Closed surface").GetNumberOfPoints(), 100)

    def test_cancel_leaves_nothing(self) -> None:
        from SegMateCore.errors import Cancelled

        volumeNode = self.phantom()
        before = slicer.mrmlScene.GetNumberOfNodes()

        def cancelWhileSegmenting(progress):
            if progress.stage == "segment":
                self.logic.cancel()

        with self.assertRaises(Cancelled):
            self.logic.segment(volumeNode, onProgress=cancelWhileSegmenting)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertIsNone(self.logic.activeRun)

    def test_a_refusal_leaves_nothing(self) -> None:
        import numpy

        from SegMateCore.errors import SegMateError

        constant = numpy.zeros((6, 16, 16), numpy.int16)
        volumeNode = slicer.util.addVolumeFromArray(constant, numpy.eye(4), "no CT")
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaisesRegex(SegMateError, "Hounsfield"):
            self.logic.segment(volumeNode)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def phantom(self):
        """A synthetic chest of 6 mm in the scene, with its scan's geometry."""
        import numpy

        from SegMateCore.data.phantom import make_phantom

        self.delayDisplay(_("Making a synthetic CT"))
        volume = make_phantom(1, spacing_mm=6.0, field="chest").volume
        voxels = numpy.ascontiguousarray(volume.voxels)
        return slicer.util.addVolumeFromArray(voxels, volume.affine, "Synthetic chest")
