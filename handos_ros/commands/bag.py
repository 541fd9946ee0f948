"""`handos bag`: hands for a recording, without ROS 2 and as fast as the machine allows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from handos_model.errors import UserError
from handos_ros.node.parameters import PARAMETERS, Settings

PROGRESS_EVERY = 10  # messages


def bag(
    recording: Annotated[Path, typer.Argument(help='rosbag2 folder, or one .mcap or .db3 file.')],
    output: Annotated[Path, typer.Argument(help='Folder of the new recording.')],
    image: Annotated[str, typer.Option(help='Image topic, where there are several.')] = '',
    camera_info: Annotated[str, typer.Option(help='CameraInfo topic, if not a sibling.')] = '',
    depth: Annotated[str, typer.Option(help='Depth topic, aligned to the image.')] = '',
    markers: Annotated[
        bool, typer.Option(help='Write RViz markers as well: 225 kB for two hands.')
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option('--param', '-p', help='A parameter of the node, as name:=value.'),
    ] = None,
) -> None:
    """Copy a recording and add the hands' topics to it."""
    from handos_ros.node.bag_processing import BagProcessor, CameraTopics, find_camera
    from handos_ros.node.perception import PipelinePerception
    from handos_ros.runtime.bags import BagReader, BagWriter, Messages

    settings = parse_settings([*(parameter or []), *(['use_depth:=true'] if depth else [])])
    with BagReader(recording) as reader:
        found = find_camera(reader.topics, image, camera_info)
        camera = CameraTopics(found.image, found.camera_info, depth)
        if depth and depth not in reader.topics:
            raise UserError(f'{depth} is not in the recording')
        messages = Messages()
        perception = PipelinePerception(settings, print)
        with BagWriter(output, messages, mcap=reader.is_mcap) as writer:
            processor = BagProcessor(
                messages, writer, perception, settings, camera, with_markers=markers
            )
            started_s = time.monotonic()
            _show_progress(processor.run(reader), reader.message_count)
            elapsed_s = time.monotonic() - started_s
    report = processor.report
    print(
        f'{report.processed} of {report.images} images of {camera.image}, {report.hands} hands, '
        f'{report.processed / elapsed_s:.0f} images a second'
    )
    for problem, count in report.problems.items():
        print(f'{count} left out: {problem}')


def parse_settings(rules: list[str]) -> Settings:
    """Settings from `name:=value` rules. Raises UserError for one that is refused."""
    values: dict[str, Any] = {}
    known = {spec.name for spec in PARAMETERS}
    for rule in rules:
        name, separator, text = rule.partition(':=')
        if not separator or name not in known:
            raise UserError(
                f'{rule!r} is no parameter; give name:=value of {", ".join(sorted(known))}'
            )
        values[name] = yaml.safe_load(text)
    try:
        return Settings(**values)
    except ValueError as error:
        raise UserError(str(error)) from error


def _show_progress(counts: Any, total: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task('', total=total)
        for done in counts:
            if done % PROGRESS_EVERY == 0 or done == total:
                progress.update(task, completed=done)
