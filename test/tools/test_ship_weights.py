"""The shipped folder: half the size, the same network, checksums over everything."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from handos_model.export.half_storage import rounded_weights
from handos_model.hand.model import HandModel
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.handos import HandOS
from handos_model.weights.store import verify_checksums
from handos_training.stages.dense import DenseHeads, load_dense_heads, save_dense_heads
from handos_training.stages.network import tiny

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'ship_weights.py'


def spread_statistics(network: HandOS) -> None:
    """Normalisations as after training: of all sizes and signs, every tenth channel off."""
    for part in network.modules():
        if hasattr(part, 'running_var'):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.2, 3)
            part.weight.data.normal_(0, 1)
            part.weight.data[::10] = 0


def test_a_run_becomes_a_folder_that_trains_on(tmp_path: Path) -> None:
    run, out = tmp_path / 'run', tmp_path / 'out'
    torch.manual_seed(0)
    network = HandOS.from_config(tiny(), HandModel.embedded()).eval()
    initialise_detector(network.detector.model, seed=0)
    spread_statistics(network)
    heads = DenseHeads(32, torch.zeros(778, dtype=torch.long), width=96)
    save_dense_heads(heads, run)
    network.save_pretrained(run)
    out.mkdir()
    (out / 'config.json').write_text((run / 'config.json').read_text())
    subprocess.run([sys.executable, TOOL, run, out], check=True, stdout=subprocess.DEVNULL)

    verify_checksums(out)
    half = load_file(out / 'model.safetensors')
    assert {value.dtype for value in half.values() if value.ndim >= 2} == {torch.float16}
    shipped = HandOS.from_pretrained(out).eval()
    assert all(value.dtype == torch.float32 for value in shipped.parameters())
    image = torch.rand(1, 3, 128, 160)
    with torch.no_grad(), rounded_weights(network):  # what the graphs are exported with
        expected, found = (one.encode(255 * image).detector for one in (network, shipped))
    torch.testing.assert_close(found.memory, expected.memory, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        unrounded = network.encode(255 * image).detector
    rounding = (found.memory - unrounded.memory).abs().max()
    assert 10 * (found.memory - expected.memory).abs().max() < rounding < 0.05
    assert load_dense_heads(DenseHeads(32, torch.zeros(778, dtype=torch.long), width=96), out)
