"""RT-DETRv2 from transformers; its outputs are laid out as D-FINE's, which descends from it."""

from __future__ import annotations

from handos_model.config import DetectorConfig
from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.reference import load_reference


class RTDetrV2Detector(DFineDetector):
    """RT-DETRv2 behind the detector protocol; `model` is an RTDetrV2ForObjectDetection."""


def build_rtdetr_v2(config: DetectorConfig, freeze: bool = True) -> RTDetrV2Detector:
    """From `config.reference`, else from `config.model` with seedable random weights."""
    from transformers import RTDetrV2Config, RTDetrV2ForObjectDetection

    if config.reference is not None:
        model = load_reference(RTDetrV2ForObjectDetection, config)
    else:
        model = RTDetrV2ForObjectDetection(RTDetrV2Config(**config.model))
    return RTDetrV2Detector(model, config, freeze)
