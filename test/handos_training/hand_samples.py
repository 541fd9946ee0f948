"""Samples and hands that several tests of the data pipeline build on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from handos_training.data.sample import Sample, empty_labels

CAMERA = np.array([[610.0, 0, 301.5], [0, 598.0, 249.0], [0, 0, 1]])


def project(points_m: np.ndarray, camera: np.ndarray) -> np.ndarray:
    image = points_m @ camera.T
    return image[..., :2] / image[..., 2:]


def labelled_sample(
    seed: int = 0, size_hw: tuple[int, int] = (480, 640), camera: np.ndarray = CAMERA
) -> Sample:
    """Two random blobs, one left and one right, with every label there is, all consistent."""
    rng = np.random.default_rng(seed)
    hands = empty_labels(2)
    for n, centre in enumerate(([-0.1, 0.02, 0.6], [0.12, -0.05, 0.7])):
        vertices = rng.normal(0, 0.03, (778, 3))
        joints = np.concatenate([vertices[:20], np.zeros((1, 3))])
        joints[[9, 20]] = joints[[20, 9]]
        hands.vertices_m[n] = torch.from_numpy(vertices)
        hands.joints_m[n] = torch.from_numpy(joints)
        hands.translation_m[n] = torch.tensor(centre)
        hands.joints_px[n] = torch.from_numpy(project(joints + centre, camera))
        pixels = project(vertices + centre, camera)
        box = torch.from_numpy(np.concatenate([pixels.min(0), pixels.max(0)]))
        hands.boxes_xyxy_px[n] = hands.amodal_boxes_xyxy_px[n] = box
    hands.is_left[0] = True
    flags = {
        name: torch.ones_like(getattr(hands, name))
        for name in vars(hands)
        if name.startswith('has_') or name.endswith('_visible')
    }
    image = torch.from_numpy(rng.integers(0, 256, (3, *size_hw), dtype=np.uint8))
    matrix = torch.from_numpy(camera).float()
    sample = Sample(image, matrix, replace(hands, **flags), f'blobs/{seed}')
    sample.check()
    return sample


def reprojection_error_px(sample: Sample) -> float:
    """Largest distance between the 2D labels and the projected 3D labels."""
    hands = sample.hands
    points = (hands.joints_m + hands.translation_m[:, None]).double().numpy()
    pixels = project(points, sample.camera_matrix_px.double().numpy())
    known = (hands.has_joints_m & hands.has_translation)[:, None] & hands.has_joint_px
    errors = np.linalg.norm(pixels - hands.joints_px.numpy(), axis=-1)[known.numpy()]
    return float(errors.max(initial=0.0))


def random_rotation(seed: int) -> np.ndarray:
    return Rotation.random(random_state=seed).as_matrix()
