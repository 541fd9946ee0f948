"""Graphs that open in the background: waited for, in turn, and alive after a fork."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handos_model.backends.base import EngineOptions
from handos_model.backends.choice import open_engine
from handos_model.backends.opening import OpeningGraph, in_turn
from handos_model.errors import UserError
from handos_model.weights.exported import ExportedWeights


class Answer:
    def __init__(self, value: int) -> None:
        self.value = value

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {'answer': self.value + inputs['add']}


def test_first_use_waits_and_what_comes_later_comes_after() -> None:
    go, made = threading.Event(), []

    def slow() -> Answer:
        assert go.wait(30)
        made.append('slow')
        return Answer(1)

    def quick() -> Answer:
        made.append('quick')
        return Answer(2)

    opening = OpeningGraph(slow)
    threading.Timer(0.05, go.set).start()
    quick_graph = in_turn(quick)  # would be first if it did not wait for its turn
    assert made == ['slow', 'quick']
    assert opening.infer({'add': 10}) == {'answer': 11}
    assert quick_graph.infer({'add': 10}) == {'answer': 12}


def test_a_failure_is_told_at_every_use_and_stops_nothing_else() -> None:
    def broken() -> Answer:
        raise UserError('cannot compile')

    opening = OpeningGraph(broken)
    for _ in range(2):
        with pytest.raises(UserError, match='cannot compile'):
            opening.infer({})
    assert in_turn(lambda: Answer(3)).infer({'add': 0}) == {'answer': 3}


def _open_in_child(answers: Any) -> None:
    answers.put(in_turn(lambda: Answer(4)).infer({'add': 0}))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system does not fork')
def test_a_forked_child_opens_graphs_too() -> None:
    in_turn(lambda: Answer(0))  # the parent has a thread, which the child will not have
    context = multiprocessing.get_context('fork')
    answers = context.Queue()
    child = context.Process(target=_open_in_child, args=(answers,))
    child.start()
    try:
        assert answers.get(timeout=30) == {'answer': 4}
    finally:
        child.kill()
        child.join()


def test_openvino_opens_the_larger_decoders_later(tiny_weights: Path) -> None:
    pytest.importorskip('openvino')
    engine = open_engine('openvino', tiny_weights, EngineOptions(max_hands=2))
    smallest, *larger = (engine.decoders[hands] for hands in sorted(engine.decoders))
    assert not isinstance(engine.detector, OpeningGraph)
    assert not isinstance(smallest, OpeningGraph)
    assert larger and all(isinstance(decoder, OpeningGraph) for decoder in larger)
    image = np.zeros((1, *ExportedWeights.load(tiny_weights).input_size_hw, 3), np.uint8)
    found = engine.detector.infer({'image': image})
    for hands, decoder in engine.decoders.items():
        boxes = np.full((hands, 4), 0.5, np.float32)
        queries = np.repeat(found['queries'][0, :1], hands, 0)
        answer = decoder.infer(
            {'features': found['features'], 'queries': queries, 'boxes_cxcywh': boxes}
        )
        assert answer['joints_m'].shape == (hands, 21, 3)
