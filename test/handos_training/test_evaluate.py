"""Evaluation with a pipeline that is told what to answer, and the files it writes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hand_samples import PosedHand, posed_hand, project, truncate, write_jpeg

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import Camera, Hand, ScaleSource, TrackState
from handos_training import evaluate
from handos_training.check_data import CheckConfig
from handos_training.check_data import main as check_data_main
from handos_training.check_data import run as run_check
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.dexycb import SERIALS
from handos_training.evaluate import EvalConfig, HeldOutSynth, open_evaluation, run
from handos_training.evaluation.metrics import average_precision
from handos_training.evaluation.running_scores import Scores

COUNT = 4
CAMERA = np.array([[480.0, 0, 112.0], [0, 480.0, 112.0], [0, 0, 1]])
GL = np.array([1, -1, -1])


def answer(posed: PosedHand, camera: np.ndarray = CAMERA, **changes: object) -> Hand:
    """A perfect prediction of a hand, then `changes`."""
    pixels = project(posed.vertices_m, camera)
    hand = Hand(
        id=-1,
        age=0,
        state=TrackState.TRACKED,
        side='right',
        side_probability=0.9,
        score=0.8,
        box_xyxy_px=np.concatenate([pixels.min(0), pixels.max(0)]),
        joints_px=project(posed.mpii, camera),
        joint_confidence=np.full(21, 0.7),
        joints_m=posed.mpii,
        vertices_m=posed.vertices_m,
        wrist_rotation=np.eye(3),
        translation_m=posed.mpii[9],
        translation_covariance_m2=np.eye(3),
        scale_source=ScaleSource.INTRINSICS,
        network_joints_px=project(posed.mpii, camera),
    )
    return replace(hand, **changes)


class Told:
    """A pipeline that answers what it was given, image by image, and keeps the cameras."""

    def __init__(self, *answers: list[Hand]) -> None:
        self.answers = list(answers)
        self.cameras: list[Camera] = []

    def __call__(self, image: np.ndarray, camera: Camera) -> list[Hand]:
        assert image.dtype == np.uint8 and image.shape == (camera.height, camera.width, 3)
        self.cameras.append(camera)
        return self.answers[len(self.cameras) - 1]

    def in_boxes(self, image: np.ndarray, camera: Camera, boxes: np.ndarray) -> list[Hand]:
        hands = self(image, camera)
        return [replace(hand, box_xyxy_px=box) for hand, box in zip(hands, boxes, strict=True)]


@pytest.fixture
def freihand(tmp_path: Path) -> Path:
    root = tmp_path / 'freihand'
    hands = [posed_hand(seed) for seed in range(COUNT)]
    root.mkdir()
    values = {
        'K': [CAMERA.tolist()] * COUNT,
        'xyz': [hand.mpii.tolist() for hand in hands],
        'verts': [hand.vertices_m.tolist() for hand in hands],
    }
    for name, value in values.items():
        (root / f'evaluation_{name}.json').write_text(json.dumps(value))
    for i in range(COUNT):
        write_jpeg(root / 'evaluation' / 'rgb' / f'{i:08d}.jpg', (224, 224), i)
    return root


@pytest.fixture
def as_mano(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded model passes for the user's MANO, tips included."""
    model = HandModel.embedded()
    monkeypatch.setattr(HandModel, 'from_mano', classmethod(lambda cls, path: model))
    tips = tuple(int(v) for v in model.tip_vertices)
    names = ('freihand', 'ho3d', 'dexycb', 'hint')
    monkeypatch.setattr(
        'handos_training.data.datasets.joint_orders.MANO_TIP_VERTICES', dict.fromkeys(names, tips)
    )
    return Path('MANO_RIGHT.pkl')


def perfect(count: int = COUNT) -> list[list[Hand]]:
    return [[answer(posed_hand(seed))] for seed in range(count)]


