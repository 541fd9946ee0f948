"""Weights folders: round trip, and every way in which they may be wrong."""

import json
from dataclasses import replace

import pytest
import torch
from small_networks import hand_model, instances, random_images, small_config, small_network

from handos_model.config import DecoderConfig, DetectorConfig, HandOSConfig
from handos_model.errors import UserError
from handos_model.network.handos import HandOS
from handos_model.weights import store as weights


@pytest.fixture(scope='module')
def network():
    return small_network()


@pytest.fixture
def folder(network, tmp_path):
    network.save_pretrained(tmp_path / 'hand')
    return tmp_path / 'hand'


def test_a_saved_network_is_the_same_network(network, folder):
    loaded = HandOS.from_pretrained(folder)
    assert not any(module.training for module in loaded.modules())
    assert loaded.config == network.config and loaded.config.template_hash
    for parts in (HandOS.named_parameters, HandOS.named_buffers):  # also those never saved
        for (name, value), (_, again) in zip(parts(network), parts(loaded), strict=True):
            assert torch.equal(value, again), name
    with torch.no_grad():
        features = [n.encode(random_images()) for n in (network, loaded)]
        outputs = [
            n.decode(f, *instances(f, [(0, 1), (1, 2)]))[-1]
            for n, f in zip((network, loaded), features, strict=True)
        ]
    assert torch.equal(features[0].detector.scores, features[1].detector.scores)
    assert torch.equal(outputs[0].vertices_m, outputs[1].vertices_m)


def test_a_referenced_detector_stays_where_it_is(tmp_path):
    network = small_network(small_config('rt_detr_v2'))
    network.detector.model.save_pretrained(tmp_path / 'detector')
    reference = DetectorConfig('rt_detr_v2', reference=str(tmp_path / 'detector'))
    head_only = HandOS.from_config(replace(network.config, detector=reference), hand_model())
    head_only.save_pretrained(tmp_path / 'head')
    saved, whole = (
        (tmp_path / 'head' / weights.WEIGHTS),
        sum(v.numel() for v in network.state_dict().values()),
    )
    assert saved.stat().st_size < 4 * whole / 2
    loaded = HandOS.from_pretrained(tmp_path / 'head')
    for key, value in head_only.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_another_template_is_refused_by_name(folder):
    mirrored = hand_model().mirrored()
    with pytest.raises(UserError, match='template') as refusal:
        HandOS.from_pretrained(folder, mirrored)
    assert mirrored.template_hash[:12] in str(refusal.value)
    assert hand_model().template_hash[:12] in str(refusal.value)


@pytest.mark.fault('disk', 'damaged weights', 'refused by their checksum')
def test_damaged_weights_are_refused(folder):
    path = folder / weights.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b'\x01')
    with pytest.raises(UserError, match='SHA-256'):
        HandOS.from_pretrained(folder)


@pytest.mark.fault('disk', 'weights without checksums', 'refused')
def test_missing_checksums_are_refused(folder):
    (folder / weights.CHECKSUMS).unlink()
    with pytest.raises(UserError, match='sha256sum'):
        HandOS.from_pretrained(folder)


@pytest.mark.parametrize('name', ['../elsewhere', '/etc/hostname', 'absent'])
def test_checksums_name_only_files_of_the_folder(folder, name):
    (folder / weights.CHECKSUMS).write_text(f'{"0" * 64}  {name}\n')
    with pytest.raises(UserError, match='not in'):
        weights.verify_checksums(folder)


def test_weights_of_another_shape_are_refused(folder):
    values = json.loads((folder / weights.CONFIG).read_text())
    values['decoder']['stage'] = '2d'
    (folder / weights.CONFIG).write_text(json.dumps(values))
    weights.write_checksums(folder)
    with pytest.raises(UserError, match='does not fit'):
        HandOS.from_pretrained(folder)


def test_unknown_names_say_what_to_give():
    with pytest.raises(UserError, match='give a folder'):
        weights.find_weights('no-such-weights')


def test_shipped_weights_are_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(weights, 'SEARCH_PATH', (folder.parent,))
    assert weights.find_weights('hand') == folder
    with pytest.raises(UserError, match='shipped: hand'):
        weights.find_weights('foot')


@pytest.mark.parametrize('name', ['nano', 'base', 'paper'])
def test_configs_survive_json(name):
    config = getattr(HandOSConfig, name)()
    assert HandOSConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ('{"decoder": {"attention": "sideways"}}', 'decoder.attention'),
        ('{"decoder": {"dim": 100}}', 'multiple of heads'),
        ('{"decoder": {"vertex_tokens": 99}}', 'vertex_tokens'),
        ('{"detector": {"family": "yolo"}}', 'detector.family'),
        ('{"side_tuning": {"width": 0}}', 'must be positive'),
        ('{"input_size_hw": [480, 641]}', 'multiples of 32'),
        ('{"colour": 1}', 'colour'),
        ('[]', 'one object'),
        ('{', 'not JSON'),
    ],
)
def test_a_wrong_config_is_named(change, complaint):
    with pytest.raises(UserError, match=complaint):
        HandOSConfig.from_json(change)


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        DecoderConfig().dim = 3
    assert small_config() == small_config()


def test_a_shipped_folder_is_whole_after_the_hub(tmp_path, monkeypatch):
    """The download asks for every file that the checksums name."""
    there = tmp_path / 'there'
    there.mkdir()

    def from_hub(hub_id, allow_patterns):
        for path in weights.find_weights('nano').iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                (there / path.name).write_bytes(path.read_bytes())
        return str(there)

    monkeypatch.setattr('huggingface_hub.snapshot_download', from_hub)
    folder = weights.find_weights('someone/nano')
    weights.verify_checksums(folder)
    named = {line.split()[1] for line in (folder / weights.CHECKSUMS).read_text().splitlines()}
    assert named == {path.name for path in folder.iterdir()} - {weights.CHECKSUMS}
    assert {'detector.onnx', weights.WEIGHTS, weights.CONFIG} <= named
