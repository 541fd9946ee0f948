"""Pose-aware quadric half-edge collapse: a mesh whose vertices are a subset of the full one.

Garland & Heckbert's quadrics (1997), summed over several poses, so that what folds keeps its
vertices. A half-edge collapse moves no vertex: skinning and blend shapes transfer by indexing.
"""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np

from handos_model.types import FloatArray
from tools.template.rig import IntArray

LENGTH_WEIGHT = 6e-6  # of a long edge's squared length against the quadrics' volume, per face
MIN_QUALITY = 0.30  # of a triangle at rest: 4 sqrt(3) area / sum of squared sides, 1 = equilateral
MIN_NORMAL_COSINE = 0.2  # between a face before and after a collapse
MAX_VALENCE = 9


def plane_quadrics(vertices_m: FloatArray, faces: IntArray) -> FloatArray:
    """Quadrics of each vertex, [N,4,4]: its faces' planes weighted by area."""
    corner = vertices_m[faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    doubled_area = np.linalg.norm(normals, axis=1)
    normals /= doubled_area[:, None]
    planes = np.concatenate([normals, -(normals * corner[:, 0]).sum(1, keepdims=True)], 1)
    face_quadrics = np.einsum('fi,fj,f->fij', planes, planes, doubled_area / 2)
    quadrics = np.zeros((len(vertices_m), 4, 4))
    for k in range(3):
        np.add.at(quadrics, faces[:, k], face_quadrics)
    return quadrics


class HalfEdgeCollapse:
    """The mesh while it shrinks: `collapse_to` removes vertices until the counts are met."""

    def __init__(
        self, poses_m: FloatArray, faces: IntArray, locked: set[int], judged: tuple[int, ...]
    ) -> None:
        """`poses_m [P,N,3]`, rest first; `judged`: poses in which no face may flip."""
        self.poses_m = poses_m
        self.homogeneous = np.concatenate([poses_m, np.ones((*poses_m.shape[:2], 1))], 2)
        self.quadrics = np.stack([plane_quadrics(pose, faces) for pose in poses_m], 1)
        self.judged = judged
        self.locked = locked
        self.faces = {i: tuple(int(v) for v in face) for i, face in enumerate(faces)}
        self.faces_of: dict[int, set[int]] = {v: set() for v in range(poses_m.shape[1])}
        for i, face in self.faces.items():
            for v in face:
                self.faces_of[v].add(i)
        edges = Counter(
            tuple(sorted((f[k], f[k - 1]))) for f in self.faces.values() for k in range(3)
        )
        self.boundary = {v for edge, uses in edges.items() if uses == 1 for v in edge}
        self.version = Counter[int]()
        self.heap: list[tuple[float, int, int, int, int]] = []
        for u, v in edges:
            self.push(u, v)
            self.push(v, u)

    def neighbours(self, v: int) -> set[int]:
        return {x for face in self.faces_of[v] for x in self.faces[face]} - {v}

    def is_on_boundary_edge(self, u: int, v: int) -> bool:
        return len(self.faces_of[u] & self.faces_of[v]) == 1

    def cost(self, u: int, v: int) -> float:
        """Error of moving u onto v, summed over the poses, and a price on long edges."""
        quadric = self.quadrics[u] + self.quadrics[v]
        point = self.homogeneous[:, v]
        error = np.einsum('pi,pij,pj->', point, quadric, point)
        length = np.linalg.norm(self.poses_m[0, u] - self.poses_m[0, v])
        return float(error + LENGTH_WEIGHT * length**2 * len(self.faces_of[u]))

    def push(self, u: int, v: int) -> None:
        if u in self.locked:
            return
        if u in self.boundary and (v not in self.boundary or not self.is_on_boundary_edge(u, v)):
            return
        heapq.heappush(self.heap, (self.cost(u, v), u, v, self.version[u], self.version[v]))

    def is_current(self, u: int, v: int, version_u: int, version_v: int) -> bool:
        alive = u in self.faces_of and v in self.faces_of
        return alive and self.version[u] == version_u and self.version[v] == version_v

    def keeps_manifold(self, u: int, v: int) -> bool:
        around_u, around_v = self.neighbours(u), self.neighbours(v)
        common, merged = around_u & around_v, (around_u | around_v) - {u, v}
        if len(common) != len(self.faces_of[u] & self.faces_of[v]) or len(merged) > MAX_VALENCE:
            return False
        if len(merged) < (3 if v in self.boundary else 4):
            return False
        return all(len(self.neighbours(x)) > (3 if x in self.boundary else 4) for x in common)

    def keeps_shape(self, u: int, v: int) -> bool:
        """No moved face flips in a judged pose or degenerates at rest."""
        moved = self.faces_of[u] - self.faces_of[v]
        before = np.array([self.faces[f] for f in sorted(moved)]).reshape(-1, 3)
        after = np.where(before == u, v, before)
        for pose in self.judged:
            old, new = self.poses_m[pose][before], self.poses_m[pose][after]
            old_normal = np.cross(old[:, 1] - old[:, 0], old[:, 2] - old[:, 0])
            new_normal = np.cross(new[:, 1] - new[:, 0], new[:, 2] - new[:, 0])
            old_area, new_area = np.linalg.norm([old_normal, new_normal], axis=2)
            if ((old_normal * new_normal).sum(1) < MIN_NORMAL_COSINE * old_area * new_area).any():
                return False
            sides = ((new - new[:, [1, 2, 0]]) ** 2).sum((1, 2))
            if pose == 0 and (2 * np.sqrt(3) * new_area < MIN_QUALITY * sides).any():
                return False
        return True

    def is_allowed(self, u: int, v: int) -> bool:
        return self.keeps_manifold(u, v) and self.keeps_shape(u, v)

    def collapse(self, u: int, v: int) -> None:
        for face in self.faces_of[u] & self.faces_of[v]:
            for x in self.faces.pop(face):
                self.faces_of[x].discard(face)
        for face in self.faces_of.pop(u):
            self.faces[face] = tuple(v if x == u else x for x in self.faces[face])
            self.faces_of[v].add(face)
        self.quadrics[v] += self.quadrics[u]
        self.boundary.discard(u)
        self.version[v] += 1
        for x in sorted(self.neighbours(v)):
            self.push(v, x)
            self.push(x, v)

    def collapse_to(self, vertices: int, boundary: int) -> tuple[IntArray, IntArray]:
        """The kept vertices [vertices], ascending, and the faces in their new numbers."""
        while len(self.boundary) > boundary:
            loop = [
                entry
                for entry in sorted(self.heap)
                if entry[1] in self.boundary and self.is_current(*entry[1:])
            ]
            u, v = next((u, v) for _, u, v, *_ in loop if self.is_allowed(u, v))
            self.collapse(u, v)
        while len(self.faces_of) > vertices:
            _, u, v, *versions = heapq.heappop(self.heap)
            if (
                u not in self.boundary
                and self.is_current(u, v, *versions)
                and self.is_allowed(u, v)
            ):
                self.collapse(u, v)
        kept = np.array(sorted(self.faces_of))
        return kept, np.searchsorted(kept, np.array([self.faces[f] for f in sorted(self.faces)]))
