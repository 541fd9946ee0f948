"""The network: exactness of shared values, structure and stages."""

from dataclasses import fields, replace

import pytest
import torch
from small_networks import (
    hand_model,
    instances,
    random_images,
    small_config,
    small_network,
)

from handos_model.config import DetectorConfig, HandOSConfig, SideTuningConfig
from handos_model.network.attention import sample_by_gather
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.graphs import DecoderGraph
from handos_model.network.handos import HandOS
from handos_model.network.heads import DecoderOutput, HandFrame, project
from handos_model.types import ROOT_JOINT

HANDS = [(0, 0), (1, 2), (1, 5), (0, 7), (1, 9)]


def tensors(output: DecoderOutput):
    values = {f.name: getattr(output, f.name) for f in fields(output)}
    return {name: value for name, value in values.items() if value is not None}


def assert_same(one: DecoderOutput, other: DecoderOutput, atol: float = 1e-5):
    assert tensors(one).keys() == tensors(other).keys()
    for name, value in tensors(one).items():
        torch.testing.assert_close(value, tensors(other)[name], atol=atol, rtol=1e-4, msg=name)


@pytest.fixture(scope='module')
def network():
    return small_network()


@pytest.fixture(scope='module')
@torch.no_grad()
def features(network):
    return network.encode(random_images())


@torch.no_grad()
def decode(network, features, hands):
    return network.decode(features, *instances(features, hands))


def test_every_layer_speaks(network, features):
    outputs = decode(network, features, HANDS)
    assert [o.vertices_m is not None for o in outputs] == [False] * 2 + [True] * 4
    N, final = len(HANDS), outputs[-1]
    shapes = {name: tuple(value.shape) for name, value in tensors(final).items()}
    assert shapes == {
        'joints_2d': (N, 21, 2),
        'visibility_logits': (N, 21),
        'vertices_m': (N, 778, 3),
        'joints_m': (N, 21, 3),
        'translation_m': (N, 3),
        'joints_projected': (N, 21, 2),
    }
    assert final.joints_m[:, ROOT_JOINT].abs().max() < 1e-6
    regressor = torch.tensor(hand_model().joint_regressor_21).float()
    torch.testing.assert_close(final.joints_m, regressor @ final.vertices_m)
    assert final.vertices_m.norm(dim=-1).amax(1).min() > 0.01  # no mesh is a point


@torch.no_grad()
def test_the_query_has_a_say_in_the_side_where_the_config_wants_it():
    two = [(0, 0), (0, 1)]
    for side in ('normals', 'query'):
        network = small_network(small_config(side=side))
        features = network.encode(random_images())
        *earlier, logits = [output.right_logits for output in decode(network, features, two)]
        assert all(one is None for one in earlier)
        _, queries, boxes = instances(features, two)
        graph = DecoderGraph(network, features.spatial_shapes, features.image_size_hw)
        right = graph(features.values_source[:1], queries, boxes)[-1]
        if side == 'query':
            torch.testing.assert_close(right, logits.sigmoid())
        else:
            assert logits is None and (right == 0.5).all()


def test_projection_is_the_virtual_camera():
    frame = HandFrame.of(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), (480, 640))
    point, translation = torch.tensor([[[0.1, -0.05, 0.2]]]), torch.tensor([[0.0, 0.05, 0.6]])
    expected_px = (640 * 0.1 / 0.8 + 319.5, 640 * 0.0 / 0.8 + 239.5)  # pixel centres are integers
    found = project(point, translation, frame)[0, 0]
    assert found.tolist() == pytest.approx(
        [(expected_px[0] + 0.5) / 640, (expected_px[1] + 0.5) / 480]
    )


def test_shared_values_equal_a_projection_per_hand(network, features):
    together = decode(network, features, HANDS)[-1]
    image, queries, boxes = instances(features, HANDS)
    per_hand = replace(features, values_source=features.values_source[image])  # [N,L,C] copied
    with torch.no_grad():
        alone = network.decode(per_hand, torch.arange(len(HANDS)), queries, boxes)[-1]
    assert_same(together, alone)


def test_hands_do_not_see_each_other_and_keep_their_order(network, features):
    together = decode(network, features, HANDS)
    order = [3, 0, 4, 2, 1]
    permuted = decode(network, features, [HANDS[i] for i in order])
    for one, other in zip(together, permuted, strict=True):
        assert_same(DecoderOutput(**{k: v[order] for k, v in tensors(one).items()}), other)
    for i, hand in enumerate(HANDS):
        alone = decode(network, features, [hand])[-1]
        assert_same(
            DecoderOutput(**{k: v[i : i + 1] for k, v in tensors(together[-1]).items()}), alone
        )


@pytest.mark.parametrize('stage', ['2d', 'full'])
def test_an_empty_selection_gives_empty_outputs(stage):
    network = small_network(small_config(stage=stage))
    with torch.no_grad():
        features = network.encode(random_images(1))
    empty, one = decode(network, features, []), decode(network, features, [(0, 0)])
    for e, o in zip(empty, one, strict=True):
        assert {k: v.shape[1:] for k, v in tensors(e).items()} == {
            k: v.shape[1:] for k, v in tensors(o).items()
        }
        assert all(len(v) == 0 for v in tensors(e).values())


