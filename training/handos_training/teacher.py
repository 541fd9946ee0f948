"""Learn from another network on pictures that nobody labelled: its hands become labels.

    handos-train nano_full --data.teacher base --data.unlabelled my_robot.mp4 my_photos

The pictures are those of the robot's own camera, its view, its gloves. The teacher is weights of
HandOS (folder, shipped name or hub id), or `module:function` of any other system, which answers an
RGB image [H,W,3] with a list of `TaughtHand`. What it finds is written once, as shards in the
folder of the run, and read with fresh augmentation from then on; stopped labelling goes on.

A picture is never said to be labelled completely: what a teacher misses is no background. Hands
below `teacher_score` are left out, and joints that it does not see well are not labelled.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import Camera, FloatArray, ImageArray
from handos_training.data.datasets.records import HandRecord, make_sample
from handos_training.data.sample import Sample
from handos_training.synth.cache import CachedHands, write_shard

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm')
SHARD = 256  # pictures
SEEN = 0.5  # confidence of a joint that is labelled
DONE = 'complete.txt'


@dataclass(frozen=True)
class TaughtHand:
    """One hand as a teacher sees it; None where it does not say. Pixels count from the centre of
    the first pixel, metres are in the optical frame of the virtual camera (focal length = longer
    side, principal point in the middle)."""

    joints_px: FloatArray  # [21,2] MPII order
    confidence: FloatArray  # [21] in [0,1]
    score: float = 1.0
    box_xyxy_px: FloatArray | None = None
    is_left: bool | None = None
    joints_m: FloatArray | None = None  # [21,3]
    vertices_m: FloatArray | None = None  # [778,3] of the run's hand template


Teacher = Callable[[ImageArray], Sequence[TaughtHand]]


def taught(
    name: str, sources: Sequence[Path], folder: Path, least_score: float, template: Path | None
) -> CachedHands:
    """The samples of teacher `name` on pictures and videos, labelled now where not yet."""
    hand_model = HandModel.of(template)
    if not (folder / DONE).is_file():
        places = pictures(sources)
        if not places:
            raise UserError(
                f'data.unlabelled: no pictures or videos in {", ".join(map(str, sources))}'
            )
        teach = open_teacher(name, hand_model)
        label(teach, places, folder, least_score)
        (folder / DONE).write_text(f'{name}\n')
    return CachedHands([folder])


def open_teacher(name: str, hand_model: HandModel) -> Teacher:
    """`module:function`, or weights of HandOS with the run's template. Raises UserError."""
    if ':' not in name:
        return NetworkTeacher(name, hand_model)
    module, function = name.split(':', 1)
    try:
        teacher: Teacher = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f'data.teacher: {name} cannot be imported ({error})') from None
    return teacher


class NetworkTeacher:
    """HandOS itself: with the weights of a larger network, or of the same on easier pictures."""

    def __init__(self, weights: str, hand_model: HandModel) -> None:
        from handos_model.pipeline import HandPipeline, PipelineConfig

        config = PipelineConfig(score_threshold=0.1)
        self.pipeline = HandPipeline(weights, config=config, hand_model=hand_model)

    def __call__(self, image: ImageArray) -> list[TaughtHand]:
        camera = Camera.uncalibrated(image.shape[1], image.shape[0])
        return [
            TaughtHand(
                hand.joints_px, hand.joint_confidence, hand.score, hand.box_xyxy_px, hand.is_left,
                hand.joints_m, hand.vertices_m,
            )
            for hand in self.pipeline(image, camera)
        ]  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A picture file, or one frame of a video."""

    path: Path
    frame: int | None = None

    @property
    def name(self) -> str:
        return self.path.name if self.frame is None else f'{self.path.name}[{self.frame}]'


def pictures(sources: Sequence[Path], every: int = 5) -> list[Picture]:
    """All pictures of files and folders, and of videos one frame in `every`."""
    found = []
    for source in sources:
        files = sorted(source.rglob('*')) if source.is_dir() else [source]
        for path in files:
            if path.suffix.lower() in PICTURES:
                found.append(Picture(path))
            elif path.suffix.lower() in VIDEOS:
                frames = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))
                found += [Picture(path, frame) for frame in range(0, frames, every)]
    return found


def label(teach: Teacher, places: Sequence[Picture], folder: Path, least_score: float) -> None:
    """Write the shards that are still missing, each under its name when it is complete."""
    numbers = range(0, len(places), SHARD)
    for first in track(numbers, 'the teacher labels', transient=True):
        path = folder / f'shard-{first // SHARD:05d}.safetensors'
        none = path.with_suffix('.none')  # nothing was found in these pictures
        if path.exists() or none.exists():
            continue
        samples = [
            sample
            for place, image in read(places[first : first + SHARD])
            if len((sample := sample_of(image, teach(image), place.name, least_score)).hands)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        if samples:
            write_shard(path, samples)
        else:
            none.touch()
    if not any(folder.glob('*.safetensors')):
        raise UserError(
            f'the teacher found no hand in {len(places)} pictures with a score of {least_score} '
            'and more: lower data.teacher_score, or look at what it sees with `handos image`'
        )


def sample_of(
    image: ImageArray, hands: Sequence[TaughtHand], name: str, least_score: float
) -> Sample:
    """The labels of one picture."""
    records = []
    for hand in hands:
        labelled = np.asarray(hand.confidence) >= SEEN
        if hand.score < least_score or not labelled.any():
            continue
        records.append(
            HandRecord(
                np.asarray(hand.joints_px, np.float64),
                labelled,
                is_left=hand.is_left,
                box_xyxy_px=_doubles(hand.box_xyxy_px),
                joints_m=_doubles(hand.joints_m),
                vertices_m=_doubles(hand.vertices_m),
            )
        )
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return make_sample(pixels, records, name)


def read(places: Sequence[Picture]) -> Iterator[tuple[Picture, ImageArray]]:
    """RGB images of pictures; those that cannot be read are left out."""
    video: tuple[Path, cv2.VideoCapture] | None = None
    for place in places:
        if place.frame is None:
            image = cv2.imread(str(place.path), cv2.IMREAD_COLOR)
        else:
            if video is None or video[0] != place.path:
                video = place.path, cv2.VideoCapture(str(place.path))
            video[1].set(cv2.CAP_PROP_POS_FRAMES, place.frame)
            image = video[1].read()[1]
        if image is not None:
            yield place, np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _doubles(values: FloatArray | None) -> npt.NDArray[np.float64] | None:
    return None if values is None else np.asarray(values, np.float64)
