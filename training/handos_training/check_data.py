"""Verify a dataset's folder and look at it: `handos-train check-data DATASET --root DIR`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import RealDataset, open_dataset
from handos_training.data.datasets.records import project
from handos_training.data.mix import CORRUPT
from handos_training.data.sample import Sample
from handos_training.data.tiles import tiled
from handos_training.data.transform import letterbox
from handos_training.evaluation.panels import draw_hand

CELL_HW = (360, 480)
COLUMNS = 4
MAX_REPROJECTION_PX = 1.0


@dataclass(frozen=True)
class CheckConfig:
    """Options of `handos-train check-data`."""

    dataset: Annotated[str, tyro.conf.Positional]  # a name in docs/datasets
    root: Path  # the dataset's folder
    split: str = 'train'
    out: Path = Path('check_data.png')  # the sheet of samples
    mano: Path | None = None  # the user's MANO, to check meshes too
    samples: int = 200  # read at random; 0 reads every one
    shown: int = 16  # of these on the sheet
    seed: int = 0


@dataclass
class DataReport:
    """What was read, and what is wrong with it."""

    length: int = 0
    read: int = 0
    hands: int = 0
    left: int = 0
    with_side: int = 0
    with_joints_m: int = 0
    with_vertices_m: int = 0
    largest_reprojection_px: float = 0.0
    failures: list[str] = field(default_factory=list)


def check_data(
    dataset: RealDataset, indices: Iterable[int], shown: int
) -> tuple[DataReport, list[Sample]]:
    """Read `indices`; returns the report and the first `shown` samples for a sheet.

    Besides what cannot be read, hands fail whose 3D labels do not project onto their 2D labels.
    """
    report = DataReport(length=len(dataset))
    kept: list[Sample] = []
    for index in indices:
        try:
            sample = dataset[index]
            sample.check()
        except CORRUPT as error:
            report.failures.append(f'[{index}]: {type(error).__name__}: {error}')
            continue
        hands = sample.hands
        report.read += 1
        report.hands += len(hands)
        report.left += int((hands.is_left & hands.has_side).sum())
        report.with_side += int(hands.has_side.sum())
        report.with_joints_m += int(hands.has_joints_m.sum())
        report.with_vertices_m += int(hands.has_vertices_m.sum())
        error_px = reprojection_px(sample)
        report.largest_reprojection_px = max(report.largest_reprojection_px, error_px)
        if error_px > MAX_REPROJECTION_PX:
            report.failures.append(
                f'[{index}] {sample.name}: 3D joints project {error_px:.1f} px beside the 2D ones'
            )
        if len(kept) < shown:
            kept.append(sample)
    return report, kept


def reprojection_px(sample: Sample) -> float:
    """Largest distance between labelled 2D joints and the projected 3D ones; 0 without both."""
    hands = sample.hands
    known = (hands.has_joints_m & hands.has_translation)[:, None] & hands.has_joint_px
    if not known.any():
        return 0.0
    points = (hands.joints_m + hands.translation_m[:, None]).double().numpy()[known.numpy()]
    pixels = project(points, sample.camera_matrix_px.double().numpy())
    return float(np.linalg.norm(pixels - hands.joints_px.numpy()[known.numpy()], axis=-1).max())


def sheet(samples: list[Sample]) -> npt.NDArray[np.uint8]:
    """All samples with their labels, side by side, RGB; empty cells are black."""
    return tiled([draw_labels(letterbox(sample, CELL_HW)) for sample in samples], COLUMNS)


def draw_labels(sample: Sample) -> npt.NDArray[np.uint8]:
    """The image with each hand's box, side (? where unknown), mesh, bones and labelled joints
    (black where they are known to be hidden)."""
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    hands = sample.hands
    for n in range(len(hands)):
        if hands.has_vertices_m[n] and hands.has_translation[n]:
            vertices = (hands.vertices_m[n] + hands.translation_m[n]).double().numpy()
            for point in project(vertices, sample.camera_matrix_px.double().numpy()):
                cv2.circle(image, _pixel(point), 1, (0, 255, 255), -1)
        joints = np.where(hands.has_joint_px[n, :, None], hands.joints_px[n], np.nan)
        side = ('R', 'L')[int(hands.is_left[n])] if hands.has_side[n] else '?'
        draw_hand(image, hands.boxes_xyxy_px[n].numpy(), joints, side)
        hidden = hands.has_visibility[n] & ~hands.joint_visible[n]
        for joint in np.flatnonzero(hands.has_joint_px[n]):
            colour = (0, 0, 0) if hidden[joint] else (255, 255, 255)
            cv2.circle(image, _pixel(joints[joint]), 3, colour, -1)
    return image


def _pixel(point: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = point.clip(-1e4, 1e4).round()
    return int(x), int(y)


def run(config: CheckConfig) -> DataReport:
    """Check, print, write the sheet. Raises UserError where anything is wrong."""
    mano = None if config.mano is None else HandModel.from_mano(config.mano)
    dataset = open_dataset(config.dataset, config.root, config.split, mano)
    order = np.random.default_rng(config.seed).permutation(len(dataset)).tolist()
    chosen = order[: config.samples] if config.samples else order
    console = Console()
    report, kept = check_data(
        dataset, track(chosen, 'reading', console=console, transient=True), config.shown
    )
    table = Table('', config.dataset, title=str(config.root), title_justify='left')
    for name, value in vars(report).items():
        if name != 'failures':
            text = f'{value:.3f}' if isinstance(value, float) else str(value)
            table.add_row(name.replace('_', ' '), text)
    console.print(table)
    if kept:
        if not cv2.imwrite(str(config.out), sheet(kept)[..., ::-1]):
            raise UserError(f'{config.out} cannot be written: give a .png in a folder that exists')
        console.print(f'{len(kept)} samples: {config.out}')
    if report.failures:
        listed = '\n  '.join(report.failures[:20])
        raise UserError(f'{len(report.failures)} of {len(chosen)} samples are wrong:\n  {listed}')
    return report


def main(arguments: list[str]) -> None:
    """Entry point of `handos-train check-data`."""
    run(tyro.cli(CheckConfig, args=arguments, prog='handos-train check-data'))
