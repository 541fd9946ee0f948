"""The user's own MANO as a HandModel, from MANO_RIGHT.pkl or from what convert-mano wrote."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from handos_model.errors import UserError
from handos_model.files import write_whole
from handos_model.hand.mano_pickle import MAX_BYTES, REQUIRED, Array, read_mano
from handos_model.hand.model import HandModel, PoseSpace
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
        content = path.read_bytes()
        arrays: dict[str, Array] = load(content)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f'{path} is no safetensors file: {error}') from None
    (header_size,) = struct.unpack('<Q', content[:8])
    metadata = json.loads(content[8 : 8 + header_size]).get('__metadata__', {})
    if metadata.get('format') != FORMAT:
        raise UserError(f'{path} was not written by handos convert-mano: convert MANO_RIGHT.pkl')
    return arrays


def hand_model_from_mano(arrays: Mapping[str, Array], path: Path) -> HandModel:
    """Raises UserError, naming `path`, where the arrays make no hand."""
    space = None
    if 'hands_mean' in arrays and 'hands_components' in arrays:
        space = PoseSpace(arrays['hands_mean'], arrays['hands_components'])
    try:
        return HandModel(
            **{name: arrays[name] for name, _ in REQUIRED.values()},
            tip_vertices=np.array(TIP_VERTICES),
            rotation_axes=transferred_axes(arrays),
            pose_space=space,
        )
    except (KeyError, ValueError) as error:
        raise UserError(f'{path} is not a MANO model: {error}') from None


def transferred_axes(arrays: Mapping[str, Array]) -> FloatArray:
    """Axes of flexion, abduction and twist for MANO's joints: those of the embedded hand.

    The embedded hand's rest joints are turned onto MANO's, finger by finger (Kabsch), and its axes
    with them; the two rest poses differ by a few degrees, and so may the axes.
    """
    embedded = HandModel.embedded()
    ours = embedded.joint_regressor @ embedded.v_template
    theirs = arrays['joint_regressor'] @ arrays['v_template']
    wrist, knuckles = 0, (1, 4, 7, 10)
    turns = [rotation_onto(ours[[wrist, *knuckles]], theirs[[wrist, *knuckles]])]
    for first in (1, 4, 7, 10, 13):
        # A chain lies nearly in a line; the palm says which side is up.
        points = [wrist, *knuckles, *(joint for joint in range(first, first + 3))]
        turns += [rotation_onto(ours[points], theirs[points])] * 3
    axes: FloatArray = embedded.rotation_axes @ np.stack(turns).swapaxes(1, 2)
    return axes


def rotation_onto(points: FloatArray, reference: FloatArray) -> FloatArray:
    """The rotation R that brings R points nearest to reference, about their means, [3,3]."""
    u, _, vt = np.linalg.svd((points - points.mean(0)).T @ (reference - reference.mean(0)))
    vt[2] *= np.sign(np.linalg.det(u @ vt))
    rotation: FloatArray = (u @ vt).T
    return rotation