def test_a_perfect_prediction(freihand: Path, as_mano: Path, tmp_path: Path) -> None:
    config = EvalConfig('freihand', 'w', freihand, out=tmp_path / 'out', mano=as_mano)
    pipeline = Told(*perfect())
    scores = run(config, pipeline)['scores']
    assert all(camera.calibrated for camera in pipeline.cameras)
    np.testing.assert_allclose(pipeline.cameras[0].matrix_px, CAMERA)
    for name in ('pa_mpjpe_mm', 'pa_mpjpe_proper_mm', 'pa_mpvpe_mm', 'pa_mpvpe_proper_mm',
                 'mpjpe_mm', 'mpjpe_root_relative_mm', 'root_error_found_mm'):  # fmt: skip
        assert scores[name] < 1e-3, name
    for name in ('found', 'recall_iou50', 'precision_iou50', 'side_accuracy', 'f5', 'f15_aligned',
                 'pck_0.05', 'pck_projected_0.05', 'auc_joints', 'auc_vertices'):  # fmt: skip
        assert scores[name] == pytest.approx(1.0, abs=0.006), name  # AUC is not 1 below 0.5 mm
    written = json.loads((tmp_path / 'out' / 'scores.json').read_text())
    assert written['scores'] == scores and written['protocol']['match_iou'] == 0.1
    xyz, verts = json.loads((tmp_path / 'out' / 'pred.json').read_text())
    assert np.shape(xyz) == (COUNT, 21, 3) and np.shape(verts) == (COUNT, 778, 3)
    np.testing.assert_allclose(xyz[2], posed_hand(2).mpii, atol=2e-6)


def test_the_mirrored_hand_trap(freihand: Path, as_mano: Path) -> None:
    answers = [
        [
            answer(
                h, joints_m=h.mpii * [-1, 1, 1], vertices_m=h.vertices_m * [-1, 1, 1], side='left'
            )
        ]
        for h in map(posed_hand, range(COUNT))
    ]
    scores = run(EvalConfig('freihand', 'w', freihand, mano=as_mano), Told(*answers))['scores']
    assert scores['pa_mpjpe_mm'] < 1e-3 and scores['pa_mpvpe_mm'] < 1e-3
    assert scores['f15_aligned'] == 1.0
    assert scores['pa_mpjpe_proper_mm'] > 3 and scores['pa_mpvpe_proper_mm'] > 3
    assert scores['side_accuracy'] == 0.0


def test_a_missed_hand_is_zero(freihand: Path, as_mano: Path, tmp_path: Path) -> None:
    answers = perfect()
    answers[1] = []
    far = answer(posed_hand(3), box_xyxy_px=np.array([0.0, 0, 4, 4]))
    answers[3] = [far]  # a hand elsewhere answers for nothing
    config = EvalConfig('freihand', 'w', freihand, out=tmp_path, mano=as_mano)
    scores = run(config, Told(*answers))['scores']
    assert scores['found'] == 0.5 and scores['pck_0.15'] == 0.5
    assert scores['auc_joints'] == pytest.approx(0.5, abs=0.005)
    assert scores['precision_iou50'] == pytest.approx(2 / 3)
    truths = [posed_hand(seed).mpii for seed in (1, 3)]
    centroid = [np.linalg.norm(t - t.mean(0), axis=1).mean() for t in truths]
    assert scores['pa_mpjpe_mm'] == pytest.approx(1000 * sum(centroid) / 4, rel=1e-4)
    assert scores['pa_mpjpe_found_mm'] < 1e-3
    assert scores['side_accuracy'] == 1.0
    xyz, verts = json.loads((tmp_path / 'pred.json').read_text())
    assert not np.any(xyz[1]) and not np.any(verts[3])


def test_the_largest_overlap_answers_not_the_best_score(freihand: Path, as_mano: Path) -> None:
    wrong = [
        answer(posed_hand(9), score=0.99, box_xyxy_px=hand[0].box_xyxy_px + 30)
        for hand in perfect()
    ]
    answers = [[other, *right] for other, right in zip(wrong, perfect(), strict=True)]
    scores = run(EvalConfig('freihand', 'w', freihand, mano=as_mano), Told(*answers))['scores']
    assert scores['pa_mpjpe_mm'] < 1e-3
    assert scores['precision_iou50'] == 0.5  # FreiHAND labels every hand


def test_projection_by_the_network_and_by_the_camera_are_told_apart(freihand: Path) -> None:
    far = [[replace(hand[0], network_joints_px=hand[0].joints_px + 500)] for hand in perfect()]
    scores = run(EvalConfig('freihand', 'w', freihand), Told(*far))['scores']
    assert scores['pck_0.05'] == scores['pck_placed_0.05'] == 1.0
    assert scores['pck_projected_0.15'] == 0.0
    moved = [
        [replace(hand[0], joints_m=hand[0].joints_m + np.array([0.5, 0, 0]))] for hand in perfect()
    ]
    scores = run(EvalConfig('freihand', 'w', freihand), Told(*moved))['scores']
    assert scores['pck_projected_0.05'] == 1.0 and scores['pck_placed_0.15'] == 0.0


