"""Every dependency stands in the list of licences, and is what the list says."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r'^\| ([\w.-]+) \| (.+?) \| .+ \|$', (ROOT / 'docs/dependencies.md').read_text(), re.M
)
LISTED = dict(ROWS[1:])
OURS = {'handos-ros', 'handos-training'}


def canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def declared() -> set[str]:
    text = ''.join((ROOT / name / 'pyproject.toml').read_text() for name in ('', 'training'))
    parts = re.findall(r'^dependencies = \[(.*?)^\]', text, re.M | re.S)
    parts += re.findall(r'^\[project\.optional-dependencies\]$(.*?)^\[', text, re.M | re.S)
    names = re.findall(r'"([\w-]+)(?:\[\w+\])?(?:[>=].*?)?"', ' '.join(parts))
    return {canonical(name) for name in names} - OURS


def test_every_dependency_is_listed_and_nothing_else() -> None:
    assert declared() == LISTED.keys()


@pytest.mark.parametrize('name', LISTED)
def test_the_licence_is_the_one_that_is_listed(name: str) -> None:
    try:
        found = metadata(name)
    except PackageNotFoundError:
        pytest.skip(f'{name} is not installed here')
    said = ' '.join(
        [found.get('License-Expression') or '', (found.get('License') or '')[:400]]
        + [line for line in found.get_all('Classifier') or [] if line.startswith('License')]
    )
    family = re.split(r'[- ]', LISTED[name])[0]  # of BSD-3-Clause, BSD
    assert not re.search(r'\bA?GPL', said)
    assert family.lower() in said.lower() or said.strip() in ('', 'UNKNOWN'), said
