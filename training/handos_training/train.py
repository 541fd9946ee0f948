"""Train: `handos-train CONFIG`, or `accelerate launch -m handos_training.train CONFIG`.

CONFIG is a file of `training/configs/` (its name or its path); its fields are options of the
command line (`--optim.lr 5e-4`; `--help` lists them). Sub-commands instead of CONFIG:
`cache` generates images once for many runs, `check-data` verifies a dataset's folder,
`fetch-detector` downloads a pretrained detector and checks its hashes.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.protocol import DetectorOutput
from handos_training.checkpoint import CheckpointFolder, load_optimizer_state, optimizer_state
from handos_training.config import TrainConfig, load_config
from handos_training.data.feed import batches, step_seed
from handos_training.data.mix import CorruptSampleCounter
from handos_training.data.sample import Batch, collate
from handos_training.evaluation.in_training import Validator
from handos_training.layout import fast_attention, use_fast_layout
from handos_training.optim import (
    WeightAverage,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)
from handos_training.progress import TrainingLog
from handos_training.sources import (
    scheduled,
    stored_sources,
    training_batches,
    validation_batches,
)
from handos_training.stages.dense import save_dense_heads
from handos_training.stages.losses import weighted_loss
from handos_training.stages.module import HandTraining, build_module, weight_of_term
from handos_training.stages.network import build_network
from handos_training.sync_norm import synchronise_batch_norm


class Trainer:
    """One run of one stage, on this process's device and together with the other processes."""

    def __init__(self, config: TrainConfig, resume: bool = False) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        # A process may find no hand in its images; then parts of the network get no gradient.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Said, because a launcher other than accelerate's own (torchrun) says nothing of CPUs, and
        # then every process would train alone on the same images.
        on_cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[unused])
        self.device = self.accelerator.device
        self.rank = self.accelerator.process_index
        self.world: int = self.accelerator.num_processes
        with self.accelerator.main_process_first():  # a teacher's labels are written once
            self.sources = stored_sources(config)
        self.config = config = scheduled(config, self.sources, self.world)
        torch.manual_seed(config.seed)
        hand_model = HandModel.of(config.template)
        self.network = build_network(config, hand_model)
        module = build_module(config, self.network, hand_model).to(self.device)
        if config.sync_batch_norm:
            synchronise_batch_norm(module)
        use_fast_layout(module)
        if config.compile:
            compile_convolutions(self.network)
        self.optimizer = build_optimizer(module, config.optim)
        self.bare_module = module
        self.module = self.accelerator.prepare_model(module)
        # Afterwards, because wrapping for several processes puts new buffers into the module.
        self.average = WeightAverage(module, config.optim.ema_decay)
        self.checkpoints = CheckpointFolder(config.out / 'checkpoints', config.keep_last)
        self.step, self.best = 0, float('inf')
        self.began_s, self.minutes_before = time.monotonic(), 0.0
        self.stopping = False
        self.counter = CorruptSampleCounter()
        if resume:
            self._resume()
        elif self.checkpoints.load() is not None:
            raise UserError(f'{config.out} holds a run: give --resume to continue it, or --out')
        self.validator = Validator(config, self.network, hand_model, self.device)

    def run(self) -> None:
        """Train to the end of the run, or up to a signal; both leave a checkpoint and weights."""
        config = self.config
        size_for = self.network.config.size_for
        data = training_batches(config, self.sources, size_for, self.rank, self.world, self.device)
        parts_of = config.accumulate
        stream = batches(
            data, self.step * parts_of, config.num_steps * parts_of, config.data.num_workers
        )
        main = self.accelerator.is_main_process
        validation = validation_batches(config, size_for) if main else []
        with (
            TrainingLog(config, self.step, self.accelerator.is_main_process) as log,
            self._stop_on_signal(),
        ):
            waiting_since = time.perf_counter()
            for loaded in zip(*[stream] * parts_of, strict=True):
                for batch, failures in loaded:
                    self.counter.add(len(batch.names), failures)
                data_s = time.perf_counter() - waiting_since
                figures = self.train_step([batch.to(self.device) for batch, _ in loaded])
                log.step(self.step, figures, data_s, time.perf_counter() - waiting_since - data_s)
                stopped = self._stop_everywhere()
                last = stopped or self.step == config.num_steps
                if stopped:
                    self.save()  # whoever asks for it may not wait for the validation
                if self.step % config.validate_every == 0 or last:
                    self._validate(validation, log)
                elif self.step % config.checkpoint_every == 0:
                    self.save()
                if last:
                    break
                waiting_since = time.perf_counter()

    def train_step(self, parts: Sequence[Batch]) -> dict[str, float]:
        """One optimiser step on all parts together.

        Returns the weighted mean of each term over all of them and all processes.
        """
        config = self.config
        factor = learning_rate_factor(self.step, self._done(), config.optim)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad(set_to_none=True)
        detected, sizes = self._ahead(parts) if len(parts) > 1 else ([None], None)
        self.module.train()
        sums: dict[str, float] = defaultdict(float)
        for k, (batch, seen) in enumerate(zip(parts, detected, strict=True)):
            torch.manual_seed(step_seed(config.seed, self.step * len(parts) + k, self.rank))
            with self._autocast():
                terms = self.module(batch) if seen is None else self.module(batch, seen)
            loss, means = weighted_loss(
                terms, lambda name: weight_of_term(config.weights, name), sizes=sizes
            )
            for name, mean in zip(means, torch.stack([*means.values()]).tolist(), strict=True):
                sums[name] += mean
            self._require_finite(sums, [batch])
            # Processes exchange gradients for each part: put off to the last one, those of what
            # that one does not use would never be exchanged.
            # Layers that are computed again must take the kernels that they took before.
            with fast_attention(self.device):
                self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(
            [p for p in self.bare_module.parameters() if p.grad is not None],
            config.optim.max_grad_norm or float('inf'),
        )
        self._require_finite({'gradient_norm': float(norm)}, parts)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.step)
        learning_rate = config.optim.lr * factor
        return {'loss': sum(sums.values()), **sums, 'gradient_norm': float(norm),
                'learning_rate': learning_rate}  # fmt: skip

    @torch.no_grad()
    def _ahead(self, parts: Sequence[Batch]) -> tuple[list[DetectorOutput], dict[str, Tensor]]:
        """What the frozen detector says of each part, and the sizes of the terms of all parts.

        A term is a mean over the whole step, so that a gradient needs the sizes of parts to come.
        """
        module = self.bare_module.eval()  # batch norms count each part once, in training
        assert isinstance(module, HandTraining)  # the config refuses other stages
        with self._autocast():
            detected = [module.detect(batch) for batch in parts]
            terms = [module(*known) for known in zip(parts, detected, strict=True)]
        sizes = {name: torch.stack([one[name].size for one in terms]).sum() for name in terms[0]}
        return detected, sizes

    def save(self, best: bool = False) -> None:
        """Write a checkpoint; only one process does."""
        if self.accelerator.is_main_process:
            moments, groups = optimizer_state(self.optimizer)
            self.checkpoints.save(
                self.step,
                {
                    'model': self.bare_module.state_dict(),
                    'ema': self.average.values,
                    'optimizer': moments,
                },
                {
                    'best': self.best,
                    'optimizer_groups': groups,
                    'global_batch': self._global_batch,
                    'minutes': self._minutes(),
                    'config': json.loads(json.dumps(asdict(self.config), default=str)),
                },
                best=best,
            )
        self.accelerator.wait_for_everyone()

    def _validate(self, validation: list[Batch], log: TrainingLog) -> None:
        best = False
        if self.accelerator.is_main_process:
            with self.average.applied(), self._autocast():
                loss, figures, picture = self.validator(self.bare_module, validation)
                best = loss < self.best
                self.best = min(self.best, loss)
                self._save_weights('weights')
                if best:
                    self._save_weights('weights_best')
            log.validation(self.step, figures, picture)
        self.save(best)

    def _save_weights(self, name: str) -> None:
        folder = self.config.out / name
        save_dense_heads(self.bare_module, folder)
        self.network.save_pretrained(folder)

    def _resume(self) -> None:
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return
        saved, own = checkpoint.state, self.config
        for name in ('stage', 'model', 'seed', 'num_steps'):
            if saved['config'][name] != getattr(own, name):
                raise UserError(
                    f'{checkpoint.path} was made with {name}={saved["config"][name]!r}, not '
                    f'{getattr(own, name)!r}: use the same config, or init_from in a new run'
                )
        if saved['global_batch'] != self._global_batch:
            raise UserError(
                f'{checkpoint.path} was made with {saved["global_batch"]} images a step, not '
                f'{self._global_batch} ({self.world} processes): adapt batch_size or accumulate'
            )
        self.bare_module.load_state_dict(checkpoint.tensors['model'])
        self.average.load(checkpoint.tensors['ema'])
        load_optimizer_state(
            self.optimizer, checkpoint.tensors['optimizer'], saved['optimizer_groups']
        )
        self.step, self.best = checkpoint.step, saved['best']
        self.minutes_before = saved.get('minutes', 0.0)

    @property
    def _global_batch(self) -> int:
        """Images a step, of all processes."""
        return self.config.batch_size * self.config.accumulate * self.world

    def _require_finite(self, figures: Mapping[str, float], parts: Sequence[Batch]) -> None:
        # The figures are the same in every process, so all of them stop here together.
        bad = sorted(name for name, value in figures.items() if not abs(value) < float('inf'))
        if not bad:
            return
        names = offending_samples(self.bare_module, parts)
        everywhere: list[str] = self.accelerator.gather_for_metrics(names, use_gather_object=True)
        raise UserError(
            f'{", ".join(bad)} not finite in step {self.step + 1}; samples: '
            f'{", ".join(everywhere)}. The last checkpoint is good: look at the labels of these '
            'samples, or lower optim.lr, then --resume'
        )

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == 'bf16'
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _minutes(self) -> float:
        """How long the run has taken, before it was resumed too."""
        return self.minutes_before + (time.monotonic() - self.began_s) / 60

    def _done(self) -> float:
        """The share of the run that lies behind; the same in every process, whose clocks differ:
        with rates of their own their weights would drift apart."""
        if self.config.minutes is None:
            return self.step / self.config.num_steps
        share = min(1.0, self._minutes() / self.config.minutes)
        if self.world == 1:
            return share
        shares = torch.tensor([share], device=self.device)
        return float(self.accelerator.reduce(shares, 'mean').item())

    def _stop_everywhere(self) -> bool:
        self.stopping |= self.config.minutes is not None and self._done() >= 1
        if self.world == 1:
            return self.stopping
        flag = torch.tensor([float(self.stopping)], device=self.device)
        return bool(self.accelerator.reduce(flag).item() > 0)

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        def stop(*_: Any) -> None:
            self.stopping = True

        before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


