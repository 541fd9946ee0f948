"""CompHand, from a tree in its own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_samples import assert_anatomy, reprojection_error_px, truncate
from mini_datasets import write_comphand, write_mano

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import open_dataset


@pytest.fixture
def model(tmp_path: Path) -> HandModel:
    return HandModel.from_mano(write_mano(tmp_path))


def test_left_hands_with_their_meshes(model: HandModel, tmp_path: Path) -> None:
    root = write_comphand(tmp_path / 'comphand', model)
    for mano in (None, model):
        dataset = open_dataset('comphand', root, 'train', mano)
        assert len(dataset) == 2  # the view with 215 in its name is left out
        for index in range(2):
            sample = dataset[index]
            hands = sample.hands
            assert hands.is_left.tolist() == [True] and sample.all_hands_labelled
            assert reprojection_error_px(sample) < 1e-3
            assert_anatomy(hands.joints_m[0].numpy())
            assert hands.has_vertices_m.all() == (mano is not None)
            if mano is not None:
                joints = (
                    HandModel.embedded().joint_regressor_21 @ hands.vertices_m[0].double().numpy()
                )
                np.testing.assert_allclose(hands.joints_m[0], joints - joints[9], atol=1e-5)


def test_what_is_damaged_is_said(model: HandModel, tmp_path: Path) -> None:
    root = write_comphand(tmp_path / 'comphand', model)
    mesh = next(root.rglob('7.obj'))
    whole = mesh.read_text()
    for content in (whole[: len(whole) // 2], '', whole.replace('v ', 'v x ', 1)):
        mesh.write_text(content)
        with pytest.raises(ValueError):
            [open_dataset('comphand', root)[i] for i in range(2)]
    mesh.write_text(whole)
    truncate(sorted(root.rglob('*.png'))[0])
    with pytest.raises(ValueError, match='truncated'):
        open_dataset('comphand', root)[0]
    (root / 'K256.npy').unlink()
    with pytest.raises(UserError, match=r'K256\.npy is missing'):
        open_dataset('comphand', root)
