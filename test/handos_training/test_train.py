"""The loop: exact resumption, bad samples, and a loss that falls."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hand_samples import labelled_sample
from small_runs import SIZE_HW, config_of, losses_of

from handos_model.errors import UserError
from handos_training.config import (
    CONFIG_FOLDER,
    DataConfig,
    OptimConfig,
    TrainConfig,
    load_config,
)
from handos_training.data.feed import StoredBatches, batches
from handos_training.data.mix import Source
from handos_training.data.transform import letterbox
from handos_training.optim import WeightAverage, learning_rate_factor
from handos_training.stages.module import weight_of_term
from handos_training.stages.network import build_network, load_matching
from handos_training.synth.cache import CacheConfig, CachedHands, generate
from handos_training.train import Trainer


@pytest.mark.parametrize('name', sorted(path.stem for path in CONFIG_FOLDER.glob('*.py')))
def test_configs_load(name: str) -> None:
    config = load_config(name)
    assert config.stage in name or name == 'smoke' or name.startswith('paper_')


def test_unknown_config_is_named() -> None:
    with pytest.raises(UserError, match=r'no config .nanoo.'):
        load_config('nanoo')


def test_learning_rate_over_a_run() -> None:
    config = OptimConfig(warmup_steps=10, constant_fraction=0.6, final_factor=0.1)
    factors = [learning_rate_factor(step, step / 1000, config) for step in range(1001)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[600] == 1.0
    assert factors[800] == pytest.approx(0.1 + 0.9 / 2)
    assert factors[1000] == pytest.approx(0.1)


def test_a_run_by_the_clock_ends_and_does_not_go_on(drawn_cache: Path, tmp_path: Path) -> None:
    config = config_of(drawn_cache, tmp_path, minutes=0.2, checkpoint_every=2)
    trainer = Trainer(config)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    rates = [line['learning_rate'] for line in lines if line['kind'] == 'train']
    assert trainer.step == len(rates) > 2
    assert rates[-1] < max(rates)  # the schedule came with the clock
    assert (tmp_path / 'weights' / 'model.safetensors').is_file()
    resumed = Trainer(config, resume=True)  # its time was up: one step finds that out
    resumed.run()
    assert resumed.step == trainer.step + 1


def test_weight_average_swaps_and_comes_back() -> None:
    module = torch.nn.Linear(2, 1)
    average = WeightAverage(module, decay=0.5)
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    average.update(step=1000)
    with average.applied():
        assert torch.allclose(module.weight, before + 0.5)
    assert torch.allclose(module.weight, before + 1.0)


def test_cache_round_trip(drawn_cache: Path) -> None:
    cached = CachedHands([drawn_cache])
    assert len(cached) == 6
    for index in (0, 3, 4, 5):
        stored, truth = cached[index], letterbox(labelled_sample(index), SIZE_HW)
        stored.check()
        assert torch.equal(stored.hands.joints_px, truth.hands.joints_px)
        assert torch.equal(stored.hands.vertex_visible, truth.hands.vertex_visible)
        assert torch.equal(stored.camera_matrix_px, truth.camera_matrix_px)
        assert stored.all_hands_labelled
        difference = (stored.image.float() - truth.image.float()).abs().mean()
        assert difference < 12  # JPEG of noise


def test_feed_is_the_same_with_workers_and_split_over_processes(drawn_cache: Path) -> None:
    def feed(size: int, rank: int = 0, world: int = 1) -> StoredBatches:
        source = Source('drawn', CachedHands([drawn_cache]))
        return StoredBatches([source], size, [SIZE_HW, (96, 96)], 5, rank, world)

    whole = feed(4)
    with_workers = list(batches(feed(4), 2, 5, num_workers=2))
    for step, (batch, _) in zip(range(2, 5), with_workers, strict=True):
        assert torch.equal(batch.images, whole[step].batch.images)
        expected = whole[step].batch
        assert batch.counts == expected.counts
        assert torch.equal(batch.hands.vertices_m, expected.hands.vertices_m)
        assert torch.equal(batch.hands.is_left, expected.hands.is_left)
        halves = [feed(2, rank, 2)[step].batch for rank in (0, 1)]
        assert torch.equal(batch.images, torch.cat([half.images for half in halves]))


def test_every_term_has_a_weight() -> None:
    config = TrainConfig(stage='full')
    assert weight_of_term(config.weights, 'vertices') == 10
    assert weight_of_term(config.weights, 'detector_giou') == 1
    with pytest.raises(AttributeError):
        weight_of_term(config.weights, 'unknown')


def test_frozen_detector_needs_weights(drawn_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='give init_from'):
        Trainer(config_of(drawn_cache, tmp_path, train_detector=False))


def test_full_stage_starts_from_the_2d_stage(drawn_cache: Path, tmp_path: Path) -> None:
    first = Trainer(config_of(drawn_cache, tmp_path / 'a', stage='2d', num_steps=1))
    first.run()
    weights = tmp_path / 'a' / 'weights'
    config = config_of(drawn_cache, tmp_path / 'b', init_from=weights, train_detector=False)
    second = Trainer(config)
    left = load_matching(second.network, weights)
    assert left
    assert not any(name.startswith(('detector.', 'side_tuning.')) for name in left)
    frozen = {n: p.clone() for n, p in second.network.detector.state_dict().items()}
    second.run()
    for name, value in second.network.detector.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_non_finite_loss_names_the_sample(drawn_cache: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_of(drawn_cache, tmp_path))
    batch = next(iter(batches(_feed(trainer), 0, 1, 0))).batch
    batch.names = ['good', 'bad']
    batch.hands_of(1).joints_px[0, 3] = float('nan')
    before = [p.detach().clone() for p in trainer.bare_module.parameters()]
    with pytest.raises(UserError, match=r'joints_2d.*not finite in step 1; samples: bad\.'):
        trainer.train_step([batch])
    after = trainer.bare_module.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_second_run_does_not_overwrite_the_first(drawn_cache: Path, tmp_path: Path) -> None:
    Trainer(config_of(drawn_cache, tmp_path, num_steps=1)).run()
    with pytest.raises(UserError, match='--resume'):
        Trainer(config_of(drawn_cache, tmp_path, num_steps=1))
    with pytest.raises(UserError, match='seed=0, not 9'):
        Trainer(config_of(drawn_cache, tmp_path, num_steps=1, seed=9), resume=True)
    with pytest.raises(UserError, match='2 images a step, not 4'):
        Trainer(config_of(drawn_cache, tmp_path, num_steps=1, batch_size=4), resume=True)


RUN = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from small_runs import config_of
from handos_training.train import Trainer
steps = int(sys.argv[4])
Trainer(config_of(Path(sys.argv[2]), Path(sys.argv[3]), num_steps=steps), resume=True).run()
"""