def test_true_boxes_find_every_hand(freihand: Path) -> None:
    elsewhere = [[replace(hand[0], box_xyxy_px=np.array([0.0, 0, 4, 4]))] for hand in perfect()]
    config = EvalConfig('freihand', 'w', freihand)
    assert run(config, Told(*elsewhere))['scores']['found'] == 0
    report = run(replace(config, boxes='truth'), Told(*elsewhere))
    assert report['scores']['found'] == 1 and report['protocol']['boxes'] == 'truth'


def test_box_ap_of_coco() -> None:
    truth = [np.array([[0.8, 0.0]]), np.array([[0.0]]), np.zeros((0, 1))]
    precise = average_precision([0.9, 0.1, 0.5, 0.3], truth, [0, 0, 1, 2])
    # One of two labels at IoU 0.50 to 0.80: recall 0 to 0.5 is 51 of 101 points.
    assert precise == pytest.approx(7 / 10 * 51 / 101)
    late = average_precision([0.9, 0.1, 0.95, 0.3], truth, [0, 0, 1, 2])
    assert late == pytest.approx(precise / 2)  # a false alarm comes first
    twice = average_precision([0.9, 0.8], [np.array([[0.9, 0.95]])], [0, 0])
    # Both claim the one label; above 0.90 only the second does, after a false alarm.
    assert twice == pytest.approx((9 + 0.5) / 10)
    assert np.isnan(average_precision([0.5], [np.zeros((0, 1))], [0]))


def test_another_template_has_f_scores_but_no_vertex_errors(freihand: Path) -> None:
    scores = run(EvalConfig('freihand', 'w', freihand), Told(*perfect()))['scores']
    assert 'pa_mpvpe_mm' not in scores and 'auc_vertices' not in scores
    assert scores['f5_aligned'] == 1.0 and scores['pa_mpjpe_mm'] < 1e-3


def test_joints_are_the_datasets_own(freihand: Path, as_mano: Path) -> None:
    """With a MANO mesh the joints come from the mesh by the dataset's definition."""
    answers = [[replace(hand[0], joints_m=hand[0].joints_m + 0.01)] for hand in perfect()]
    config = EvalConfig('freihand', 'w', freihand, mano=as_mano)
    assert run(config, Told(*answers))['scores']['mpjpe_mm'] < 1e-3


def test_a_part_of_the_images(freihand: Path, tmp_path: Path) -> None:
    config = EvalConfig('freihand', 'w', freihand, out=tmp_path / 'o', every=2)
    scores = run(config, Told(*perfect()[::2]))['scores']
    assert scores['images'] == 2
    assert not (tmp_path / 'o' / 'pred.json').exists()


def test_an_unreadable_image_stops(freihand: Path) -> None:
    truncate(freihand / 'evaluation' / 'rgb' / '00000001.jpg')
    with pytest.raises(UserError, match='image 1 cannot be read'):
        run(EvalConfig('freihand', 'w', freihand), Told(*perfect()))


def test_ho3d_submission(tmp_path: Path) -> None:
    frames = [f'AP10/{i:04d}' for i in range(4)]
    camera = np.array([[614.0, 0, 320.0], [0, 614.0, 240.0], [0, 0, 1]])
    for seed, frame in enumerate(frames):
        sequence, number = frame.split('/')
        folder = tmp_path / 'evaluation' / sequence
        write_jpeg(folder / 'rgb' / f'{number}.jpg', (480, 640))
        box = project(posed_hand(seed).vertices_m, camera)
        meta = {
            'camMat': camera,
            'handJoints3D': posed_hand(seed).mano[0] * GL,
            'handBoundingBox': [*box.min(0), *box.max(0)],
        }
        (folder / 'meta').mkdir(exist_ok=True)
        (folder / 'meta' / f'{number}.pkl').write_bytes(pickle.dumps(meta, 2))
    (tmp_path / 'evaluation.txt').write_text('\n'.join(frames))
    answers = [[answer(posed_hand(seed), camera)] for seed in range(4)]
    config = EvalConfig('ho3d', 'w', tmp_path, out=tmp_path / 'out')
    scores = run(config, Told(*answers))['scores']
    assert 'pa_mpjpe_mm' not in scores and scores['recall_iou50'] == 1.0  # boxes are public
    xyz, verts = json.loads((tmp_path / 'out' / 'pred.json').read_text())
    for seed in range(4):
        np.testing.assert_allclose(xyz[seed], posed_hand(seed).mano * GL, atol=2e-6)
    assert np.max(xyz, axis=(0, 1))[2] < 0 and np.max(verts, axis=(0, 1))[2] < 0
    # With the released labels the scores are there, and jitter of the sequence is.
    truth = [(posed_hand(seed).mano * GL).tolist() for seed in range(4)]
    (tmp_path / 'evaluation_xyz.json').write_text(json.dumps(truth))
    scores = run(config, Told(*answers))['scores']
    assert scores['pa_mpjpe_mm'] < 1e-3 and scores['mpjpe_scale_translation_mm'] < 1e-3
    assert scores['jitter_mm_per_frame2'] < 1e-3
    answers[1] = [replace(answers[1][0], joints_m=answers[1][0].joints_m + GL * [0.01, 0, 0])]
    jitter = run(config, Told(*answers))['scores']['jitter_mm_per_frame2']
    assert jitter == pytest.approx((20 + 10) / 2, rel=1e-3)  # windows 0-2 and 1-3