def changed_by(network, features, disturb):
    """Names of the final outputs that change when `disturb` edits the tokens after lifting."""
    before = tensors(decode(network, features, HANDS)[-1])
    handle = network.decoder.layers[2].register_forward_pre_hook(
        lambda _, args: (disturb(args[0].clone()), *args[1:])
    )
    after = tensors(decode(network, features, HANDS)[-1])
    handle.remove()
    return {name for name in before if not torch.equal(before[name], after[name])}


def add_to(tokens, which):
    tokens[:, which] += 1.0
    return tokens


EVERYTHING = {
    'joints_2d', 'visibility_logits', 'vertices_m', 'joints_m', 'translation_m', 'joints_projected'
}  # fmt: skip


def test_the_camera_token_is_seen_by_nothing(network, features):
    changed = changed_by(network, features, lambda tokens: add_to(tokens, -1))
    assert changed == CAMERA


def test_joints_and_vertices_see_each_other(network, features):
    assert changed_by(network, features, lambda tokens: add_to(tokens, 4)) == EVERYTHING
    assert changed_by(network, features, lambda tokens: add_to(tokens, 50)) == EVERYTHING


CAMERA = {'translation_m', 'joints_projected'}
MESH = {'vertices_m', 'joints_m', 'joints_projected'}


@pytest.mark.parametrize(
    ('strategy', 'camera', 'vertex'),
    [
        ('independent', CAMERA, MESH),
        ('unidirectional', CAMERA, MESH | CAMERA),
        ('full', EVERYTHING, EVERYTHING),
    ],
)
def test_the_ablated_strategies_of_fig_8(strategy, camera, vertex):
    network = small_network(small_config(attention=strategy))
    with torch.no_grad():
        features = network.encode(random_images())
    assert changed_by(network, features, lambda tokens: add_to(tokens, -1)) == camera
    assert changed_by(network, features, lambda tokens: add_to(tokens, 50)) == vertex


def test_unified_queries_ignore_the_instance(network, features):
    unified = small_network(small_config(queries='unified'))
    image, queries, boxes = instances(features, HANDS)
    with torch.no_grad():
        one = unified.decode(features, image, queries, boxes)[-1]
        other = unified.decode(features, image, queries + 1, boxes)[-1]
        instance = network.decode(features, image, queries, boxes)[-1]
        changed = network.decode(features, image, queries + torch.randn_like(queries), boxes)[-1]
    assert_same(one, other)
    assert not torch.allclose(instance.joints_2d, changed.joints_2d)


@pytest.mark.parametrize('vertex_tokens', [778, 195, 98])
def test_fewer_vertex_tokens_still_give_the_whole_mesh(vertex_tokens):
    network = small_network(small_config(vertex_tokens=vertex_tokens))
    with torch.no_grad():
        features = network.encode(random_images())
    assert network.decoder.lifting.matrix.shape == (vertex_tokens + 1, 21)
    assert decode(network, features, HANDS)[-1].vertices_m.shape == (5, 778, 3)


def test_lifting_starts_from_the_skinning_weights():
    network = HandOS.from_config(small_config(vertex_tokens=778), hand_model())
    lifting = torch.tensor(hand_model().lifting_matrix()).float()
    assert torch.equal(network.decoder.lifting.matrix.detach(), lifting)
    assert torch.allclose(lifting[-1], torch.tensor(1 / 21))


@pytest.mark.parametrize(
    ('side', 'width'),
    [
        (SideTuningConfig(source='none'), 128),
        (SideTuningConfig(combine='concat', width=32), 160),
        (SideTuningConfig(combine='add', width=128, hidden=16), 128),
    ],
)
def test_side_tuning_variants(side, width):
    network = small_network(replace(small_config(), side_tuning=side))
    with torch.no_grad():
        features = network.encode(random_images())
    L, memory = features.detector.memory.shape[1], features.detector.memory
    assert features.values_source.shape == (2, L, width)
    # Added side features start at nothing; what they learn reaches the values.
    adds = side.source != 'none' and side.combine == 'add'
    assert torch.equal(features.values_source, memory) == (side.source == 'none' or adds)
    if adds:
        with torch.no_grad():
            for scale in network.side_tuning.scales:
                scale[-1].weight.fill_(1.0)
            assert not torch.equal(network.encode(random_images()).values_source, memory)
    if side.combine == 'concat':
        assert torch.equal(features.values_source[..., : memory.shape[-1]], memory)


