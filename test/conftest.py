"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real photographs and recordings that stands beside a development checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip('needs the development data (real photographs) beside the checkout')
    return SHARED_DATA
