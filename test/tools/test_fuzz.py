"""What strangers send is read or refused in words, whatever it is: damaged copies of sound inputs.

`tools/fuzz.py` searches for worse ones, by the lines that they reach. What it found stands below.
"""

from __future__ import annotations

import random
import resource

import pytest

from tools.fuzz import NAMES, targets

MOST_GROWTH_MIB = 512  # of the process, whatever it was given
COPIES = {'manifest': 100, 'bag': 100, 'calibration': 100, 'config': 150}  # of a sound input
FOUND: dict[str, list[bytes]] = {
    'config': [
        b'\xe3\x02+',
        b'[' * 4000,
        b'9' * 4000,
        b'null',
        b'{"name": []}',
        b'{"input_size_hw": "ab"}',
        b'{"input_size_hw": 3}',
        b'{"detector": 3}',
        b'{"decoder": {"dim": "x"}}',
    ],
    'manifest': [b'88', b'[' * 4000, b'9' * 5000, b'{"format": 3}', b'{"format": 3, "graphs": 1}'],
    # OpenCV 5.0 fills 4 GB for the length of a chunk, for 40 s.
    'compressed': [
        b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x18\0\0\0\x10\x08\0\0\x01\0\0'
        b'\xff\xff\xff\xff=\0\0IEND\xaeB`\x82',
        b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x18\0\0\0\x10\x08\x02\0\0\0\x83F(\xc2'
        b'\0\0\0\x08IEND' + b'\xff' * 12,
    ],
    'engine': [
        (27).to_bytes(8, 'little') + (3).to_bytes(8, 'little') + b'{"frames' + b'plan' * 6,
        (1).to_bytes(8, 'little') + (0).to_bytes(8, 'little') + b'7',
    ],
}


def damaged(sound: bytes, rng: random.Random) -> bytes:
    """A copy with bits turned over, cut off, doubled, or filled with the largest numbers."""
    copy = bytearray(sound)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(copy) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(5)
        if kind == 0 and place < len(copy):
            copy[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            copy[place : place + length] = rng.choice((b'\xff', b'\0')) * length
        elif kind == 2:
            del copy[place : place + length]
        elif kind == 3:
            copy[place:place] = copy[place : place + length]
        else:
            del copy[place:]
    return bytes(copy)


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_the_table_is_whole() -> None:
    assert tuple(targets()) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_damaged_inputs_are_read_or_refused(name: str) -> None:
    target, rng, before_mib = targets()[name], random.Random(name), peak_mib()
    seeds = target.seeds()
    taken = [target(seed) for seed in seeds]
    assert any(taken) or name in ('manifest', 'pickle')  # whose files are not there, or too small
    refused = 0
    for seed in seeds:
        for _ in range(COPIES.get(name, 1000)):
            refused += not target(damaged(seed, rng))
    assert refused  # by an error that is documented: any other one ends the test
    made_up = (b'', b'\xff' * 100, *FOUND.get(name, []))
    assert not any(target(data) for data in made_up)
    assert peak_mib() - before_mib < MOST_GROWTH_MIB


@pytest.mark.long
@pytest.mark.parametrize('name', NAMES)
def test_many_damaged_inputs_are_read_or_refused(name: str) -> None:
    target, rng, before_mib = targets()[name], random.Random(1), peak_mib()
    seeds, refused = list(target.seeds()), 0
    for _ in range(20 * COPIES.get(name, 1000)):
        refused += not target(damaged(damaged(rng.choice(seeds), rng), rng))
    assert refused
    assert peak_mib() - before_mib < MOST_GROWTH_MIB
