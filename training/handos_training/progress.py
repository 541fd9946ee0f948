"""What a run says: a progress bar with ETA, TensorBoard, and a line of JSON a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from handos_training.config import TrainConfig


class TrainingLog:
    """Collects figures of steps; silent in all processes but the main one."""

    def __init__(self, config: TrainConfig, first_step: int, is_main: bool) -> None:
        self.config = config
        self.is_main = is_main
        self.sums: dict[str, float] = {}
        self.count = 0
        self.data_s = self.compute_s = 0.0
        if not is_main:
            return
        config.out.mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(str(config.out / 'tensorboard'), purge_step=first_step + 1)
        self.lines = (config.out / 'log.jsonl').open('a')
        self.console = Console()
        self.progress = Progress(
            TextColumn(f'[bold]{config.stage}[/] {{task.fields[text]}}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
        )
        self.task = self.progress.add_task(
            '',
            total=config.num_steps if config.minutes is None else None,
            completed=first_step,
            text='',
        )

    def __enter__(self) -> TrainingLog:
        if self.is_main:
            self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_main:
            self.progress.stop()
            self.writer.close()
            self.lines.close()

    def step(
        self, step: int, figures: Mapping[str, float], data_s: float, compute_s: float
    ) -> None:
        """Take in one step; report every `log_every` steps, as means over them."""
        if not self.is_main:
            return
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.data_s += data_s
        self.compute_s += compute_s
        self.progress.update(self.task, completed=step)
        if step % self.config.log_every and step != self.config.num_steps:
            return
        means = {name: value / self.count for name, value in self.sums.items()}
        seconds = self.data_s + self.compute_s
        images = self.count * self.config.batch_size * self.config.accumulate
        means['images_per_s'] = images / max(seconds, 1e-9)
        means['data_wait'] = self.data_s / max(seconds, 1e-9)
        self._write(step, 'train', means)
        text = (
            f'loss {means["loss"]:.3f}  {means["images_per_s"]:.1f} images/s  '
            f'data wait {means["data_wait"]:.0%}'
        )
        self.progress.update(self.task, text=text)
        if not self.console.is_terminal:
            self.console.print(f'step {step}: {text}')
        self.sums, self.count, self.data_s, self.compute_s = {}, 0, 0.0, 0.0

    def validation(
        self,
        step: int,
        figures: Mapping[str, float],
        picture: npt.NDArray[np.uint8] | None,
    ) -> None:
        """Report the figures of a validation, and its picture [H,W,3]."""
        if not self.is_main:
            return
        self._write(step, 'validation', figures)
        if picture is not None:
            self.writer.add_image('validation', picture, step, dataformats='HWC')
        text = '  '.join(f'{name} {value:.3f}' for name, value in figures.items())
        self.console.print(f'step {step}: validation: {text}')

    def _write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f'{kind}/{name}', value, step)
        line = {'step': step, 'kind': kind} | {n: round(v, 6) for n, v in figures.items()}
        self.lines.write(json.dumps(line) + '\n')
        self.lines.flush()
