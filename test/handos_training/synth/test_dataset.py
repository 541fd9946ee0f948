"""Generated samples: labels against the geometry that was rendered, sides, seeds, workers."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from handos_model.types import ROOT_JOINT
from handos_training.data.sample import Batch, HandLabels
from handos_training.synth.config import SynthConfig
from handos_training.synth.dataset import SynthHands, batch_seed
from handos_training.synth.people.placement import project
from handos_training.synth.render.mesh import HAND_PARTS, OTHER_PART
from handos_training.synth.render.raster import rasterize
from handos_training.synth.scene.builder import SceneBuilder
from handos_training.synth.sheet import contact_sheet

CONFIG = SynthConfig(height=160, width=192)


@pytest.fixture(scope='module')
def batch() -> Batch:
    return SynthHands(CONFIG, 24, seed=3).batch(0)


def each_image(batch: Batch) -> list[HandLabels]:
    return [batch.hands_of(i) for i in range(len(batch.images))]


def test_samples_keep_the_contract(batch: Batch) -> None:
    assert batch.images.shape == (24, 3, 160, 192)
    assert batch.images.dtype == torch.uint8
    for i in range(24):
        batch.sample(i).check()


def test_joints_are_the_projected_mesh(batch: Batch) -> None:
    builder = SceneBuilder(CONFIG)
    for camera, hands in zip(batch.camera_matrices_px, each_image(batch), strict=True):
        if len(hands):
            cameras = camera.expand(len(hands), 3, 3)
            metric = hands.joints_m + hands.translation_m[:, None]
            assert (project(metric, cameras) - hands.joints_px).abs().max() < 0.02
            regressed = builder.arm.joint_regressor_21 @ hands.vertices_m
            assert (regressed - hands.joints_m).abs().max() < 1e-5
            assert hands.joints_m[:, ROOT_JOINT].abs().max() < 1e-6


def test_left_hands_are_mirrored(batch: Batch) -> None:
    faces = SceneBuilder(CONFIG).arm.hand_faces
    for hands in each_image(batch):
        a, b, c = (hands.vertices_m[:, faces[:, i]] for i in range(3))
        volume = (torch.linalg.cross(a, b) * c).sum((1, 2))
        assert torch.equal(volume < 0, hands.is_left)


def test_label_vertices_lie_on_what_is_rendered() -> None:
    builder = SceneBuilder(CONFIG)
    scene = builder(8, torch.Generator().manual_seed(0))
    hands, mesh = scene.hands, scene.mesh
    for hand in range(len(hands.slot)):
        part = mesh.face_part - 1 - HAND_PARTS * hands.slot[hand]
        own = (mesh.face_image == hands.image[hand]) & (part >= 0) & (part < HAND_PARTS)
        if own.sum() < 500:
            continue  # mostly outside of the image
        rendered = mesh.vertices_m[mesh.faces[own].unique()]
        cameras = scene.camera_matrices_px[hands.image[hand], None]
        pixels = project(hands.vertices_m[hand, None], cameras)[0]
        inside = ((pixels > 0) & (pixels < 160)).all(1)
        label = hands.vertices_m[hand][inside]
        if len(label):
            exact = 'donot_use_mm_for_euclid_dist'
            assert torch.cdist(label, rendered, compute_mode=exact).amin(1).max() < 1e-6


def test_boxes_hold_the_hand_s_pixels(batch: Batch) -> None:
    for hands in each_image(batch):
        visible, amodal = hands.boxes_xyxy_px, hands.amodal_boxes_xyxy_px
        assert (visible[:, :2] >= -0.5).all()
        assert (visible[:, 2:] <= torch.tensor([191.5, 159.5])).all()
        assert (visible[:, :2] > amodal[:, :2] - 2).all()
        assert (visible[:, 2:] < amodal[:, 2:] + 2).all()
        seen = hands.joint_visible
        x, y = hands.joints_px.unbind(-1)
        low, high = visible[:, None, :2] - 2, visible[:, None, 2:] + 2
        in_box = (x > low[..., 0]) & (y > low[..., 1]) & (x < high[..., 0]) & (y < high[..., 1])
        # A wrist may show just behind the hand's own skin.
        assert (in_box | ~seen)[:, 1:].all()


def test_every_visible_hand_is_labelled_and_no_other() -> None:
    dataset = SynthHands(CONFIG, 16, seed=7)
    labels = dataset.batch(0)
    scene = SceneBuilder(CONFIG)(16, torch.Generator().manual_seed(batch_seed(7, 0)))
    fragments = rasterize(scene.mesh, scene.camera_matrices_px, 160, 192)
    part = torch.where(fragments.face < 0, 0, scene.mesh.face_part[fragments.face.clamp(min=0)])
    for image in range(16):
        slots = (part[image][(part[image] > 0) & (part[image] < OTHER_PART)] - 1) // HAND_PARTS
        pixels = torch.bincount(slots, minlength=8)
        seen = int((pixels >= CONFIG.min_visible_px).sum())
        if labels.all_hands_labelled[image]:
            assert len(labels.hands_of(image)) == seen
        else:
            assert len(labels.hands_of(image)) < seen


def test_the_mixture() -> None:
    dataset = SynthHands(SynthConfig(height=96, width=96), 48, seed=1)
    hands = [h for i in range(4) for h in each_image(dataset.batch(i))]
    left = torch.cat([h.is_left for h in hands]).float().mean()
    visible = torch.cat([h.joint_visible.sum(1) for h in hands])
    boxes = torch.cat([h.boxes_xyxy_px for h in hands])
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1) / 96
    assert 0.42 < left < 0.58
    assert (visible >= 14).float().mean() > 0.4
    assert 0.15 < side.median() < 0.5
    assert side.amax() > 0.7


def test_one_seed_gives_one_stream_and_another_gives_another() -> None:
    config = SynthConfig(height=64, width=64)
    first, second = SynthHands(config, 4, seed=5).batch(2), SynthHands(config, 4, seed=5).batch(2)
    assert torch.equal(first.images, second.images)
    for one, other in zip(first.hands, second.hands, strict=True):
        assert all(
            torch.equal(a, b)
            for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
        )
    assert not torch.equal(first.images, SynthHands(config, 4, seed=6).batch(2).images)


def test_a_resumed_stream_and_workers_go_on_where_one_process_would() -> None:
    config = SynthConfig(height=64, width=64)
    whole = iter(SynthHands(config, 2, seed=1))
    expected = [next(whole).images for _ in range(4)]
    resumed = iter(SynthHands(config, 2, seed=1, start=2))
    assert torch.equal(next(resumed).images, expected[2])
    loader = DataLoader(SynthHands(config, 2, seed=1), batch_size=None, num_workers=2)
    parallel = iter(loader)
    for images in expected:
        assert torch.equal(next(parallel).images, images)


def test_a_dataset_pickles_without_what_it_built(batch: Batch) -> None:
    dataset = SynthHands(SynthConfig(height=64, width=64), 1)
    dataset.batch(0)
    assert len(pickle.dumps(dataset)) < 20_000


def test_sheet_has_every_image(batch: Batch) -> None:
    sheet = contact_sheet(batch, 5)
    assert sheet.shape == (5 * 160, 5 * 192, 3)
    assert (sheet[-160:, -192:] == 0).all()
    assert (sheet[:160, :192] > 0).any()
