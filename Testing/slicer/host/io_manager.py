"""slicer.app.coreIOManager(): files in and out through Slicer's own storage nodes and logics.

With it slicer.util's loadVolume, loadSegmentation, saveNode, exportNode and saveScene run as they are.
"""

from __future__ import annotations

import os
from pathlib import Path

import slicer

EXTENSIONS = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".mha": "VolumeFile",
    ".mrk.json": "MarkupsFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
}
NODE_CLASSES = {
    "SegmentationFile": "vtkMRMLSegmentationNode",
    "TransformFile": "vtkMRMLTransformNode",
    "TableFile": "vtkMRMLTableNode",
    "SequenceFile": "vtkMRMLSequenceNode",
}


class CoreIOManager:
    def fileType(self, filename) -> str:
        return EXTENSIONS[self.extractKnownExtension(filename)]

    def fileWriterFileType(self, node) -> str:
        return node.GetClassName()

    def extractKnownExtension(self, filename, _node=None) -> str:
        for extension in EXTENSIONS:
            if str(filename).lower().endswith(extension):
                return extension
        return Path(filename).suffix

    def fileWriterExtensions(self, _node) -> list[str]:
        return [f"File (*{extension})" for extension in EXTENSIONS]

    def loadNodes(self, file_type, properties, loaded, messages=None) -> bool:
        """Load `fileName`; the node is put into the collection `loaded`. Gives whether that worked."""
        path = os.path.abspath(properties["fileName"])
        name = properties.get("name") or Path(path).name.removesuffix(self.extractKnownExtension(path))
        if file_type == "VolumeFile":
            options = 1 if properties.get("labelmap") else 0
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
        elif file_type == "MarkupsFile":
            node = slicer.mrmlScene.GetNodeByID(slicer.modules.markups.logic().LoadMarkups(path, name) or "")
        elif file_type == "SceneFile":
            return bool(slicer.mrmlScene.ReadFromMRB(path, bool(properties.get("clear")), messages))
        else:
            node = self._read(path, name, NODE_CLASSES[file_type])
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def saveNodes(self, file_type, properties, messages=None) -> bool:
        path = os.path.abspath(properties["fileName"])
        if file_type == "SceneFile":
            return bool(slicer.mrmlScene.WriteToMRB(path, None, messages))
        return self._write(slicer.mrmlScene.GetNodeByID(properties["nodeID"]), path, keep_storage=True)

    def exportNodes(self, node_ids, paths, _properties, harden, _messages=None) -> bool:
        if harden:
            raise NotImplementedError("the test host exports no hardened nodes")
        nodes = [slicer.mrmlScene.GetNodeByID(node_id) for node_id in node_ids]
        return all([self._write(node, path, keep_storage=False) for node, path in zip(nodes, paths)])

    def _read(self, path: str, name: str, class_name: str):
        node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(path)
        if node.GetStorageNode().ReadData(node):
            if node.IsA("vtkMRMLDisplayableNode"):
                node.CreateDefaultDisplayNodes()
            return node
        slicer.mrmlScene.RemoveNode(node)
        return None

    def _write(self, node, path: str, keep_storage: bool) -> bool:
        if keep_storage:
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
        else:
            storage = node.CreateDefaultStorageNode()
            storage.UnRegister(None)
            storage.SetScene(node.GetScene())
        storage.SetFileName(path)
        return bool(storage.WriteData(node))
