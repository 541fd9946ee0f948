"""Pretrained detectors where their authors keep them: a hub id, or a folder in its layout.

A detector is frozen and everything else is trained on it, so it is taken whole or not at all: a
folder of another family, or one that lacks weights, would be filled with random numbers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from handos_model.config import DetectorConfig, DetectorFamily
from handos_model.errors import UserError
from handos_model.weights.store import CHECKSUMS, verify_checksums

# transformers' name of a family -> ours
FAMILIES: dict[str, DetectorFamily] = {
    'd_fine': 'd_fine',
    'rt_detr_v2': 'rt_detr_v2',
    'grounding-dino': 'grounding_dino',
}


def family_of(reference: str) -> DetectorFamily:
    """The family that the reference's config.json names. Raises UserError."""
    kind = _config(reference).get('model_type')
    if kind not in FAMILIES:
        raise UserError(
            f'{reference} is a {kind!r}, which is no detector that HandOS builds on: give one of '
            f'{", ".join(FAMILIES)} (such as ustc-community/dfine-small-coco)'
        )
    return FAMILIES[kind]


def label_of(reference: str, index: int) -> str | None:
    """What the reference calls class `index`; None where it does not say."""
    label = _config(reference).get('id2label', {}).get(str(index))
    return None if label is None or label == f'LABEL_{index}' else str(label)


def load_reference(model_class: Any, config: DetectorConfig) -> Any:
    """The whole transformers model of `config.reference`.

    Raises UserError where it cannot be had, is of another family, or lacks weights.
    """
    reference = cast(str, config.reference)
    family = family_of(reference)
    if (Path(reference).expanduser() / CHECKSUMS).is_file():  # of `handos-train fetch-detector`
        verify_checksums(Path(reference).expanduser())
    if family != config.family:
        raise UserError(
            f'{reference} is a detector of the family {family}, and {config.family} is asked for: '
            'name one of that family, or change detector.family'
        )
    try:
        model, found = model_class.from_pretrained(reference, output_loading_info=True)
    except Exception as error:  # the hub client raises a dozen kinds, all meaning: not got
        raise not_had(reference, error) from error
    lacking = sorted(map(str, [*found['missing_keys'], *found['mismatched_keys']]))
    if lacking:
        raise UserError(
            f'{reference} lacks {len(lacking)} tensors of the detector that its config.json '
            f'describes, such as {lacking[0]}: fetch it again'
        )
    return model


def without_reference(config: DetectorConfig, model: Any) -> DetectorConfig:
    """`config` for weights that are no longer their reference's: `model` tells the shape, and the
    weights travel with ours."""
    return replace(config, reference=None, model=json.loads(model.config.to_json_string()))


def _config(reference: str) -> dict[str, Any]:
    path: str | Path = Path(reference).expanduser() / 'config.json'
    try:
        if not Path(reference).expanduser().is_dir():
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(reference, 'config.json')
        content: dict[str, Any] = json.loads(Path(path).read_text())
        return content
    except Exception as error:  # as above; a folder without config.json, too
        raise not_had(reference, error) from error


def not_had(reference: str, error: Exception) -> UserError:
    """What to tell where the hub has nothing, or cannot be reached."""
    return UserError(
        f'could not get the detector {reference} ({type(error).__name__}): check its name and the '
        f'network, or fetch it elsewhere (`handos-train fetch-detector {reference} --out DIR`) '
        'and give that folder'
    )