def test_dexycb_submission(tmp_path: Path) -> None:
    subject = '20200928-subject-07'
    camera = np.array([[617.0, 0, 312.0], [0, 617.0, 241.0], [0, 0, 1]])
    colour = {'fx': 617.0, 'fy': 617.0, 'ppx': 312.0, 'ppy': 241.0}
    intrinsics = tmp_path / 'calibration' / 'intrinsics'
    intrinsics.mkdir(parents=True)
    for serial in SERIALS:
        (intrinsics / f'{serial}_640x480.yml').write_text(yaml.safe_dump({'color': colour}))
    for i in range(100):
        (tmp_path / subject / f's{i:03d}').mkdir(parents=True)
        meta = {'num_frames': 2 if i == 0 else 0, 'mano_sides': ['left']}
        (tmp_path / subject / f's{i:03d}' / 'meta.yml').write_text(yaml.safe_dump(meta))
    for serial in SERIALS:
        folder = tmp_path / subject / 's000' / serial
        for frame in range(2):
            write_jpeg(folder / f'color_{frame:06d}.jpg', (480, 640))
            joints = posed_hand(0, left=True).mpii[None]
            pixels = project(joints, camera)
            if frame == 1:
                joints, pixels = joints * 0 - 1, pixels * 0 - 1
            np.savez(folder / f'labels_{frame:06d}.npz', joint_3d=joints, joint_2d=pixels)
    hand = answer(posed_hand(0, left=True), camera, side='left')
    answers = [[hand], []] * 8
    answers[2] = []
    config = EvalConfig('dexycb', 'w', tmp_path, split='s1_val', out=tmp_path / 'out')
    scores = run(config, Told(*answers))['scores']
    assert scores['hands'] == 8 and scores['images'] == 16  # unlabelled frames are not scored
    assert scores['found'] == 7 / 8 and scores['side_accuracy'] == 1.0
    lines = (tmp_path / 'out' / 'dexycb.txt').read_text().splitlines()
    parsed = {int(line.split(',')[0]): [float(v) for v in line.split(',')[1:]] for line in lines}
    assert sorted(parsed) == list(range(16)) and all(len(v) == 63 for v in parsed.values())
    np.testing.assert_allclose(
        np.reshape(parsed[0], (21, 3)), 1000 * posed_hand(0, left=True).mpii, atol=1e-3
    )
    assert not np.any(parsed[2])


def test_hint_submission_and_hidden_joints(tmp_path: Path) -> None:
    camera = Camera.uncalibrated(320, 240).matrix_px
    pixels = project(posed_hand(0).mpii, camera)
    folder = tmp_path / 'TEST_newdays_img'
    for stem in ('a_r', 'b_l'):
        write_jpeg(folder / f'{stem}.jpg', (240, 320))
        entry = {
            'bbox': [[*pixels.min(0), *pixels.max(0)]],
            'keypoints': pixels.tolist(),
            'occlusion': [0] * 11 + [1] * 10,
        }
        (folder / f'{stem}.json').write_text(json.dumps([entry]))
    hand = answer(posed_hand(0), camera)
    half = replace(hand, joints_px=pixels + np.where(np.arange(21) < 11, 0, 1e3)[:, None])
    config = EvalConfig('hint', 'w', tmp_path, split='TEST_newdays', out=tmp_path / 'out')
    pipeline = Told([hand], [half])
    scores = run(config, pipeline)['scores']
    assert not pipeline.cameras[0].calibrated
    assert scores['pck_visible_0.05'] == 1.0 and scores['pck_hidden_0.05'] == 0.5
    assert scores['pck_0.05'] == pytest.approx((11 + 5) / 21)
    assert scores['pck_projected_0.05'] == 1.0 and scores['side_accuracy'] == 0.5
    assert scores['pck_placed_0.05'] == 1.0
    with np.load(tmp_path / 'out' / 'hint.npz') as file:
        assert file['imgname'].tolist() == ['a_r.jpg', 'b_l.jpg']
        assert file['right'].tolist() == [1, 1]
        np.testing.assert_allclose(file['hand_keypoints_2d'][0, :, :2], pixels)
        np.testing.assert_allclose(file['hand_keypoints_2d'][0, :, 2], 0.7)
        side = np.ptp(hand.box_xyxy_px.reshape(2, 2), axis=0).max()
        np.testing.assert_allclose(file['scale'][0], side)


