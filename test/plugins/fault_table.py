"""`docs/reliability.md`: every test with the mark `fault`, as a row of a table.

    python -m pytest --collect-only -q -m fault --fault-table docs/reliability.md test

`@pytest.mark.fault(where, what, then)`: `{name}` in `what` is that parameter of the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = ('camera', 'network', 'process', 'backend', 'disk', 'training')
HEAD = """# Faults, and what happens

Each row is a fault that a test causes, not a claim: `make test` runs those marked *quick*, and
`make test-long` the others. What is said stands in `/diagnostics`; whatever comes back does so
within five seconds, or the test fails. The table is written by `test/plugins/fault_table.py`.

"""
TAIL = """
**Not caused here**: a GPU that is lost or out of memory, a disk that is slow, a machine that is
out of memory (DDS ends the process there), partitions inside a network, and anything on a genuine
ROS 2 since the last run on one ([quickstart_ros2.md](quickstart_ros2.md)). **Not survived yet**: a
process without one file descriptor left, whose hands stop in about half of the tries.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--fault-table', type=Path, help='write the table of faults there')


@pytest.hookimpl(tryfirst=True)  # before `-m` takes the long ones away
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    path = config.getoption('--fault-table')
    if path is not None:
        rows = [row for item in items if (row := row_of(item)) is not None]
        path.write_text(table(list(dict.fromkeys(rows))))


def row_of(item: pytest.Item) -> tuple[str, str, str, str, str] | None:
    """Where, what, then, test, suite; None for a test of no fault."""
    mark = item.get_closest_marker('fault')
    if mark is None:
        return None
    where, what, then = mark.args
    parameters: dict[str, Any] = getattr(getattr(item, 'callspec', None), 'params', {})
    suite = 'long' if item.get_closest_marker('long') else 'quick'
    file = item.path.relative_to(ROOT).as_posix()
    return where, what.format(**parameters), then, f'`{file}`', suite


def table(rows: list[tuple[str, str, str, str, str]]) -> str:
    rows = sorted(rows, key=lambda row: ORDER.index(row[0]))
    lines = [
        f'{len(rows)} faults, {sum(row[-1] == "quick" for row in rows)} of them quick.',
        '',
        '| where | fault | what happens | test | suite |',
        '|---|---|---|---|---|',
        *('| ' + ' | '.join(row) + ' |' for row in rows),
    ]
    return HEAD + '\n'.join(lines) + '\n' + TAIL
