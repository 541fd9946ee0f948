"""Engines of a small export on the stand-in of TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_tensorrt import FakeMachine
from small_graphs import frames

from handos_model.backends.base import Engine, EngineOptions
from handos_model.backends.tensorrt.backend import prepare

OPTIONS = EngineOptions(max_hands=2, threads=1)


def prepared(weights: Path, said: list[str] | None = None, **settings: object) -> Engine:
    report: Callable[[str], None] = (said if said is not None else []).append
    return prepare(weights, OPTIONS, frames(), report, **settings)  # type: ignore[arg-type]


def builds(machine: FakeMachine) -> list[str]:
    return [call.split()[1] for call in machine.faults.calls if call.startswith('build')]
