"""H2O-3D, from a tree in its own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_samples import reprojection_error_px
from mini_datasets import write_h2o3d, write_mano

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import open_dataset


def test_both_hands_with_their_meshes(tmp_path: Path) -> None:
    model = HandModel.from_mano(write_mano(tmp_path))
    root = write_h2o3d(tmp_path / 'h2o3d', model)
    for mano in (None, model):
        dataset = open_dataset('h2o3d', root, 'train', mano)
        assert len(dataset) == 3 and dataset.sequence(0) == 'SHSU10'
        for index in range(2):
            sample = dataset[index]
            sample.check()
            hands = sample.hands
            assert hands.is_left.tolist() == [False, True] and sample.all_hands_labelled
            assert reprojection_error_px(sample) < 1
            assert hands.has_vertices_m.all() == (mano is not None)
            if mano is not None:
                joints = model.joint_regressor_21 @ hands.vertices_m[1].double().numpy()
                np.testing.assert_allclose(hands.joints_m[1], joints - joints[9], atol=1e-5)
    unsolved = dataset[2]
    assert len(unsolved.hands) == 0 and not unsolved.all_hands_labelled


def test_another_hand_is_said(tmp_path: Path) -> None:
    root = write_h2o3d(tmp_path / 'h2o3d', HandModel.from_mano(write_mano(tmp_path)))
    with pytest.raises(ValueError, match='mm off its joints'):
        open_dataset('h2o3d', root, 'train', HandModel.embedded())[0]
    (root / 'train.txt').write_text('0000')
    with pytest.raises(UserError, match='lines like'):
        open_dataset('h2o3d', root)
