"""Grids of all kinds, label maps and transforms for tests on real MRML."""

from __future__ import annotations

import numpy as np
import slicer

SPACING_MM = (0.7, 0.9, 2.5)


def turned(angles_deg=(0, 0, 0)) -> np.ndarray:
    """Rotation (3, 3) about x, then y, then z."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        one = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        one[[a, b], [a, b]], one[a, b], one[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        rotation = one @ rotation
    return rotation


def affine(signs=(1, 1, 1), angles_deg=(0, 0, 0), order=(0, 1, 2), origin_mm=(12, -34, 56)) -> np.ndarray:
    """(4, 4): axes in the given order, flipped by signs, then turned."""
    matrix = np.eye(4)
    matrix[:3, :3] = turned(angles_deg) @ np.eye(3)[:, list(order)] @ np.diag(np.multiply(signs, SPACING_MM))
    matrix[:3, 3] = origin_mm
    return matrix


GRIDS = {
    "RAS": affine(),
    "LPS": affine((-1, -1, 1)),
    "oblique": affine((-1, -1, 1), (17, -11, 33)),
    "left-handed": affine((-1, 1, 1), (5, 3, -8)),
    "permuted": affine(order=(2, 0, 1)),
}


def blobs(shape=(12, 20, 26), count=9, seed=3) -> np.ndarray:
    """Labels, uint8 (K, J, I): ellipsoids 1..count, of which one is cut by the border; none is empty."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, count + 1):
        centre = generator.uniform(0.2, 0.8, 3) * shape if label > 1 else np.zeros(3)
        radius = generator.uniform(0.12, 0.25, 3) * shape + 1
        labels[(((grid - centre) / radius) ** 2).sum(axis=-1) < 1] = label
    assert set(np.unique(labels)) == set(range(count + 1))
    return labels


def add_linear_transform(scene, matrix: np.ndarray):
    """A linear transform node with this matrix (4, 4) to its parent."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def add_nonlinear_transform(scene):
    """A thin-plate transform that bends space."""
    import vtk

    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)):
        source.InsertNextPoint(*corner)
        target.InsertNextPoint(corner[0], corner[1], corner[2] + (7 if corner == (50, 50, 50) else 0))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    node.SetAndObserveTransformToParent(spline)
    return node


def exhaust(generator):
    """Run a generator to its end; the value that it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value