@torch.no_grad()
def offending_samples(module: nn.Module, parts: Sequence[Batch]) -> list[str]:
    """Names of the images whose own loss is not finite; of all where no single one is."""
    module.eval()
    samples = [batch.sample(i) for batch in parts for i in range(len(batch.names))]
    names = []
    for sample in samples:
        terms = module(collate([sample]))
        if not all(bool(term.total.isfinite()) for term in terms.values()):
            names.append(sample.name)
    return names or [sample.name for sample in samples]


def compile_convolutions(network: nn.Module) -> None:
    """torch.compile for backbone and encoder, whose shapes are fixed an image size."""
    inner = getattr(getattr(network.detector, 'model', None), 'model', None)
    for part in ('backbone', 'encoder'):
        if hasattr(inner, part):
            getattr(inner, part).compile()


def main() -> None:
    """Entry point of `handos-train`."""
    arguments = sys.argv[1:]
    try:
        if not arguments or arguments[0] in ('-h', '--help'):
            print(__doc__)
        elif arguments[0] == 'cache':
            from handos_training.synth.cache import CacheConfig, generate

            generate(tyro.cli(CacheConfig, args=arguments[1:]))
        elif arguments[0] == 'check-data':
            from handos_training.check_data import main as check_data

            check_data(arguments[1:])
        elif arguments[0] == 'fetch-detector':
            from handos_training.fetch_detector import main as fetch_detector

            fetch_detector(arguments[1:])
        else:
            resume = '--resume' in arguments
            rest = [argument for argument in arguments[1:] if argument != '--resume']
            config = tyro.cli(TrainConfig, default=load_config(arguments[0]), args=rest)
            Trainer(config, resume).run()
    except UserError as error:
        print(f'handos-train: {error}', file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == '__main__':
    main()