def test_synth_is_held_out_and_fully_labelled() -> None:
    dataset = HeldOutSynth(2, (128, 160))
    sample = dataset[0]
    sample.check()
    assert sample.image.shape == (3, 128, 160)
    assert np.array_equal(sample.image, HeldOutSynth(2, (128, 160))[0].image)
    assert len(dataset) == 2 and dataset.sequence(0) is None
    scores = Scores(same_topology=True)
    answers = []
    for n in range(len(sample.hands)):
        root = sample.hands.translation_m[n].double().numpy()
        answers.append(
            answer(
                posed_hand(0),
                box_xyxy_px=sample.hands.boxes_xyxy_px[n].double().numpy(),
                joints_px=sample.hands.joints_px[n].double().numpy(),
                network_joints_px=sample.hands.joints_px[n].double().numpy(),
                joints_m=sample.hands.joints_m[n].double().numpy() + root,
                vertices_m=sample.hands.vertices_m[n].double().numpy() + root,
                side='left' if sample.hands.is_left[n] else 'right',
            )
        )
    assert answers
    scores.add(0, sample, answers)
    summary = scores.summary()
    assert summary['pa_mpvpe_mm'] < 0.01 and summary['side_accuracy'] == 1.0
    assert summary['pck_projected_0.05'] == 1.0


def test_nothing_evaluated_has_no_scores() -> None:
    assert Scores(same_topology=True).summary() == {'images': 0, 'hands': 0}


def test_options_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match='--root'):
        EvalConfig('freihand', 'w')
    with pytest.raises(UserError, match='--every'):
        EvalConfig('synth', 'w', every=0)
    with pytest.raises(UserError, match='no dataset'):
        open_evaluation(EvalConfig('freehand', 'w', Path()), None)
    monkeypatch.setattr('sys.argv', ['handos-eval', 'freihand', '--weights', 'w'])
    with pytest.raises(SystemExit) as stop:
        evaluate.main()
    assert stop.value.code == 2 and '--root' in capsys.readouterr().err


def test_check_data_draws_a_sheet(freihand: Path, tmp_path: Path) -> None:
    sheet = tmp_path / 'sheet.png'
    config = CheckConfig('freihand', freihand, 'evaluation', sheet, shown=3)
    report = run_check(config)
    assert (report.read, report.hands, report.with_joints_m) == (COUNT, COUNT, COUNT)
    assert report.largest_reprojection_px < 0.01
    assert sheet.stat().st_size > 10_000
    again = tmp_path / 'again.png'
    check_data_main(['freihand', '--root', str(freihand), '--split', 'test', '--shown', '3',
                     '--out', str(again)])  # fmt: skip
    assert again.read_bytes() == sheet.read_bytes()


@pytest.mark.parametrize('damage', ['image', 'label'])
def test_check_data_names_what_is_wrong(
    freihand: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if damage == 'image':
        truncate(freihand / 'evaluation' / 'rgb' / '00000002.jpg')
        expected = r'\[2\].*truncated'
    else:
        reader = open_dataset('freihand', freihand, 'evaluation')
        original: Callable[[int], object] = type(reader).__getitem__

        def shifted(self: object, index: int) -> object:
            sample = original(self, index)  # type: ignore[call-arg,arg-type]
            sample.hands.joints_px += 5 * (index == 1)
            return sample

        monkeypatch.setattr(type(reader), '__getitem__', shifted)
        expected = r'\[1\].*7\.1 px'
    with pytest.raises(UserError, match=expected):
        run_check(CheckConfig('freihand', freihand, 'evaluation', tmp_path / 'sheet.png'))
