"""MANO's pickle is read as data: right arrays of a right file, one clear line of any other."""

import os
import pickle
import pickletools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from handos_model.errors import UserError
from handos_model.hand.mano_pickle import MAX_BYTES, parse_mano, read_mano
from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import random_pose
from handos_model.hand.safe_pickle import MAX_OPCODES, RefusedError
from handos_ros.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from mano_files import Ch, chumpy, instance, mano_content, written


@pytest.fixture(scope='module')
def hand() -> HandModel:
    return HandModel.embedded()


@pytest.fixture(scope='module')
def mano_bytes(hand: HandModel) -> bytes:
    return written(mano_content(hand))


def call(function: object, *arguments: object) -> bytes:
    """A pickle that calls `function` when it is loaded as one."""

    class Payload:
        def __reduce__(self) -> tuple:
            return function, arguments

    return pickle.dumps({'v_template': Payload()}, protocol=2)


@pytest.mark.parametrize('python2', [True, False], ids=['python-2', 'resaved'])
def test_a_mano_file_reproduces_known_joints(
    hand: HandModel, tmp_path: Path, python2: bool
) -> None:
    sparse = {} if python2 else {'sparse': scipy.sparse.csc_matrix}
    path = tmp_path / 'MANO_RIGHT.pkl'
    path.write_bytes(written(mano_content(hand, **sparse), python2))
    mano = HandModel.from_mano(path)
    rng = np.random.default_rng(0)
    rotations = random_pose(rng, 8, hand.rotation_axes)
    betas = rng.standard_normal((8, 10))
    vertices_m, _ = hand.pose(rotations, betas)
    mano_vertices_m, mano_joints_m = mano.pose(rotations, betas)
    np.testing.assert_allclose(mano_vertices_m, vertices_m, atol=1e-9)
    knuckles = [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]  # all but tips
    expected_m = hand.joint_regressor_21 @ vertices_m
    np.testing.assert_allclose(mano_joints_m[:, knuckles], expected_m[:, knuckles], atol=1e-9)
    np.testing.assert_array_equal(mano.faces, hand.faces)
    np.testing.assert_array_equal(mano.tip_vertices, [744, 320, 443, 555, 672])


def test_axes_come_along(hand: HandModel, tmp_path: Path) -> None:
    path = tmp_path / 'MANO_RIGHT.pkl'
    turned = mano_content(hand)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    turned['v_template'] = chumpy(hand.v_template @ quarter.T)
    path.write_bytes(written(turned))
    axes = HandModel.from_mano(path).rotation_axes
    cosine = (axes * (hand.rotation_axes @ quarter.T)).sum(-1)
    assert cosine.min() > 0.999
    np.testing.assert_allclose(
        axes @ axes.swapaxes(1, 2), np.tile(np.eye(3), (16, 1, 1)), atol=1e-6
    )


