"""Arrays and numbers of a pickle whose parts do not fit together."""

from __future__ import annotations

import numpy as np
import pytest

from handos_model.hand.safe_pickle import (
    DTYPE,
    NDARRAY,
    SCALAR,
    RefusedError,
    Stub,
    load_stubs,
    plain_array,
    plain_number,
)

F8 = Stub(DTYPE, ('f8', False, True), (3, '<', None, None, None, -1, -1, 0))


def with_state(*state: object) -> Stub:
    return Stub(NDARRAY, (), state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('stub', 'words'),
    [
        (with_state(1, (2,)), 'an array without content'),
        (with_state(1, (2,), F8, False, 3), 'something else than numbers'),
        (with_state(1, (2,), F8, False, '\u20ac'), 'an array of text'),
        (with_state(1, (-2,), F8, False, bytes(16)), 'something else than numbers'),
        (with_state(1, (3,), F8, False, bytes(16)), r'of shape \(3,\) in 16 bytes'),
    ],
)
def test_arrays_that_are_none(stub: Stub, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        plain_array(stub)


def test_numbers_that_are_none() -> None:
    with pytest.raises(RefusedError, match='without content'):
        plain_number(Stub(SCALAR, (F8,)))
    with pytest.raises(RefusedError, match='a number in 4 bytes'):
        plain_number(Stub(SCALAR, (F8, bytes(4))))
    assert plain_number(Stub(SCALAR, (F8, np.float64(2.5).tobytes()))) == 2.5


def test_items_of_what_is_no_dictionary() -> None:
    with pytest.raises(RefusedError, match='no dictionary'):
        load_stubs(b'](K\x01K\x02u.')  # a list, a mark, 1, 2, set items
