"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ManoOption: TypeAlias = Annotated[
    Path | None, typer.Option(help='Your MANO file, for weights that were trained on it.')
]
