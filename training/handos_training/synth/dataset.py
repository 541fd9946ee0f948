"""Endless batches of generated hands; batch i of one seed is always the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from handos_training.data.sample import Batch
from handos_training.synth.config import SynthConfig
from handos_training.synth.renderer import RenderConfig, Renderer
from handos_training.synth.scene.builder import SceneBuilder
from handos_training.synth.scene.labels import Buffers, label_hands


class SynthHands(IterableDataset[Batch]):
    """Yields `Batch`es for ever, from batch number `start` on.

    Numbers are shared out among the workers of a DataLoader (use `batch_size=None`), so several
    workers give the batches of one, in turn. `start` counts batches of all workers; a run that
    has consumed n batches resumes with `start=n`.
    """

    def __init__(
        self,
        config: SynthConfig,
        batch_size: int,
        device: torch.device | str = 'cpu',
        seed: int = 0,
        start: int = 0,
    ) -> None:
        if batch_size < 1 or start < 0:
            raise ValueError(
                f'batch_size must be positive, start not negative: {batch_size}, {start}'
            )
        self.config = config
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.seed = seed
        self.start = start
        self._built: tuple[SceneBuilder, Renderer] | None = None

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.start + number
        while True:
            yield self.batch(index)
            index += step

    @torch.no_grad()
    def batch(self, index: int) -> Batch:
        """Batch number `index`; depends on the seed, the index and the device only."""
        if self._built is None:  # in the process that uses it: workers start small
            self._built = (
                SceneBuilder(self.config, self.device),
                Renderer(RenderConfig(backgrounds=self.config.backgrounds), self.device),
            )
        builder, renderer = self._built
        generator = torch.Generator(self.device)
        generator.manual_seed(batch_seed(self.seed, index))
        scene = builder(self.batch_size, generator)
        height, width = self.config.height, self.config.width
        rendered = renderer(
            scene.mesh, scene.camera_matrices_px, height, width, generator, scene.up
        )
        buffers = Buffers(rendered.fragments, scene.mesh.face_part, scene.face_arm)
        labels, counts, complete = label_hands(
            self.config, scene.hands, builder.arm.hand_faces, scene.camera_matrices_px, buffers
        )
        names = [f'synth/{self.seed}/{index}/{i}' for i in range(self.batch_size)]
        return Batch(rendered.image, scene.camera_matrices_px, labels, counts, names, complete)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, '_built': None}


def batch_seed(seed: int, index: int) -> int:
    """One 63-bit seed of two numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
