"""Joint orders of the datasets, and which vertices they call fingertips.

Ours is MPII's: wrist, then thumb, index, middle, ring, little from the palm to the tip.
"""

from __future__ import annotations

import numpy as np

from handos_model.hand.model import MPII_FROM_MANO, HandModel
from handos_model.types import FloatArray

# HO3D stores MANO's 16 joints (wrist, index, middle, little, ring, thumb) and then five tips
# (thumb, index, middle, ring, little): `ours = theirs[..., MPII_FROM_HO3D, :]`.
MPII_FROM_HO3D: tuple[int, ...] = tuple(MPII_FROM_MANO)
HO3D_FROM_MPII: tuple[int, ...] = tuple(int(i) for i in np.argsort(MPII_FROM_HO3D))

# MANO vertices that each dataset's own tools take as tips: thumb, index, middle, ring, little.
MANO_TIP_VERTICES: dict[str, tuple[int, int, int, int, int]] = {
    'freihand': (744, 320, 443, 555, 672),
    'ho3d': (744, 333, 444, 555, 672),
    'h2o3d': (744, 333, 444, 555, 672),
    'comphand': (744, 333, 444, 555, 672),
    'dexycb': (745, 317, 444, 556, 673),
    'hint': (744, 320, 443, 554, 671),
}


def joint_regressor(mano: HandModel, dataset: str) -> FloatArray:
    """[21,778]: the MPII joints as `dataset` defines them on a MANO mesh."""
    tips = np.eye(mano.v_template.shape[0])[list(MANO_TIP_VERTICES[dataset])]
    return np.asarray(np.concatenate([mano.joint_regressor, tips])[list(MPII_FROM_MANO)])
