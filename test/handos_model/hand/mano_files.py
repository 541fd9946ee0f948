"""MANO-shaped pickles: the embedded hand's arrays, laid out as MANO_RIGHT.pkl has them."""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
import struct
import sys
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import scipy.sparse

from handos_model.hand.model import PARENTS, HandModel


def stand_in(module: str, name: str) -> type:
    """A class that pickles under the name of one that is not installed."""
    return type(name, (), {'__module__': module, '__qualname__': name})


Ch = stand_in('chumpy.ch', 'Ch')
Select = stand_in('chumpy.reordering', 'Select')
CscMatrix = stand_in('scipy.sparse.csc', 'csc_matrix')


def instance(cls: type, **state: Any) -> Any:
    made = cls()
    made.__dict__.update(state)
    return made


def chumpy(array: np.ndarray) -> Any:
    return instance(Ch, x=array, _dirty_vars={'x'}, _itr=None)


def selection(array: np.ndarray) -> Any:
    """What chumpy makes of `bigger[..., :n]`: indices into all of a bigger array."""
    bigger = np.concatenate([array, array[..., :1] + 1], axis=-1)
    indices = np.arange(bigger.size).reshape(bigger.shape)[..., :-1]
    return instance(
        Select, a=chumpy(bigger), idxs=indices.reshape(-1), preferred_shape=array.shape
    )


def old_csc(array: np.ndarray) -> Any:
    real = scipy.sparse.csc_matrix(array)
    return instance(
        CscMatrix,
        _shape=real.shape,
        maxprint=50,
        data=real.data,
        indices=real.indices,
        indptr=real.indptr,
    )


def mano_content(hand: HandModel, sparse: Any = old_csc) -> dict[str, Any]:
    return {
        'hands_componentsl': np.eye(45),
        'hands_components': np.eye(45),
        'hands_mean': np.linspace(-0.3, 0.3, 45),
        'f': hand.faces.astype(np.uint32),
        'J_regressor': sparse(hand.joint_regressor),
        'kintree_table': np.array([PARENTS, range(16)]).astype(np.uint32),
        'weights': np.asfortranarray(hand.skinning_weights),
        'posedirs': hand.posedirs,
        'v_template': chumpy(hand.v_template),
        'shapedirs': selection(hand.shapedirs),
        'bs_style': 'lbs',
        'bs_type': 'lrotmin',
    }


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did, which MANO's file comes from."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value: str | bytes) -> None:
        content = value.encode('latin-1') if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack('<i', len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def written(content: Any, python2: bool = True) -> bytes:
    """`content` pickled while the stand-in classes are what their modules hold."""
    modules = {name: ModuleType(name) for name in ('chumpy', 'chumpy.ch', 'chumpy.reordering')}
    modules['scipy.sparse.csc'] = ModuleType('scipy.sparse.csc')
    for cls in (Ch, Select, CscMatrix):
        setattr(modules[cls.__module__], cls.__name__, cls)
    out = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        if not python2:
            return pickle.dumps(content, protocol=4)
        Python2Pickler(out, protocol=2).dump(content)
    return out.getvalue().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')


def structure(data: bytes) -> np.ndarray:
    """Offsets of the bytes that are not inside an array: opcodes, lengths, names, small values."""
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    spans = [range(a, min(b, a + 64)) for a, b in itertools.pairwise(starts)]
    return np.concatenate([np.array(span, dtype=np.int64) for span in spans])


def mutated(data: bytes, offsets: np.ndarray, rng: np.random.Generator) -> bytes:
    """One to four changes: a flipped bit, another opcode, a cut, a repeated or a moved piece."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.choice(offsets)) if rng.random() < 0.9 else int(rng.integers(len(data)))
        at = min(at, len(changed) - 1)
        kind = rng.integers(6)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.choice([ord(code) for code in pickletools.code2op]))
        elif kind == 2:
            changed[at] = int(rng.integers(256))
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 20))]
        elif kind == 4:
            source = int(rng.choice(offsets))
            changed[at:at] = data[source : source + int(rng.integers(1, 40))]
        elif rng.random() < 0.2:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)
