"""`handos convert-mano MANO_RIGHT.pkl mano.safetensors`: read the user's MANO once, safely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handos_model.errors import UserError
from handos_model.hand.mano import save_mano
from handos_model.hand.mano_pickle import read_mano
from handos_model.hand.model import HandModel


def convert_mano(
    source: Annotated[Path, typer.Argument(help='MANO_RIGHT.pkl of mano_v1_2')],
    out: Annotated[Path, typer.Argument(help='The .safetensors file to write')],
) -> None:
    """Convert MANO_RIGHT.pkl to safetensors. The pickle is read as data and never executed."""
    if out.suffix != '.safetensors':
        raise UserError(f'{out}: the converted file must end in .safetensors')
    arrays, source_sha256 = read_mano(source)
    template_hash = HandModel.from_mano_arrays(arrays, source).template_hash
    save_mano(arrays, source_sha256, out)
    typer.echo(f'{out}: template {template_hash[:12]}')