def test_conversion_keeps_the_template(
    hand: HandModel, mano_bytes: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, out = tmp_path / 'MANO_RIGHT.pkl', tmp_path / 'mano.safetensors'
    source.write_bytes(mano_bytes)
    with pytest.raises(SystemExit) as exit_:
        main(['convert-mano', str(source), str(out)])
    assert exit_.value.code == 0
    converted = HandModel.from_mano(out)
    assert converted.template_hash == HandModel.from_mano(source).template_hash
    assert converted.template_hash != hand.template_hash  # other tips: another template
    assert converted.template_hash[:12] in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == [source, out]


def test_no_pickle_library_runs_anything_of_chumpy(mano_bytes: bytes) -> None:
    assert 'chumpy' not in sys.modules
    assert parse_mano(mano_bytes)['shapedirs'].shape == (778, 3, 10)
    assert 'chumpy' not in sys.modules


def bad_files(hand: HandModel, mano_bytes: bytes) -> dict[str, bytes]:
    content = mano_content(hand)
    huge = pickle.dumps(np.zeros(4), protocol=2).replace(b'K\x04\x85', b'J\xff\xff\xff\x7f\x85')
    itself = instance(Ch)
    itself.x = itself
    return {
        'empty': b'',
        'text': b'this is no pickle\n',
        'truncated': mano_bytes[: len(mano_bytes) // 2],
        'without its end': mano_bytes[:-1],
        'a list': pickle.dumps([1, 2]),
        'another dictionary': pickle.dumps({'a': 1}),
        'os.system': call(os.system, 'echo run > run'),
        'eval': call(eval, '__import__("os").system("echo run > run")'),
        'exec': call(exec, 'open("run", "w")'),
        'np.load': call(np.load, 'run.npy'),
        'open': call(open, 'run', 'w'),
        'inst': b'(S"echo run > run"\nios\nsystem\n.',
        'stack global': b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',
        'persistent id': b'Pnothing\n.',
        'extension': b'\x82\x01.',
        'memo bomb': b'\x80\x02]r\xff\xff\xff\xff.',
        'length bomb': b'\x80\x04\x8e' + struct.pack('<Q', 2**62) + b'x.',
        'bytearray bomb': b'\x80\x05\x96' + struct.pack('<Q', 2**40) + b'x.',
        'frame bomb': b'\x80\x04\x95' + struct.pack('<Q', 2**60) + b'].',
        'huge shape': huge,
        'object array': pickle.dumps({'v_template': np.array([{}])}, protocol=2),
        'nested lists': b'\x80\x02'
        + b'](' * (MAX_OPCODES // 4)
        + b'e' * (MAX_OPCODES // 4)
        + b'.',
        'nested tuples': b'\x80\x02)' + b'\x85' * (MAX_OPCODES - 10) + b'.',
        'tuple key': b'\x80\x02})' + b'2\x86' * 5000 + b'K\x01s.',
        'too many instructions': b'\x80\x02' + b']0' * MAX_OPCODES + b'.',
        'shared text': shared_text(),
        'endless expression': written({**content, 'v_template': itself}),
        'wrong shape': written({**content, 'v_template': chumpy(np.zeros((779, 3)))}),
        'not finite': written({**content, 'posedirs': np.full((778, 3, 135), np.nan)}),
        'faces out of range': written({**content, 'f': np.full((1538, 3), 778)}),
        'faces of floats': written({**content, 'f': np.zeros((1538, 3))}),
        'weights of no hand': written({**content, 'weights': np.zeros((778, 16))}),
        'sparse indices': written({**content, 'J_regressor': scattered(hand)}),
        'huge sparse': written({**content, 'J_regressor': spread(hand)}),
        'a number for an array': written({**content, 'v_template': 3}),
    }


def shared_text() -> bytes:
    """A hundred arrays over one long text: each would cost its own copy of it."""
    text = b'X' + struct.pack('<I', 2**20) + b'x' * 2**20 + b'q\x00'
    array = (
        b'cnumpy\nndarray\n)\x81(K\x01K\x00\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89h\x00tb'
    )
    return b'\x80\x02' + text + b'(' + array * 100 + b'l.'


def scattered(hand: HandModel) -> object:
    matrix = mano_content(hand)['J_regressor']
    matrix.indices = matrix.indices + 16
    return matrix


def spread(hand: HandModel) -> object:
    matrix = mano_content(hand)['J_regressor']
    matrix._shape = (2**24, 2**24)
    return matrix


def test_bad_files_end_with_one_line_and_code_2(
    hand: HandModel, mano_bytes: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, out = tmp_path / 'MANO_RIGHT.pkl', tmp_path / 'mano.safetensors'
    for name, data in bad_files(hand, mano_bytes).items():
        source.write_bytes(data)
        with pytest.raises(SystemExit) as exit_:
            main(['convert-mano', str(source), str(out)])
        assert exit_.value.code == 2, name
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and len(lines[0]) < 400, name
        assert lines[0].startswith(f'handos: {source} is not a MANO model: '), name
        assert list(tmp_path.iterdir()) == [source], name


def test_the_line_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / 'MANO_RIGHT.pkl'
    path.write_bytes(call(os.system, 'true'))
    with pytest.raises(UserError, match=r'it names (posix|nt)\.system'):
        read_mano(path)
    path.write_bytes(pickle.dumps({'f': 1}))
    with pytest.raises(UserError, match='lacks J_regressor, posedirs'):
        read_mano(path)
    with pytest.raises(UserError, match='No such file'):
        read_mano(tmp_path / 'absent.pkl')


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / 'MANO_RIGHT.pkl'
    with path.open('wb') as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match='larger than 32 MB'):
        read_mano(path)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('mano.npz', 'ends in .pkl or .safetensors'),
        ('mano.safetensors', 'is no safetensors file'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'\xff' * 100)
    with pytest.raises(UserError, match=message):
        HandModel.from_mano(path)


def test_safetensors_of_another_origin_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / 'weights.safetensors'
    save_file({'v_template': np.zeros((778, 3))}, path)
    with pytest.raises(UserError, match='not written by handos convert-mano'):
        HandModel.from_mano(path)


def test_only_the_seven_classes_are_known() -> None:
    for opcode in pickletools.opcodes:
        if opcode.name in ('INST', 'OBJ', 'EXT1', 'PERSID', 'BINPERSID', 'NEWOBJ_EX'):
            argument = {'INST': b'os\nsystem\n', 'EXT1': b'\x01', 'PERSID': b'x\n'}
            data = b'(' + opcode.code.encode('latin-1') + argument.get(opcode.name, b'') + b'.'
            with pytest.raises(RefusedError, match='no use for'):
                parse_mano(data)


ATTACK = """
import os, sys
for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
    os.environ[name] = '1'
import pathlib, pickle, resource
sys.path.insert(0, sys.argv[1])
import numpy as np
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.hand.mano_pickle import parse_mano
from handos_model.hand.safe_pickle import RefusedError
from mano_files import mutated, structure

count, seed = int(sys.argv[2]), int(sys.argv[3])
seeds = [pathlib.Path(name).read_bytes() for name in sys.argv[4:]]
offsets = [structure(data) for data in seeds[:2]]
path, rng = pathlib.Path('file'), np.random.default_rng(seed)
# What it needs is imported before the watch begins.
HandModel.from_mano_arrays(parse_mano(seeds[0]), path)
b'x'.decode('raw_unicode_escape'), b'x'.decode('unicode_escape')

pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
limit = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
PREFIXES = ('os.', 'subprocess.', 'socket.', 'pickle.', 'ctypes.', 'shutil.', 'marshal.', 'pty.')
armed = False

def watch(event, arguments):
    if armed and (event in ('exec', 'compile', 'import') or event.startswith(PREFIXES)):
        os.write(2, f'the file caused {event} {arguments!r}'.encode())
        os._exit(3)

sys.addaudithook(watch)
results = {'read': 0, 'refused': 0}
for index in range(len(seeds) - 2 + count):
    if index < len(seeds) - 2:
        data = seeds[2 + index]
    else:
        data = mutated(seeds[index % 2], offsets[index % 2], rng)
    armed = True
    try:
        arrays = parse_mano(data)
        armed = False  # the embedded hand's asset is opened for its axes
        HandModel.from_mano_arrays(arrays, path)
        results['read'] += 1
    except (RefusedError, UserError):
        results['refused'] += 1
    armed = False
print(results['read'], results['refused'])
"""


def attack(hand: HandModel, mano_bytes: bytes, folder: Path, count: int, seed: int) -> list[int]:
    """Crafted and mutated files, parsed in a process that may neither run anything nor grow."""
    resaved = written(mano_content(hand, scipy.sparse.csc_matrix), python2=False)
    files = [mano_bytes, resaved, *bad_files(hand, mano_bytes).values()]
    paths = [folder / f'{index}.pkl' for index in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, '-c', ATTACK, str(Path(__file__).parent), str(count), str(seed), *paths],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / 'run').exists()
    results = [int(word) for word in done.stdout.split()]
    assert sum(results) == count + len(files) - 2
    return results


@pytest.mark.skipif(sys.platform != 'linux', reason='limits memory by /proc and RLIMIT_AS')
@pytest.mark.parametrize(
    ('count', 'seed'), [(1000, 0), pytest.param(20_000, 1, marks=pytest.mark.long)]
)
def test_hostile_files_run_nothing_and_stay_small(
    hand: HandModel, mano_bytes: bytes, tmp_path: Path, count: int, seed: int
) -> None:
    read, refused = attack(hand, mano_bytes, tmp_path, count, seed)
    assert refused > count / 3  # the mutations reach the structure
    assert read > 0  # and some leave a hand


def test_the_watch_sees_what_a_real_unpickler_would_do(tmp_path: Path) -> None:
    """The attack's own alarm works: the same watch over pickle.loads ends the process."""
    path = tmp_path / 'os.pkl'
    path.write_bytes(call(os.system, 'true'))
    program = ATTACK.replace('arrays = parse_mano(data)', 'arrays = pickle.loads(data)')
    content = written(mano_content(HandModel.embedded()))
    (tmp_path / 'mano.pkl').write_bytes(content)
    done = subprocess.run(
        [sys.executable, '-c', program, str(Path(__file__).parent), '0', '0']
        + [str(tmp_path / 'mano.pkl')] * 2
        + [str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3 and 'the file caused' in done.stderr
