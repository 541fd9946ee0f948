"""Joint maps: the place that a map shows, within the hand's own box, image by image."""

import pytest
import torch
from small_networks import instances, random_images, small_config, small_network

from handos_model.errors import UserError
from handos_model.network.joint_maps import JointMaps, finest_map, joint_positions

H, W = 12, 16
NO_DEPTHS = torch.zeros(1, 21, H, W)
FIRST = torch.zeros(1, dtype=torch.long)


def peaks(*cells: tuple[int, int]) -> torch.Tensor:
    """Logits [1,21,H,W] with the same peaks at (x, y) cells in all maps."""
    logits = torch.zeros(1, 21, H, W)
    for x, y in cells:
        logits[..., y, x] = 20.0
    return logits


def test_the_peak_is_found_at_its_cells_middle() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.6, 0.6]])
    found, _ = joint_positions(peaks((9, 4)), NO_DEPTHS, FIRST, boxes)
    assert torch.allclose(found, torch.tensor([9.5 / W, 4.5 / H]).expand(1, 21, 2), atol=1e-4)


def test_each_hand_looks_into_its_own_box_of_its_own_image() -> None:
    logits = torch.cat([peaks((3, 6), (12, 6)), peaks((8, 2))])
    boxes = torch.tensor([[0.2, 0.5, 0.2, 0.3], [0.8, 0.5, 0.2, 0.3], [0.5, 0.25, 0.2, 0.3]])
    columns = torch.arange(W).expand(2, 21, H, W) / W
    found, depths_m = joint_positions(logits, columns, torch.tensor([0, 0, 1]), boxes)
    expected = torch.tensor([[3.5 / W, 6.5 / H], [12.5 / W, 6.5 / H], [8.5 / W, 2.5 / H]])
    assert torch.allclose(found[:, 0], expected, atol=1e-4)
    assert torch.allclose(depths_m[:, 5], torch.tensor([3.0, 12.0, 8.0]) / W, atol=1e-4)


@pytest.mark.parametrize(
    'box', [[0.5, 0.5, 1e-4, 1e-4], [1.4, -0.3, 0.1, 0.1], [2.0, 2.0, 3.0, 3.0]]
)
def test_no_box_is_without_a_cell(box: list[float]) -> None:
    found, _ = joint_positions(peaks((0, 0)), NO_DEPTHS, FIRST, torch.tensor([box]))
    assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()
    middle = torch.tensor(box[:2]).clamp(0, 1)
    reach = torch.tensor(box[2:]) * 0.75 + torch.tensor([1.5 / W, 1.5 / H])
    assert ((found[0, 0] - middle).abs() <= reach).all()


def test_finest_map_is_the_first_level() -> None:
    values = torch.arange(2 * 20 * 3.0).view(2, 20, 3)
    level = finest_map(values, ((3, 5), (1, 5)))
    assert level.shape == (2, 3, 3, 5)
    assert torch.equal(level[1, :, 2, 4], values[1, 14])


def test_the_first_layer_refines_what_the_maps_show() -> None:
    network = small_network(small_config(start='maps'))
    maps = network.decoder.joint_maps
    assert isinstance(maps, JointMaps)
    with torch.no_grad():
        features = network.encode(random_images())
        chosen = instances(features, [(0, 1), (1, 3)])
        for head in (network.decoder.joint_centre[-1], network.decoder.joint_heads[0].offset[-1]):
            head.weight.zero_()
            head.bias.zero_()
        outputs = network.decode(features, *chosen)
        read = maps(finest_map(features.values_source, features.spatial_shapes))
        expected, _ = joint_positions(*read, chosen[0], chosen[2])
    assert torch.allclose(outputs[0].joints_2d, expected, atol=1e-5)
    assert expected.std(1).min() > 1e-3  # the maps differ from joint to joint


def test_the_mesh_starts_as_deep_as_the_maps_tell() -> None:
    network = small_network(small_config(start='maps'))
    decoder = network.decoder
    assert decoder.joint_maps is not None
    outputs = []
    with torch.no_grad():
        features = network.encode(random_images())
        chosen = instances(features, [(0, 1), (1, 3)])
        for depth_m in (0.0, 0.03):  # of the thumb's tip alone
            decoder.joint_maps.depth_head.bias[4] = depth_m / 0.1
            outputs.append(network.decode(features, *chosen)[-1].vertices_m)
    moved = outputs[1] - outputs[0]
    assert moved[..., :2].abs().max() < 1e-6
    thumb = decoder.upsampling @ decoder.lifting.matrix[:-1, 4]
    root = decoder.root_regressor @ decoder.lifting.matrix[:-1, 4]
    assert torch.allclose(moved[..., 2], (0.03 * (thumb - root)).expand(2, -1), atol=1e-6)


def test_start_is_checked() -> None:
    with pytest.raises(UserError, match='start'):
        small_config(start='anywhere')
