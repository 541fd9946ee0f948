"""Calibrations as camera_calibration writes them."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import numpy as np
import yaml

from handos_model.errors import UserError
from handos_model.types import Camera, DistortionModel


def read_camera_file(path: Path) -> Camera:
    """The camera of a calibration YAML (image_width, camera_matrix, ...). Raises UserError."""
    try:
        content = yaml.safe_load(path.read_text())
        model = content.get('distortion_model', 'plumb_bob')
        if model not in get_args(DistortionModel):
            raise ValueError(f'unknown distortion_model {model!r}')
        return Camera(
            width=int(content['image_width']),
            height=int(content['image_height']),
            matrix_px=np.array(content['camera_matrix']['data'], np.float64).reshape(3, 3),
            distortion=np.array(content['distortion_coefficients']['data'], np.float64),
            distortion_model=cast(DistortionModel, model),
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f'cannot read the calibration {path}: {error}') from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path} is no calibration of camera_calibration: {error!r}. It needs image_width, '
            'image_height, camera_matrix and distortion_coefficients'
        ) from error
