"""`docs/reliability.md` is what the tests say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / 'docs' / 'reliability.md'


def test_every_file_with_a_fault_is_in_the_table_and_no_other() -> None:
    named = set(re.findall(r'`(test/[\w/]+\.py)` \|', TABLE.read_text()))
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'test').rglob('test_*.py')
        if re.search(r'^@pytest\.mark\.fault\(', path.read_text(), re.M)
    }
    assert named == marked


def test_sixty_faults_a_third_of_them_quick() -> None:
    counts = re.search(r'^(\d+) faults, (\d+) of them quick', TABLE.read_text(), re.M)
    assert counts and int(counts[1]) >= 60 and int(counts[2]) >= 20


@pytest.mark.long
def test_the_table_is_that_of_the_tests(tmp_path: Path) -> None:
    path = tmp_path / 'reliability.md'
    arguments = ['--collect-only', '-q', '-m', 'fault', '--fault-table', str(path), 'test']
    subprocess.run([sys.executable, '-m', 'pytest', *arguments], cwd=ROOT, check=True)
    assert path.read_text() == TABLE.read_text(), f'write it again: pytest {" ".join(arguments)}'
