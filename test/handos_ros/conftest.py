"""A private DDS domain on the loopback, and a ROS context for the tests of a module."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything joins a domain: no traffic leaves this machine, and no other test run is met.
os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 99)
os.environ.setdefault('ROS_LOG_DIR', str(Path(tempfile.gettempdir()) / 'handos-test-logs'))
sys.path.insert(0, str(Path(__file__).parent))  # fakes.py, shared with the processes under test


@pytest.fixture(scope='module')
def ros() -> Iterator[Any]:
    """The runtime, started; its executors and nodes live in the test's own process."""
    from handos_ros import runtime

    runtime.init(args=[])
    yield runtime
    runtime.try_shutdown()


@pytest.fixture(scope='session')
def messages() -> Any:
    """Message classes by name, without a context."""
    from handos_ros.runtime.bags import Messages

    return Messages()


@pytest.fixture
def bench(ros: Any) -> Iterator[Any]:
    """A talker and a listener."""
    from bench import Bench

    made = Bench(ros, 'talker', 'listener')
    yield made
    made.close()


@pytest.fixture
def rigs(ros: Any) -> Iterator[Any]:
    """Makes rigs, and closes them at the end."""
    from rig import Rig

    made = []

    def make(*args: Any, **options: Any) -> Rig:
        made.append(Rig(ros, *args, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(rigs: Any) -> Any:
    """The node with a fake model, active."""
    return rigs()
