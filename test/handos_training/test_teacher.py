"""A teacher's hands as labels: any system's by a small protocol, and HandOS's own weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hand_samples import posed_hand, project, write_jpeg

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import Camera, ImageArray
from handos_training.config import DataConfig, OptimConfig, TrainConfig
from handos_training.sources import stored_sources
from handos_training.stages.network import build_network
from handos_training.teacher import TaughtHand, pictures, taught
from handos_training.train import Trainer

SIZE_HW = (96, 128)


def knows_one_hand(image: ImageArray) -> list[TaughtHand]:
    """The same hand in every picture, one joint unsure, and one that it does not believe."""
    hand = posed_hand(0)
    camera = Camera.uncalibrated(image.shape[1], image.shape[0]).matrix_px
    pixels, confidence = project(hand.mpii, camera), np.where(np.arange(21) == 4, 0.2, 0.9)
    sure = TaughtHand(pixels, confidence, 0.8, None, False, hand.mpii, hand.vertices_m)
    return [sure, replace(sure, score=0.3)]


def sees_nothing(image: ImageArray) -> list[TaughtHand]:
    return []


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Two photographs, one that cannot be read, and a video of twelve frames."""
    folder = tmp_path / 'unlabelled'
    for i in range(2):
        write_jpeg(folder / 'photos' / f'{i}.jpg', (120, 160), i)
    (folder / 'photos' / 'broken.jpg').write_bytes(b'none')
    writer = cv2.VideoWriter(
        str(folder / 'robot.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 30, (160, 120)
    )
    for i in range(12):
        writer.write(np.full((120, 160, 3), 20 * i, np.uint8))
    writer.release()
    return folder


def test_any_system_can_teach(unlabelled: Path, tmp_path: Path) -> None:
    assert len(pictures([unlabelled])) == 3 + 3
    lessons = taught('test_teacher:knows_one_hand', [unlabelled], tmp_path / 'out', 0.5, None)
    assert len(lessons) == 2 + 3
    for index in range(len(lessons)):
        sample = lessons[index]
        sample.check()
        hands, truth = sample.hands, posed_hand(0)
        assert len(hands) == 1 and not sample.all_hands_labelled
        assert np.flatnonzero(~hands.has_joint_px[0]).tolist() == [4]
        assert hands.has_side[0] and not hands.is_left[0] and not hands.has_visibility[0]
        vertices = (hands.vertices_m[0] + hands.translation_m[0]).numpy()
        np.testing.assert_allclose(vertices, truth.vertices_m, atol=1e-6)
    # They stand: a teacher that is gone is not asked again.
    assert len(taught('gone:teacher', [], tmp_path / 'out', 0.5, None)) == 5
    with pytest.raises(UserError, match='cannot be imported'):
        taught('gone:teacher', [unlabelled], tmp_path / 'other', 0.5, None)
    with pytest.raises(UserError, match='found no hand in 6 pictures'):
        taught('test_teacher:sees_nothing', [unlabelled], tmp_path / 'other', 0.5, None)


def test_weights_teach_a_student(unlabelled: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        stage='full', model='tiny', train_detector=True, image_sizes_hw=(SIZE_HW,), batch_size=2,
        num_steps=2, precision='fp32', out=tmp_path / 'run', optim=OptimConfig(warmup_steps=1),
    )  # fmt: skip
    torch.manual_seed(0)
    teacher = build_network(config, HandModel.embedded())
    with torch.no_grad():
        for head in teacher.detector.model.class_embed:
            head.bias.zero_()
        teacher.detector.model.model.decoder.pre_bbox_head.layers[-1].bias[2:] = 3.0
        for head in teacher.decoder.joint_heads:
            for parameter in head.visibility.parameters():
                parameter.zero_()
    teacher.save_pretrained(tmp_path / 'teacher')
    data = DataConfig(
        teacher=str(tmp_path / 'teacher'), unlabelled=(unlabelled,), teacher_score=0.4,
        validation_samples=1, num_workers=0,
    )  # fmt: skip
    config = replace(config, data=data)
    trainer = Trainer(config)
    (source,) = trainer.sources
    assert source.name == 'teacher' and source.dataset[0].hands.has_vertices_m.all()
    trainer.run()
    assert (config.out / 'weights' / 'model.safetensors').is_file()
    assert len(stored_sources(config)) == 1
