"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ManoOption: TypeAlias = Annotated[
    Path | None, typer.Option(help='Your MANO file, for weights that were trained on it.')
]
CameraInfoOption: TypeAlias = Annotated[
    Path | None, typer.Option(help='Calibration YAML of the camera; else it is guessed.')
]
WeightsOption: TypeAlias = Annotated[str, typer.Option(help='Shipped name, folder or hub id.')]
BackendOption: TypeAlias = Annotated[str, typer.Option(help='auto, or one of `handos doctor`.')]
ScoreOption: TypeAlias = Annotated[float, typer.Option(help='Least score of a hand.')]
VerticesOption: TypeAlias = Annotated[bool, typer.Option('--vertices', help='Meshes in the JSON.')]
