"""HandOS: hands from one camera, in metres. Never imports ROS.

    from handos_model import Camera, HandPipeline
    hands = HandPipeline('nano')(image_rgb, Camera.uncalibrated(640, 480))

Names are imported when they are first used, so that a robot needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handos_model.config import HandOSConfig
    from handos_model.errors import UserError
    from handos_model.following import HandFollower
    from handos_model.hand.model import HandModel
    from handos_model.network.handos import HandOS
    from handos_model.pipeline import HandPipeline, PipelineConfig
    from handos_model.types import Camera, Hand

_MODULES = {
    'Camera': 'types',
    'Hand': 'types',
    'HandFollower': 'following',
    'HandModel': 'hand.model',
    'HandOS': 'network.handos',  # needs torch
    'HandOSConfig': 'config',
    'HandPipeline': 'pipeline',
    'PipelineConfig': 'pipeline',
    'UserError': 'errors',
}
__all__ = [
    'Camera',
    'Hand',
    'HandFollower',
    'HandModel',
    'HandOS',
    'HandOSConfig',
    'HandPipeline',
    'PipelineConfig',
    'UserError',
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'handos_model has no {name!r}')
    return getattr(import_module(f'handos_model.{_MODULES[name]}'), name)
