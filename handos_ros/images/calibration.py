"""Is a calibration one that a camera can have? Doubts in words, with what to do."""

from __future__ import annotations

import numpy as np

from handos_model.geometry.projection import project, unproject
from handos_model.types import Camera


def calibration_doubts(camera: Camera) -> list[str]:
    """What is unlikely about `camera`; empty where nothing is."""
    doubts = []
    size = np.array([camera.width, camera.height])
    focal = np.array([camera.matrix_px[0, 0], camera.matrix_px[1, 1]])
    centre = camera.matrix_px[:2, 2]
    degrees = np.degrees(2 * np.arctan(size / (2 * focal)))
    if (degrees < 10).any() or (degrees > 150).any():
        doubts.append(
            f'the field of view is {degrees[0]:.0f} x {degrees[1]:.0f} degrees: is this the '
            'calibration of this resolution?'
        )
    if abs(focal[0] / focal[1] - 1) > 0.05:
        doubts.append(
            f'fx {focal[0]:.1f} and fy {focal[1]:.1f} differ by more than 5 %: sensors have '
            'square pixels, calibrate again'
        )
    if (np.abs(centre / size - 0.5) > 0.15).any():
        doubts.append(
            f'the principal point ({centre[0]:.0f}, {centre[1]:.0f}) is far from the middle: was '
            'the image cropped after calibration, or is it of another resolution?'
        )
    rows, columns = np.mgrid[0:1:9j, 0:1:9j]
    pixels = np.stack([columns, rows], axis=-1) * (size - 1)
    rays = unproject(pixels, camera)
    if not np.isfinite(rays).all():
        part = 100 * (1 - np.isfinite(rays).all(-1).mean())
        doubts.append(
            f'the distortion has no inverse in {part:.0f} % of the image: calibrate with views '
            'that reach its corners'
        )
    else:
        again = project(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1), camera)
        if np.abs(again - pixels).max() > 0.1:
            doubts.append('the distortion folds the image: calibrate again')
    return doubts