def test_side_features_keep_their_place():
    """The level and position of F_s in the sequence are those of F_e."""
    network = small_network()
    images = torch.zeros(1, 3, 96, 128)
    images[:, :, 64:, 96:] = 255  # the lower right corner
    with torch.no_grad():
        plain, corner = network.encode(torch.zeros(1, 3, 96, 128)), network.encode(images)
    change = (corner.values_source - plain.values_source)[..., 128:].abs().sum(-1)[0]
    (h, w), _, _ = corner.spatial_shapes
    fine = change[: h * w].view(h, w)
    assert fine[-3:, -3:].mean() > 3 * fine[:3, :3].mean()


@pytest.mark.parametrize('family', ['rt_detr_v2', 'grounding_dino'])
def test_other_families_run_through(family):
    network = small_network(small_config(family))
    with torch.no_grad():
        features = network.encode(random_images())
    final = decode(network, features, HANDS)[-1]
    assert final.vertices_m.shape == (5, 778, 3)
    assert all(v.isfinite().all() for v in tensors(final).values())


def test_uint8_and_float_images_are_one(network):
    images = random_images().round()
    with torch.no_grad():
        one, other = network.encode(images), network.encode(images.to(torch.uint8))
    assert torch.equal(one.values_source, other.values_source)


def test_gather_sampling_decodes_the_same():
    network = small_network()
    with torch.no_grad():
        features = network.encode(random_images())
    by_grid = decode(network, features, HANDS)[-1]
    network.set_sampler(sample_by_gather)
    assert_same(by_grid, decode(network, features, HANDS)[-1], atol=1e-4)


def test_bfloat16_stays_close_and_finite():
    network = small_network()
    images = random_images()
    with torch.no_grad():
        features = network.encode(images)
        exact = decode(network, features, HANDS)[-1]
        with torch.autocast('cpu', torch.bfloat16):
            found = decode(network, features, HANDS)[-1]
    assert found.vertices_m.dtype == torch.float32
    assert (found.joints_2d - exact.joints_2d).abs().mean() < 0.02
    assert all(v.isfinite().all() for v in tensors(found).values())


def test_training_the_head_changes_no_detector_tensor():
    network = small_network(small_config(start='query')).train()  # maps have their own loss
    before = {k: v.clone() for k, v in network.detector.state_dict().items()}
    assert any('running_mean' in key for key in before)
    trained = [p for p in network.parameters() if p.requires_grad]
    heads_before = [p.detach().clone() for p in trained]
    optimiser = torch.optim.Adam(trained, 1e-3)
    for step in range(5):
        features = network.encode(random_images(seed=step))
        outputs = network.decode(features, *instances(features, HANDS))
        loss = sum(v.square().mean() for o in outputs for v in tensors(o).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = network.detector.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is not None for p in trained)
    assert all(not torch.equal(a, b) for a, b in zip(heads_before, trained, strict=True))


def test_the_2d_stage_initialises_the_full_model():
    two_d = small_network(small_config(stage='2d'))
    full = small_network(small_config(stage='full'))
    result = full.load_state_dict(two_d.state_dict(), strict=False)
    assert not result.unexpected_keys
    new = ('decoder.lifting.', 'decoder.camera_position.', 'decoder.mesh_heads.')
    assert result.missing_keys and all(key.startswith(new) for key in result.missing_keys)
    with torch.no_grad():
        features = full.encode(random_images())
        stages = [n.decode(features, *instances(features, HANDS)) for n in (two_d, full)]
    for one, other in zip(stages[0][:2], stages[1][:2], strict=True):  # the two 2D layers
        assert_same(one, other)
    assert all(o.vertices_m is None for o in stages[0])


def test_checkpointed_layers_have_the_same_gradients():
    network = small_network().train()
    features = network.encode(random_images())
    gradients = []
    for network.decoder.checkpointing in (False, True):
        network.zero_grad()
        outputs = network.decode(features, *instances(features, HANDS))
        sum(output.joints_2d.sum() for output in outputs).backward(retain_graph=True)
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.long
@pytest.mark.parametrize('name', ['base', 'paper'])
def test_real_sizes_run_forward_from_seeded_weights(name):
    config = getattr(HandOSConfig, name)()
    seeded = {
        'base': {
            'backbone_config': {
                'model_type': 'rt_detr_resnet',
                'depths': [2, 2, 2, 2],
                'hidden_sizes': [64, 128, 256, 512],
                'layer_type': 'basic',
                'out_features': ['stage2', 'stage3', 'stage4'],
            },
            'encoder_in_channels': [128, 256, 512],
            'decoder_layers': 3,
            'hidden_expansion': 0.5,
        },
        'paper': {},  # the library's defaults are Grounding DINO tiny
    }
    torch.manual_seed(0)
    detector = DetectorConfig(config.detector.family, model=seeded[name])
    network = HandOS.from_config(replace(config, detector=detector), hand_model())
    initialise_detector(network.detector, seed=0)
    network.eval()
    with torch.no_grad():
        features = network.encode(random_images(1, config.input_size_hw))
    final = decode(network, features, [(0, 0), (0, 1)])[-1]
    assert final.vertices_m.shape == (2, 778, 3)
    assert all(v.isfinite().all() for v in tensors(final).values())
