"""What `handos_model` offers at its top: each name by its module, and nothing else."""

from __future__ import annotations

import pytest

import handos_model


def test_every_name_is_there_and_no_other() -> None:
    for name in handos_model.__all__:
        assert getattr(handos_model, name).__name__ == name
    with pytest.raises(AttributeError, match="handos_model has no 'Foot'"):
        handos_model.Foot  # noqa: B018
