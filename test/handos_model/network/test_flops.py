"""The arithmetic that the network promises, counted by the benchmark."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import hand_model

from handos_model.config import DecoderConfig, HandOSConfig, SideTuningConfig
from handos_model.network.decoder import InteractiveDecoder

BENCHMARKS = Path(__file__).resolve().parents[3] / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))
import flops  # noqa: E402


def decoder_gflop(config: DecoderConfig, side: SideTuningConfig, hands: int) -> float:
    """The decoder at 720x1280 with four levels of Grounding DINO, without its detector."""
    shapes = ((90, 160), (45, 80), (23, 40), (12, 20))
    channels = 256 + (side.width if side.combine == 'concat' else 0)
    decoder = InteractiveDecoder(config, 512, channels, 4, hand_model()).requires_grad_(False)
    source = torch.randn(1, sum(h * w for h, w in shapes), channels)
    boxes = torch.full((hands, 4), 0.5)

    def run():
        index = torch.zeros(hands, dtype=torch.long)
        decoder(source, shapes, (720, 1280), index, torch.randn(hands, 512), boxes)

    return flops.count_flops(run, depth=2)['']


def test_nano_needs_at_most_12_gflop():
    counts = flops.measure(HandOSConfig.nano(), [2])
    assert counts['input_size_hw'] == [480, 640]
    assert 5 < counts['total_gflop']['2'] <= 12
    parts = (counts['detector_gflop'], counts['side_tuning_gflop'], counts['decoder_gflop']['2'])
    assert sum(parts) == pytest.approx(counts['total_gflop']['2'], abs=0.01)
    assert counts['paper_gflop']['2'] == 301 + 2 * 108


def test_the_papers_decoder_for_two_hands():
    paper = HandOSConfig.paper()
    exact = decoder_gflop(paper.decoder, paper.side_tuning, hands=2)
    assert 40 < exact <= 60
    reduced = flops.REDUCED
    assert decoder_gflop(reduced['decoder'], reduced['side_tuning'], hands=2) <= 22


def test_another_hand_costs_no_second_look_at_the_image():
    """Only tokens scale with the hands; the projection of the image is shared."""
    config = HandOSConfig.paper()
    one, two = (decoder_gflop(config.decoder, config.side_tuning, H) for H in (1, 2))
    assert two - one < 0.4 * one


def test_counts_are_those_of_known_layers():
    layers = torch.nn.ModuleDict(
        {'first': torch.nn.Linear(10, 20), 'second': torch.nn.Linear(20, 5)}
    )

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.both = torch.nn.Sequential(layers['first'], layers['second'])

        def forward(self, x):
            return self.both(x)

    counts = flops.count_flops(lambda: Both()(torch.zeros(1_000_000, 10)), depth=2)
    expected = 1e6 * 2 * (10 * 20 + 20 * 5) / 1e9
    assert counts == {'': pytest.approx(expected), 'both': pytest.approx(expected)}


@pytest.mark.long
def test_the_program_prints_json_and_a_table():
    command = [sys.executable, str(BENCHMARKS / 'flops.py'), 'nano', '--size', '96x128']
    done = subprocess.run([*command, '--hands', '1'], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report['environment']['versions']['torch']
    assert report['results']['nano']['peak_memory_mb'] > 100
    assert 'nano' in done.stderr and '96x128' in done.stderr


def test_every_configuration_has_a_seeded_detector():
    for make in flops.CONFIGS.values():
        config = make()
        detector = flops.SEEDED_DETECTORS[config.name.split('-')[0]]
        assert detector.reference is None
        assert replace(config, detector=detector).detector.family == config.detector.family