def kill_and_resume(
    cache: Path, folder: Path, num_steps: int, kills: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Losses by step of an uninterrupted run, and of one that is killed and resumed."""
    Trainer(config_of(cache, folder / 'whole', num_steps=num_steps)).run()
    cut = folder / 'cut'
    rng = random.Random(1)
    command = [sys.executable, '-c', RUN, str(Path(__file__).parent), str(cache), str(cut),
               str(num_steps)]  # fmt: skip
    for kill in range(kills + 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if kill == kills:
            assert process.wait() == 0
            break
        # Some step after the ones that stand, at a random moment around its save.
        done = max(losses_of(cut), default=0) if (cut / 'log.jsonl').exists() else 0
        goal = min(done + rng.randint(1, 2), num_steps - 1)
        while process.poll() is None:
            if (cut / 'log.jsonl').exists() and max(losses_of(cut), default=0) >= goal:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    return losses_of(folder / 'whole'), losses_of(cut)


@pytest.mark.fault('training', 'kill -9', 'resumed, with the same losses')
def test_killed_and_resumed_gives_the_same_curve(drawn_cache: Path, tmp_path: Path) -> None:
    whole, resumed = kill_and_resume(drawn_cache, tmp_path, num_steps=6, kills=2)
    assert sorted(resumed) == list(range(1, 7))
    assert resumed == pytest.approx(whole, rel=1e-5)


ENDLESS = """
import sys, torch
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from small_runs import config_of
from handos_training.train import Trainer
config = config_of(Path(sys.argv[2]), Path(sys.argv[3]), num_steps=10_000, validate_every=10_000)
Trainer(replace(config, data=replace(config.data, num_workers=1))).run()
"""


@pytest.mark.fault('training', 'SIGINT or SIGTERM to all its processes', 'saved, then ended')
@pytest.mark.parametrize('kind', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_stops_after_the_step(
    kind: signal.Signals, drawn_cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / 'run'
    command = [
        sys.executable,
        '-c',
        ENDLESS,
        str(Path(__file__).parent),
        str(drawn_cache),
        str(run),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None and not (
            (run / 'log.jsonl').exists() and max(losses_of(run), default=0) >= 2
        ):
            time.sleep(0.05)
        os.killpg(process.pid, kind)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
    saved = json.loads((run / 'checkpoints' / 'last' / 'state.json').read_text())
    assert saved['step'] >= 2
    assert (run / 'weights' / 'model.safetensors').exists()


@pytest.mark.long
@pytest.mark.fault('training', 'ten times kill -9', 'resumed, with the same losses')
def test_ten_kills_give_the_same_curve(drawn_cache: Path, tmp_path: Path) -> None:
    whole, resumed = kill_and_resume(drawn_cache, tmp_path, num_steps=24, kills=10)
    assert sorted(resumed) == list(range(1, 25))
    assert resumed == pytest.approx(whole, rel=1e-5)


def smoke(folder: Path, num_images: int, **changes: object) -> dict[int, float]:
    generate(CacheConfig(folder / 'cache', num_images, 96, 128, shard_size=num_images))
    config = replace(load_config('smoke'), out=folder / 'run', precision='fp32', **changes)
    data = DataConfig((folder / 'cache',), folder / 'cache', num_images, num_workers=0)
    Trainer(replace(config, data=data)).run()
    return losses_of(folder / 'run')


def test_loss_falls_on_generated_hands(tmp_path: Path) -> None:
    losses = smoke(tmp_path, 8, image_sizes_hw=((96, 128),), batch_size=4, num_steps=24,
                   log_every=4, validate_every=24)  # fmt: skip
    assert losses[24] < 0.8 * losses[4]
    assert (tmp_path / 'run' / 'weights' / 'model.safetensors').exists()
    assert list((tmp_path / 'run' / 'tensorboard').iterdir())


@pytest.mark.long
def test_five_minutes_improve_validation(tmp_path: Path) -> None:
    losses = smoke(tmp_path, 256)
    assert losses[300] < 0.7 * losses[10]
    lines = map(json.loads, (tmp_path / 'run' / 'log.jsonl').read_text().splitlines())
    validation = [line for line in lines if line['kind'] == 'validation']
    assert validation[-1]['loss'] < validation[0]['loss']


def _feed(trainer: Trainer) -> StoredBatches:
    source = Source('drawn', CachedHands(trainer.config.data.cache))
    return StoredBatches([source], trainer.config.batch_size, [SIZE_HW], 0)


def _hand_model():  # type: ignore[no-untyped-def]
    from handos_model.hand.model import HandModel

    return HandModel.embedded()


def test_training_goes_on_from_the_shipped_weights() -> None:
    start = Path(__file__).resolve().parents[2] / 'weights' / 'nano'
    network = build_network(replace(load_config('nano_dense'), init_from=start), _hand_model())
    assert load_matching(network, start) == []
