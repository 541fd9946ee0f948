"""Options that cannot mean anything are refused where they are given, by their names."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from handos_model.backends.base import EngineOptions
from handos_model.backends.choice import open_engine
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.weights.exported import ExportedWeights
from handos_training import quantise
from handos_training.config import OptimConfig, TrainConfig, load_config
from handos_training.quantise import QuantiseConfig
from handos_training.stages.network import build_network
from handos_training.synth import cli
from handos_training.synth.config import SynthConfig

SMALL = SynthConfig(width=64, height=64)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
        ({'dense_along': True}, 'dense_along needs train_detector'),
        ({'accumulate': 2, 'train_detector': True}, 'accumulate is for a frozen detector'),
        ({'image_sizes_hw': ((224, 300),)}, 'multiples of 32, got 224x300'),
    ],
)
def test_of_a_run(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainConfig(stage='full', **options)


@pytest.mark.parametrize('size_hw', [(32, 64), (64, 32)])
def test_of_images_too_small_for_the_queries(size_hw: tuple[int, int]) -> None:
    options = replace(
        load_config('nano_full'), init_from=None, image_sizes_hw=((224, 288), size_hw)
    )
    with pytest.raises(UserError, match=r'has 42 cells, and this detector chooses 60 queries'):
        build_network(options, HandModel.embedded())
    build_network(replace(options, image_sizes_hw=((64, 64),)), HandModel.embedded())  # 84 cells


def test_of_the_optimiser() -> None:
    for options in ({'lr': 0.0}, {'constant_fraction': 1.5}, {'ema_decay': 1.0}):
        with pytest.raises(ValueError, match='out of range'):
            OptimConfig(**options)


def test_of_a_file_that_is_no_run(tmp_path: Path) -> None:
    file = tmp_path / 'mine.py'
    file.write_text('config = 1\n')
    with pytest.raises(UserError, match=r'mine.py must define `config = TrainConfig'):
        load_config(str(file))
    with pytest.raises(UserError, match=r'no config .*: give the path of a .py file or one of'):
        load_config(str(tmp_path / 'other.py'))


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'width': 16}, 'at least 32 px, got 16x64'),
        ({'sleeve_fraction': 1.5}, r'sleeve_fraction must be in \[0, 1\]'),
        ({'upright_fraction': 0.9, 'egocentric_fraction': 0.2}, 'at most 1'),
        ({'hand_counts': (1.0, 0.0)}, 'four weights'),
        ({'hand_size': (0.5, 0.2)}, 'hand_size must be 0 < low <= high'),
        ({'field_of_view_deg': (25.0, 150.0)}, 'field_of_view_deg must be'),
        ({'backgrounds': Path('/nonexistent')}, 'no folder /nonexistent'),
    ],
)
def test_of_generated_hands(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **options)


def test_a_sheet_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match=r'give a .png or .jpg in a folder that exists'):
        cli.preview(tmp_path / 'none' / 'sheet.png', count=2, columns=2, config=SMALL)
    cli.preview(tmp_path / 'sheet.png', count=2, columns=2, config=SMALL)
    assert cv2.imread(str(tmp_path / 'sheet.png')) is not None
    assert 'sheet.png: 2 images' in capsys.readouterr().out


def test_the_generator_s_speed_is_told(capsys: pytest.CaptureFixture) -> None:
    cli.bench(sizes=((64, 64),), batch_size=2, batches=1, workers=0, config=SMALL)
    (result,) = json.loads(capsys.readouterr().out)['results']
    assert (result['width'], result['height']) == (64, 64)


def test_of_8_bits(
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(UserError, match='must be at least 1'):
        QuantiseConfig(tiny_weights, images=0)
    with pytest.raises(UserError, match=r'has no picture \(.jpg, .png\)'):
        quantise.run(QuantiseConfig(tiny_weights, photos=tmp_path))
    exported = ExportedWeights.load(tiny_weights)
    halves = replace(exported, graphs=tuple(g for g in exported.graphs if g.precision == 'fp16'))
    (tmp_path / 'manifest.json').write_text(halves.to_json())
    monkeypatch.setattr(sys, 'argv', ['handos-quantise', str(tmp_path)])
    with pytest.raises(SystemExit, match='2'):
        quantise.main()
    assert 'has no float graphs to start from' in capsys.readouterr().err


@pytest.mark.parametrize('precision', ['int8', 'fp16'])
def test_torch_computes_in_floats_on_cpus(tiny_weights: Path, precision: Any) -> None:
    with pytest.raises(UserError, match='use precision fp32'):
        open_engine('torch', tiny_weights, EngineOptions(precision=precision))
