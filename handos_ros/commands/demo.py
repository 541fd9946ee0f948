"""`handos demo`: the real node on a real video, in a terminal, in two minutes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
import typer

from handos_model.errors import UserError
from handos_model.weights.store import find_weights
from handos_ros.commands.options import BackendOption, ManoOption, ScoreOption

if TYPE_CHECKING:
    from rich.table import Table

    from handos_ros.view.demo_recorder import Figures

CLIP = Path(__file__).resolve().parents[1] / 'assets' / 'human_hand.mp4'
OUTPUTS = ('hands.html', 'overlay.mp4', 'overlay.png', 'hands.mcap')
LOADING_LIMIT_S = 60.0
LAST_FRAMES_S = 1.0  # after the camera has ended
STOPPING_LIMIT_S = 5.0
SIDES = ('left', 'right')


def demo(
    source: Annotated[
        str, typer.Option(help='Webcam number, video file or image folder; empty: our clip.')
    ] = '',
    out: Annotated[Path, typer.Option(help='Folder for what is written.')] = Path('demo_out'),
    weights: Annotated[str, typer.Option(help='Shipped name or folder.')] = 'nano',
    mano: ManoOption = None,
    backend: BackendOption = 'auto',
    rate_hz: Annotated[float, typer.Option('--rate', help='Images a second.')] = 15.0,
    score: ScoreOption = 0.3,
    limit_s: Annotated[float, typer.Option('--limit', help='Stop after so long [s].')] = 100.0,
) -> None:
    """Show hands of a video in the terminal; write overlay video, recording and picture."""
    from rich.live import Live

    from handos_ros.runtime import Node, SingleThreadedExecutor, init, ok, try_shutdown
    from handos_ros.view.demo_recorder import DemoRecorder

    find_weights(weights)  # say here what the node could only say in its log
    for name in (*OUTPUTS, 'hands'):
        _remove(out / name)
    out.mkdir(parents=True, exist_ok=True)
    log = (out / 'node.log').open('w')
    hands_node = _start(
        log, 'run', '--ros-args', '-p', f'model:={weights}', '-p', f'backend:={backend}',
        '-p', f'score_threshold:={score}', '-p', 'publish_theta:=false',
        *(['-p', f'mano:={mano}'] if mano else []),
    )  # fmt: skip
    camera: subprocess.Popen[str] | None = None
    init(args=[])
    node = Node('handos_demo')
    recorder = DemoRecorder(node, out, rate_hz)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started_s = time.monotonic()
    ended_s: float | None = None
    try:
        with Live(_panel(recorder.figures, 0.0), refresh_per_second=8) as live:
            while ok() and time.monotonic() - started_s < limit_s:
                executor.spin_once(timeout_sec=0.05)
                if hands_node.poll() is not None:
                    raise UserError(f'the node stopped: {out / "node.log"} says why')
                if camera is None and recorder.figures.ready:
                    camera = _start(
                        log, 'camera', source or str(CLIP), '--wait', '--rate', str(rate_hz)
                    )
                if camera is None and time.monotonic() - started_s > LOADING_LIMIT_S:
                    raise UserError(f'the model did not load: see {out / "node.log"}')
                if camera is not None and camera.poll() is not None:
                    if camera.returncode != 0:
                        raise UserError(f'the camera stopped: {out / "node.log"} says why')
                    ended_s = ended_s or time.monotonic()
                    if time.monotonic() - ended_s > LAST_FRAMES_S:
                        break
                live.update(_panel(recorder.figures, time.monotonic() - started_s))
    except KeyboardInterrupt:
        pass
    finally:
        for process in (camera, hands_node):
            _stop(process)
        recorder.close()
        executor.shutdown()
        node.destroy_node()
        try_shutdown()
        log.close()
    if recorder.figures.frames == 0:
        raise UserError(f'no frame was processed: see {out / "node.log"}')
    _finish(recorder.best_overlay, recorder.figures, out)


def _start(log: Any, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, '-m', 'handos_ros.cli', *arguments]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)


def _stop(process: subprocess.Popen[str] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOPPING_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _remove(path: Path) -> None:
    """Only ever what an earlier demo wrote."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _finish(overlay: Any, figures: Figures, out: Path) -> None:
    """Put the files where they are announced, and say where that is and what to type next."""
    from handos_ros.view.page import write_page
    from handos_ros.view.recorded import recorded_frames

    recorded = next((out / 'hands').glob('*.mcap'))
    recorded.replace(out / 'hands.mcap')
    shutil.rmtree(out / 'hands')
    if overlay is not None:
        cv2.imwrite(str(out / 'overlay.png'), cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
    frames = (frame for _, frame in recorded_frames(out / 'hands.mcap', '', ''))
    write_page(frames, out / 'hands.html', 'hands.mcap')
    print(
        f'\n{figures.frames} frames, hands in {figures.frames_with_hands}, '
        f'{figures.backend}\n'
        f'  {out / "hands.html"}    video, meshes in 3D and plots: open it in a browser\n'
        f'  {out / "overlay.mp4"}   the video with hands drawn in\n'
        f'  {out / "overlay.png"}   its clearest picture\n'
        f'  {out / "hands.mcap"}    the recording, a rosbag2\n'
        f'Next:\n'
        f'  {command()} image {out / "overlay.png"} --overlay {out / "pictures"}\n'
        f'  {command()} view {out / "hands.mcap"} --html {out / "again.html"}'
    )


def command() -> str:
    """What to type for `handos` in this environment, from this folder."""
    program = Path(sys.executable).parent / 'handos'
    if not program.exists():
        return f'{sys.executable} -m handos_ros.cli'
    if shutil.which('handos') == str(program):
        return 'handos'
    inside = program.is_relative_to(Path.cwd())
    return str(program.relative_to(Path.cwd()) if inside else program)


def _panel(figures: Figures, elapsed_s: float) -> Table:
    """Frames, age, backend, and a line for each hand."""
    from rich.table import Table

    table = Table(title=f'HandOS, {elapsed_s:.0f} s', title_justify='left', width=78)
    for column in ('hand', 'side', 'distance', 'score', 'position [m]'):
        table.add_column(column)
    for hand in figures.hands:
        position = hand.translation_m
        xyz = np.array([position.x, position.y, position.z])
        table.add_row(
            f'#{hand.id}',
            f'{SIDES[hand.side]} {hand.side_probability:.2f}',
            f'{np.linalg.norm(xyz):.2f} m',
            f'{hand.score:.2f}',
            ' '.join(f'{value:+.3f}' for value in xyz),
        )
    span_s = figures.stamps_s[-1] - figures.stamps_s[0] if len(figures.stamps_s) > 1 else 0.0
    rate_hz = (len(figures.stamps_s) - 1) / span_s if span_s > 0 else 0.0
    age_ms = 1e3 * float(np.median(figures.ages_s)) if figures.ages_s else 0.0
    received = max(figures.received, figures.frames)  # diagnostics tell it once a second
    table.caption = (
        f'{figures.frames} frames of {received}, {rate_hz:.1f} Hz, {age_ms:.0f} ms old; '
        f'backend {figures.backend}'
    )
    return table
