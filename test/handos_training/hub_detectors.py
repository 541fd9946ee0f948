"""Seeded detectors of every family, and a hub cache to put them into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import SMALL_DETECTORS, excite

NAMES = {'d_fine': 'DFine', 'rt_detr_v2': 'RTDetrV2', 'grounding_dino': 'GroundingDino'}
HGNET = {
    'model_type': 'hgnet_v2', 'stem_channels': [3, 8, 8], 'stage_in_channels': [8, 16, 24, 32],
    'stage_mid_channels': [8, 8, 16, 16], 'stage_out_channels': [16, 24, 32, 48],
    'stage_num_blocks': [1] * 4, 'stage_downsample': [False, True, True, True],
    'stage_light_block': [False] * 4, 'stage_kernel_size': [3] * 4,
    'stage_numb_of_layers': [1] * 4, 'hidden_sizes': [16, 24, 32, 48], 'depths': [1] * 4,
    'out_indices': [2, 3, 4],
}  # fmt: skip


def seeded(family: str, **changes: Any) -> Any:
    """A small model of a family as transformers has it, with every parameter at work."""
    import transformers

    arguments = SMALL_DETECTORS[family].model | changes
    if family == 'd_fine':
        arguments |= {'backbone_config': HGNET, 'encoder_in_channels': [24, 32, 48]}
    torch.manual_seed(4)
    config = getattr(transformers, f'{NAMES[family]}Config')(**arguments)
    model = getattr(transformers, f'{NAMES[family]}ForObjectDetection')(config)
    excite(model)
    return model


class Hub:
    """An offline hub cache in the hub's own layout."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = cache
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(cache))
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)

    def publish(self, hub_id: str, model: Any) -> str:
        """Put a model there, and return its id."""
        commit = 'c0ffee' * 6 + 'c0ff'
        folder = self.cache / f'models--{hub_id.replace("/", "--")}'
        model.save_pretrained(folder / 'snapshots' / commit)
        (folder / 'refs').mkdir()
        (folder / 'refs' / 'main').write_text(commit)
        return hub_id
