"""Samples and hands that several tests of the data pipeline build on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from handos_model.hand.model import HandModel
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


FINGERS = ('thumb', 'index', 'middle', 'ring', 'little')


@dataclass
class PosedHand:
    """A hand of the embedded model in front of a camera, its joints by name."""

    vertices_m: np.ndarray
    named: dict[str, np.ndarray]

    @property
    def mpii(self) -> np.ndarray:
        """[21,3] in the order that MPII-like datasets write."""
        names = ['wrist', *(f'{finger}{k}' for finger in FINGERS for k in (1, 2, 3, 4))]
        return np.stack([self.named[name] for name in names])

    @property
    def mano(self) -> np.ndarray:
        """[21,3] in MANO's order, then the tips: what HO3D writes."""
        chains = ('index', 'middle', 'little', 'ring', 'thumb')
        names = ['wrist', *(f'{finger}{k}' for finger in chains for k in (1, 2, 3))]
        return np.stack([self.named[n] for n in [*names, *(f'{f}4' for f in FINGERS)]])


def posed_hand(seed: int = 0, *, left: bool = False, model: HandModel | None = None) -> PosedHand:
    """A lightly bent hand, 0.5 m in front of the camera, in OpenCV axes."""
    model = model or HandModel.embedded()
    rng = np.random.default_rng(seed)
    bend = Rotation.from_rotvec(rng.normal(0, 0.08, (16, 3))).as_matrix()
    bend[0] = random_rotation(seed)
    vertices = model.pose(bend, rng.normal(0, 0.5, 10))[0]
    if left:
        vertices = vertices * [-1, 1, 1]
    vertices = vertices - vertices.mean(0) + [0.02, -0.01, 0.5]
    joints = model.joint_regressor @ vertices
    named = {'wrist': joints[0]}
    for first, finger in ((1, 'index'), (4, 'middle'), (7, 'little'), (10, 'ring'), (13, 'thumb')):
        named |= {f'{finger}{k + 1}': joints[first + k] for k in range(3)}
    named |= {f'{f}4': vertices[v] for f, v in zip(FINGERS, model.tip_vertices, strict=True)}
    return PosedHand(vertices, named)


def assert_anatomy(joints: np.ndarray) -> None:
    """21 joints in MPII order form a lightly bent hand: thumb, index, ... little, palm to tip.

    Judged by shape alone, on metres or on pixels of a hand that is seen from the palm or the back.
    """
    chains = joints[1:].reshape(5, 4, -1)
    size = np.linalg.norm(joints[9] - joints[0])
    bones = np.linalg.norm(np.diff(chains, axis=1), axis=-1)
    assert (bones < 0.75 * size).all() and (bones > 0.05 * size).all()
    # Fingers get farther from the wrist from joint to joint.
    reach = np.linalg.norm(chains - joints[0], axis=-1)
    assert (np.diff(reach, axis=1) > 0).all()
    # The thumb starts nearest to the wrist; the other knuckles lie in a row, index to little.
    assert reach[:, 0].argmin() == 0
    across = chains[1:, 0] @ (joints[17] - joints[5])
    assert (np.diff(across) > 0).all()
    # The thumb is on the index's side, the middle finger reaches farthest, the little one least.
    assert chains[0, 3] @ (joints[17] - joints[5]) < across[0]
    assert reach[1:, 3].argmax() == 1 and reach[1:, 3].argmin() == 3


def write_jpeg(path: Path, size_hw: tuple[int, int], seed: int = 0) -> None:
    """A smooth picture, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(noise, size_hw[::-1]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
