"""Make the scores of a run's weights chances of a hand, by photographs that training never saw.

    python tools/calibrate_scores.py RUN/weights OUT --photos DATA --negatives PHOTOS

DATA holds the recordings kept apart with boxes of every hand and the peer's hands of other sets,
PHOTOS pictures without hands. The
result is a weights folder like RUN/weights with `detector.score` in its config.json; the three
numbers are printed, and how many queries they were fitted on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.handos import HandOS
from handos_training.data.datasets.peer_photos import Negatives, PeerPhotos
from handos_training.data.mix import SampleDataset
from handos_training.data.sample import Sample
from handos_training.evaluation.calibration import fit_score, judged_evidence
from handos_training.stages.dense import HEADS_FILE

# Few of the peer's photographs say what is no hand, so at full weight they make scores too high.
# Of 0.1, 0.25, 0.5 and 1 this gave the most hands for as many false ones.
PEER_WEIGHT = 0.25


def samples_of(*datasets: SampleDataset) -> Iterator[Sample]:
    for dataset in datasets:
        yield from (dataset[index] for index in range(len(dataset)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--negatives', type=Path, nargs='+', required=True)
    arguments = parser.parse_args()
    network = HandOS.from_pretrained(arguments.run)
    detector = network.detector
    if not isinstance(detector, DFineDetector):
        parser.error(f'{arguments.run}: only a detector that scores its tokens can be corrected')
    whole = samples_of(
        PeerPhotos(arguments.photos, 'test'),
        *(Negatives(root, 'test') for root in arguments.negatives),
    )
    of_peer = samples_of(PeerPhotos(arguments.photos, 'peer'))
    size_hw = network.config.input_size_hw
    told, are_hands = judged_evidence(detector, whole, size_hw)
    peer_told, peer_hands = judged_evidence(detector, of_peer, size_hw)
    weights = np.repeat([1.0, PEER_WEIGHT], [len(told), len(peer_told)])
    told, are_hands = np.concatenate([told, peer_told]), np.concatenate([are_hands, peer_hands])
    score = fit_score(told, are_hands, weights)
    network.config = replace(
        network.config, detector=replace(network.config.detector, score=score)
    )
    if (arguments.run / HEADS_FILE).is_file():
        arguments.out.mkdir(parents=True, exist_ok=True)
        shutil.copy(arguments.run / HEADS_FILE, arguments.out / HEADS_FILE)
    network.save_pretrained(arguments.out)
    print(json.dumps({'judged': len(told), 'hands': int(are_hands.sum()), **asdict(score)}))


if __name__ == '__main__':
    main()
