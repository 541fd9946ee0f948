"""Files of the user's own MANO: MANO_RIGHT.pkl, and what convert-mano makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from handos_model.errors import UserError
from handos_model.files import write_whole
from handos_model.hand.mano_pickle import MAX_BYTES, read_mano
from handos_model.hand.safe_pickle import Array
from handos_model.types import FloatArray

FORMAT = 'handos-mano-1'
# MANO has no tip joints; these are the vertices that FreiHAND's labels take (its own 21 joints).
TIP_VERTICES = (744, 320, 443, 555, 672)


def save_mano(arrays: Mapping[str, Array], source_sha256: str, path: Path) -> None:
    """Write the arrays as safetensors, whole or not at all. Raises UserError."""
    content = save(dict(arrays), metadata={'format': FORMAT, 'source_sha256': source_sha256})
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from None


def load_mano(path: Path) -> dict[str, Array]:
    """The arrays of a MANO file of either kind, by HandModel's names. Raises UserError."""
    if path.suffix == '.pkl':
        return read_mano(path)[0]
    if path.suffix != '.safetensors':
        raise UserError(f'{path}: a MANO file ends in .pkl or .safetensors (handos convert-mano)')
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f'{path} is larger than {MAX_BYTES >> 20} MB: it is no MANO model')
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f'{path} is no safetensors file: {error}') from None
    if metadata.get('format') != FORMAT:
        raise UserError(f'{path} was not written by handos convert-mano: convert MANO_RIGHT.pkl')
    return arrays


def transferred_axes(
    arrays: Mapping[str, Array], rest_m: FloatArray, rotation_axes: FloatArray
) -> FloatArray:
    """Axes [16,3,3] of flexion, abduction and twist for MANO's joints: those of another hand.

    That hand's rest joints `rest_m` [16,3] are turned onto MANO's, finger by finger (Kabsch), and
    its axes with them; the two rest poses differ by a few degrees, and so may the axes.
    """
    theirs = arrays['joint_regressor'] @ arrays['v_template']
    wrist, knuckles = 0, (1, 4, 7, 10)
    turns = [rotation_onto(rest_m[[wrist, *knuckles]], theirs[[wrist, *knuckles]])]
    for first in (1, 4, 7, 10, 13):
        # A chain lies nearly in a line; the palm says which side is up.
        points = [wrist, *knuckles, *(joint for joint in range(first, first + 3))]
        turns += [rotation_onto(rest_m[points], theirs[points])] * 3
    axes: FloatArray = rotation_axes @ np.stack(turns).swapaxes(1, 2)
    return axes


def rotation_onto(points: FloatArray, reference: FloatArray) -> FloatArray:
    """The rotation R that brings R points nearest to reference, about their means, [3,3]."""
    u, _, vt = np.linalg.svd((points - points.mean(0)).T @ (reference - reference.mean(0)))
    vt[2] *= np.sign(np.linalg.det(u @ vt))
    rotation: FloatArray = (u @ vt).T
    return rotation
