"""`handos doctor`: what is installed, what would run, and whether it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handos_model.backends.arithmetic import why_not_int8
from handos_model.backends.base import Engine, EngineOptions
from handos_model.backends.choice import BACKENDS, choose_backend, open_engine, why_unavailable
from handos_model.backends.parity import beyond_limits, engine_parity, made_up_images
from handos_model.environment import describe_machine
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.weights.exported import MANIFEST, ExportedWeights
from handos_model.weights.store import check_template, find_weights, load_config
from handos_ros.commands.options import ManoOption, WeightsOption
from handos_ros.health.findings import find_mistakes
from handos_ros.health.observe import observe_graph
from handos_ros.images.calibration import calibration_doubts
from handos_ros.images.camera_files import read_camera_file

# The backend whose results the others are compared with: the first that can run.
REFERENCES = ('torch', 'onnxruntime', 'openvino')


def doctor(
    weights: WeightsOption = 'nano',
    mano: ManoOption = None,
    camera_info: Annotated[Path | None, typer.Option(help='A calibration YAML to check.')] = None,
    ros: Annotated[
        bool, typer.Option(help='Listen to the ROS 2 graph instead; remap after --ros-args.')
    ] = False,
    listen_s: Annotated[float, typer.Option('--listen', help='For so long [s].', min=0.5)] = 3.0,
) -> None:
    """Check this machine; exits with 1 where something needs mending."""
    problems = _check_graph(listen_s) if ros else _check_machine(weights, mano, camera_info)
    print('all well' if problems == 0 else f'{problems} to mend')
    if problems:
        raise typer.Exit(1)


def _check_graph(listen_s: float) -> int:
    observed = observe_graph(listen_s)
    for topic in (observed.image, observed.camera_info, *observed.outputs):
        print(
            f'topic     {topic.name}: {len(topic.publishers)} publishers, '
            f'{len(topic.subscriptions)} subscriptions'
            + (f', {topic.heard / listen_s:.1f} Hz' if topic.heard else '')
        )
    findings = find_mistakes(observed)
    for finding in findings:
        print(f'mistake   {finding.what}\n    cure  {finding.cure}')
    return len(findings)


def _check_machine(weights: str, mano: Path | None, camera_info: Path | None) -> int:
    machine = describe_machine()
    print(f'machine   {machine["processor"]}, {machine["cores"]} cores; GPU: {machine["gpu"]}')
    print(f'threads   {machine["cores"]} for a CPU backend: the cores that this process may use')
    print(f'python    {machine["python"]}, {machine["platform"]}')
    for package, version in machine['versions'].items():
        print(f'          {package} {version}')
    problems = _check_backends(weights, HandModel.of(mano))
    if camera_info is not None:
        problems += _check_camera(camera_info)
    return problems


def _check_backends(weights: str, hand_model: HandModel) -> int:
    """Say of each backend whether it runs and agrees; returns how many things are wrong."""
    try:
        folder = find_weights(weights)
        check_template(load_config(folder), hand_model)
        chosen, reason = choose_backend('auto', folder)
    except UserError as error:
        print(f'weights   {error}')
        return 1
    print(f'weights   {folder}')
    problems, opened = 0, {}
    options = EngineOptions(max_hands=1, hand_model=hand_model)
    for name in BACKENDS:
        missing = why_unavailable(name, folder)
        if missing is not None:
            print(f'backend   {name}: {missing}')
            continue
        try:
            opened[name] = open_engine(name, folder, options)
        except UserError as error:
            print(f'backend   {name}: {error}')
            problems += 1
    problems += _compare(opened, load_config(folder).input_size_hw)
    print(f'auto      {chosen} ({reason})')
    if (folder / MANIFEST).is_file():
        _tell_int8(ExportedWeights.load(folder))
    return problems


def _tell_int8(exported: ExportedWeights) -> None:
    """What 8 bits cost where they were measured, and why they are not used where not."""
    gate = exported.gate('int8')
    if gate is not None:
        print(
            f'int8      loses at most {max(gate.worst, 0):.4f} of found, PCK, sides and PA '
            f'(limit {gate.limit:g}; {gate.hands} hands in {gate.images} images)'
        )
    if (reason := why_not_int8(exported)) is not None:
        print(f'int8      not used: {reason}')


def _compare(engines: dict[str, Engine], input_size_hw: tuple[int, int]) -> int:
    reference = next((name for name in REFERENCES if name in engines), None)
    problems = 0
    for name, engine in engines.items():
        if name == reference or reference is None:
            print(f'backend   {name}: {engine.name}, the reference')
            continue
        images = made_up_images(input_size_hw)
        errors = engine_parity(engines[reference], engine, images, input_size_hw)
        # 8 bits are held to what they find, not to each number: see the gate.
        rounded = engine.precision == 'int8'
        wrong = [] if rounded else beyond_limits(errors, engine.precision)
        problems += bool(wrong)
        verdict = f'WRONG: {", ".join(wrong)}' if wrong else 'rounds' if rounded else 'agrees'
        print(
            f'backend   {name}: {engine.name}, {verdict} ({errors["joints_px"]:.2g} px, '
            f'{errors["vertices_mm"]:.2g} mm from {reference})'
        )
    return problems


def _check_camera(file: Path) -> int:
    camera = read_camera_file(file)
    doubts = calibration_doubts(camera)
    fx, fy = camera.matrix_px[0, 0], camera.matrix_px[1, 1]
    size = f'{camera.width}x{camera.height}'
    print(f'camera    {size}, {camera.distortion_model}, focal length {fx:.1f}, {fy:.1f} px')
    for doubt in doubts:
        print(f'camera    {doubt}')
    return len(doubts)
