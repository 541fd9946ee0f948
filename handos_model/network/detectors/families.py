"""Detectors, one file a family, behind the protocol of `protocol.py`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from handos_model.config import DetectorConfig

if TYPE_CHECKING:
    from handos_model.network.detectors.protocol import DetectorBase

_BUILDERS = {
    'd_fine': ('dfine', 'build_dfine'),
    'rt_detr_v2': ('rtdetr_v2', 'build_rtdetr_v2'),
    'grounding_dino': ('grounding_dino', 'build_grounding_dino'),
}


def build_detector(config: DetectorConfig, freeze: bool = True) -> DetectorBase:
    """The detector that `config` names, frozen unless it is to be trained itself."""
    module, function = _BUILDERS[config.family]
    builder = getattr(import_module(f'handos_model.network.detectors.{module}'), function)
    return builder(config, freeze)  # type: ignore[no-any-return]
