"""Every command of docs/reproduce.md, on small samples: two steps, a resumption and the row."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_detectors import Hub, seeded
from mini_datasets import (
    write_coco,
    write_comphand,
    write_dexycb,
    write_freihand,
    write_h2o3d,
    write_hint,
    write_ho3d,
    write_mano,
    write_onehand10k,
)

from handos_model.hand.model import HandModel
from handos_training import evaluate, train
from handos_training.config import CONFIG_FOLDER

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'reproduce.md'
SMALL = (
    '--epochs None --num-steps 2 --global-batch 2 --long-edge 128 --image-sizes-hw 96 128 '
    '--precision fp32 --checkpoint-every 1 --log-every 1 --data.num-workers 0 '
    '--data.validation-samples 1'
)
ROWS = {
    'freihand': ('pa_mpjpe_mm', 'pa_mpvpe_mm', 'f5_aligned', 'f15_aligned'),
    'ho3d': ('pa_mpjpe_mm', 'pa_mpvpe_mm', 'f5_aligned', 'f15_aligned'),
    'dexycb': ('pa_mpjpe_mm', 'pa_mpvpe_mm', 'auc_joints'),
    'hint': ('pck_0.05', 'pck_0.1', 'pck_0.15'),
    'coco_wholebody': ('box_ap',),
}


def commands() -> list[str]:
    """The command lines of the page, in its order."""
    lines = PAGE.read_text().splitlines()
    return [line for line in lines if line.startswith(('handos-train ', 'handos-eval '))
            and '`' not in line]  # fmt: skip


def row(command: str) -> str:
    """A short name of a command: what it does, and the folder that it writes."""
    words = shlex.split(command)
    out = Path(words[words.index('--out') + 1]).name if '--out' in words else words[1]
    return f'{words[0].removeprefix("handos-")}-{out}'


def test_the_page_names_what_there_is() -> None:
    trained = [command.split()[1] for command in commands() if command.startswith('handos-train')]
    assert {path.stem for path in CONFIG_FOLDER.glob('paper_*.py')} == set(trained)
    assert {shlex.split(c)[1] for c in commands() if c.startswith('handos-eval')} == set(ROWS)


@pytest.fixture(scope='module')
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as the page asks for it."""
    folder = tmp_path_factory.mktemp('reproduce')
    model = HandModel.from_mano(write_mano(folder))
    data = folder / 'data'
    write_freihand(data / 'freihand', model)
    write_ho3d(data / 'ho3d', model)
    write_h2o3d(data / 'h2o3d', model)
    write_comphand(data / 'comphand', model)
    write_dexycb(data / 'dexycb', model)
    write_hint(data / 'hint')
    write_coco(data / 'coco')
    write_onehand10k(data / 'onehand10k')
    with pytest.MonkeyPatch.context() as patch:
        hub = Hub(folder / 'hub', patch)
        for size in ('tiny', 'base'):
            detector = seeded('grounding_dino', encoder_layers=6)
            hub.publish(f'IDEA-Research/grounding-dino-{size}', detector)
    return folder


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(workplace)
    Hub(workplace / 'hub', monkeypatch)
    yield workplace


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    monkeypatch.setattr('sys.argv', words)
    (train if words[0] == 'handos-train' else evaluate).main()


def losses_of(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if line['kind'] == 'train'}


@pytest.mark.long
@pytest.mark.parametrize('command', [c for c in commands() if '--weights nano' not in c], ids=row)
def test_the_command_runs(
    command: str,
    at_work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = shlex.split(command)
    if words[0] == 'handos-train':
        out = at_work / (
            words[words.index('--out') + 1] if '--out' in words else f'runs/{words[1]}'
        )
        run(f'{command} {SMALL}', monkeypatch)
        before = losses_of(out)
        saved = sorted((out / 'checkpoints').glob('step_*'))
        assert len(saved) == 2 and (out / 'weights' / 'model.safetensors').is_file()
        shutil.rmtree(saved[1])
        run(f'{command} {SMALL} --resume', monkeypatch)
        assert losses_of(out) == pytest.approx(before, rel=1e-4)
    else:
        run(f'{command} --backend torch', monkeypatch)
        out = at_work / words[words.index('--out') + 1]
        scores = json.loads((out / 'scores.json').read_text())['scores']
        for name in ROWS[words[1]]:
            assert name in scores, name
        printed = capsys.readouterr().out
        assert 'PA-MPJPE' in printed or 'PCK' in printed or 'box_ap' in printed
