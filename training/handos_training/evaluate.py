"""Evaluate weights: `handos-eval DATASET --root DIR --weights W [--split S]`.

Full images go through the pipeline that the node runs, with the paper's thresholds (score 0.1,
NMS 0.9), without the true side, and without the true box unless `--boxes truth`. A label's answer
is the prediction whose box overlaps it most (`matching.py`); a missed hand counts as V = 0 and
PCK = 0. DATASET `synth` is held-out generated images, which need no --root.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera, FloatArray, Hand, ImageArray
from handos_model.weights.store import find_weights, load_config
from handos_training.data.datasets.catalogue import RealDataset, open_dataset, own_split
from handos_training.data.datasets.joint_orders import MANO_TIP_VERTICES, joint_regressor
from handos_training.data.mix import CORRUPT
from handos_training.data.sample import Sample
from handos_training.evaluation.flat import FlatPipeline
from handos_training.evaluation.matching import MIN_IOU
from handos_training.evaluation.running_scores import PCK_THRESHOLDS, Scores
from handos_training.evaluation.submissions import WITH_VERTICES, WRITERS, Answer

# What is compared in the image: Table 5 of the paper has the first two.
PCK_KINDS = (
    ('', ', 2D joints'),
    ('_projected', ", 3D at the network's translation"),
    ('_placed', ', 3D placed by the camera'),
)
SYNTH_SEED = 910_000_000  # not one of training or of its validation


@dataclass(frozen=True)
class EvalConfig:
    """Options of `handos-eval`."""

    dataset: Annotated[str, tyro.conf.Positional]  # synth, or a name in docs/datasets
    weights: str  # a folder of `handos export`, a training run's weights, or a shipped name
    root: Path | None = None  # the dataset's folder
    split: str = 'test'
    out: Path | None = None  # folder for scores.json and the submission file
    mano: Path | None = None  # the user's MANO, for weights that were trained on its template
    backend: str = 'auto'
    # Where hands are: found by the detector, or the labels' own boxes (the paper's Table X).
    boxes: Literal['detector', 'truth'] = 'detector'
    every: int = 1  # evaluate every n-th image only (no submission file then)
    samples: int = 1000  # images of `synth`
    closer_look: bool = (
        False  # see small and doubtful hands again, as the node does, not the paper
    )

    def __post_init__(self) -> None:
        if self.every < 1 or self.samples < 1:
            raise UserError('--every and --samples must be at least 1')
        if self.dataset != 'synth' and self.root is None:
            raise UserError(f'--root is missing: the folder of {self.dataset}')


class Pipeline(Protocol):
    """What `HandPipeline` is, and what tests put in its place."""

    def __call__(self, image: ImageArray, camera: Camera, /) -> list[Hand]: ...

    def in_boxes(
        self, image: ImageArray, camera: Camera, boxes_xyxy_px: FloatArray, /
    ) -> list[Hand]: ...


def evaluate(
    dataset: RealDataset,
    pipeline: Pipeline,
    scores: Scores,
    indices: Iterable[int],
    keep_vertices: bool = True,
    true_boxes: bool = False,
) -> list[Answer]:
    """Run the images `indices` through the pipeline into `scores`; one answer an image.

    Raises UserError at the first image that cannot be read: scores of a part are not comparable.
    """
    answers = []
    for index in indices:
        try:
            sample = dataset[index]
        except CORRUPT as error:
            raise UserError(
                f'image {index} cannot be read, so nothing is scored: {error}'
            ) from None
        image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
        camera = _camera(sample, dataset.has_camera)
        if true_boxes:
            boxes = sample.hands.boxes_xyxy_px.double().numpy()
            hands = pipeline.in_boxes(image, camera, boxes)
        else:
            hands = pipeline(image, camera)
        matched = scores.add(index, sample, hands, dataset.sequence(index))
        hand = matched[0] if matched else (hands[0] if hands else None)
        joints = np.zeros((21, 3)) if hand is None else scores.joints_m(hand)
        if hand is not None:  # meshes of a whole dataset take gigabytes
            vertices = hand.vertices_m.astype(np.float32) if keep_vertices else np.zeros((0, 3))
            hand = replace(hand, vertices_m=vertices)
        answers.append(Answer(index, sample.name, hand, joints))
    return answers


class HeldOutSynth:
    """Generated images that no training saw; image i is always the same."""

    splits: tuple[str, ...] = ('test',)
    has_camera = True

    def __init__(self, count: int, size_hw: tuple[int, int], device: str = 'cpu') -> None:
        from handos_training.synth.config import SynthConfig
        from handos_training.synth.dataset import SynthHands

        self.count = count
        config = SynthConfig(height=size_hw[0], width=size_hw[1])
        self.hands = SynthHands(config, 1, device, SYNTH_SEED)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.hands.batch(index).to('cpu').sample(0)

    def sequence(self, index: int) -> str | None:
        """Images stand alone."""
        return None


def open_evaluation(config: EvalConfig, mano: HandModel | None) -> tuple[RealDataset, Scores]:
    """The dataset of a run and empty scores that count its joints as it does."""
    if config.dataset == 'synth':
        return HeldOutSynth(config.samples, (480, 640)), Scores(same_topology=mano is None)
    assert config.root is not None
    # Held-out splits store meshes in files and use the model only as the wish to read them, so
    # F-scores are there for any template; only a MANO template can pose those of other splits.
    stored = own_split(config.dataset, config.split) == 'evaluation'
    meshes = mano or (HandModel.embedded() if stored else None)
    dataset = open_dataset(config.dataset, config.root, config.split, meshes)
    regressor = None
    if mano is not None and config.dataset in MANO_TIP_VERTICES:
        regressor = np.asarray(joint_regressor(mano, config.dataset), np.float64)
    return dataset, Scores(same_topology=mano is not None, joint_regressor=regressor)


def run(config: EvalConfig, pipeline: Pipeline | None = None) -> dict[str, Any]:
    """Evaluate, print the tables, write the files; returns the content of scores.json."""
    mano = None if config.mano is None else HandModel.from_mano(config.mano)
    dataset, scores = open_evaluation(config, mano)
    if pipeline is None:
        pipeline = open_pipeline(config, mano)
    scores.mesh = not isinstance(pipeline, FlatPipeline)
    console = Console()
    indices = range(0, len(dataset), config.every)
    progress = track(indices, 'evaluating', console=console, transient=True)
    keep_vertices = config.out is not None and config.dataset in WITH_VERTICES
    true_boxes = config.boxes == 'truth'
    answers = evaluate(dataset, pipeline, scores, progress, keep_vertices, true_boxes)
    summary = scores.summary()
    report = {
        'config': {key: str(value) for key, value in asdict(config).items()},
        'protocol': {
            'images': 'full', 'boxes': config.boxes, 'score': 0.1, 'nms_iou': 0.9,
            'closer_look': config.closer_look,
            'match_iou': MIN_IOU,
            'missed_hand': 'V = 0, PCK = 0, AUC = 0',
            'template': 'embedded' if mano is None else 'mano',
            'backend': getattr(pipeline, 'backend', 'given'),
        },
        'scores': summary,
    }  # fmt: skip
    for table in tables(summary, f'{config.dataset} {config.split}'):
        console.print(table)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / 'scores.json').write_text(json.dumps(report, indent=2) + '\n')
        if config.dataset in WRITERS and config.every == 1:
            console.print(f'submission: {WRITERS[config.dataset](answers, config.out)}')
            if mano is None and config.dataset in WITH_VERTICES:
                console.print(
                    'The vertices are not MANO vertices: the mesh errors (PV) that the official '
                    'script computes from this file mean nothing; joints do.'
                )
    return report


def open_pipeline(config: EvalConfig, mano: HandModel | None) -> Pipeline:
    """The weights as the node runs them; those of the 2D stage without a mesh."""
    folder = find_weights(config.weights)
    if load_config(folder).decoder.stage == '2d':
        if config.boxes == 'truth':
            raise UserError('--boxes truth is for weights of the full stage')
        return FlatPipeline(folder, mano)
    paper, node = PipelineConfig.paper(), PipelineConfig()
    if config.closer_look:
        paper = replace(
            paper, closer_below_px=node.closer_below_px, doubtful_score=node.doubtful_score
        )
    return HandPipeline(folder, config.backend, paper, hand_model=mano)


def tables(scores: dict[str, float], title: str) -> list[Table]:
    """The paper's tables, as far as the labels allow."""
    rows_3d = (
        ('PA-MPJPE (mm)', 'pa_mpjpe{}_mm'), ('PA-MPVPE (mm)', 'pa_mpvpe{}_mm'),
        ('F@5', 'f5_aligned{}'), ('F@15', 'f15_aligned{}'),
        ('AUC joints', 'auc_joints{}'), ('AUC vertices', 'auc_vertices{}'),
        ('PA-MPJPE of found hands (mm)', 'pa_mpjpe{}_found_mm'),
    )  # fmt: skip
    result = []
    columns = ('official (reflections pass)', 'proper rotation')
    lines: list[tuple[str, ...]] = [
        (label, *(_text(scores, key.format(suffix)) for suffix in ('', '_proper')))
        for label, key in rows_3d
        if key.format('') in scores
    ]
    result.append(_table(f'{title}: after alignment', columns, lines))
    lines = []
    for kind, kind_label in PCK_KINDS:
        for group, label in (('', 'all joints'), ('_visible', 'visible'), ('_hidden', 'hidden')):
            keys = [f'pck{group}{kind}_{threshold}' for threshold in PCK_THRESHOLDS]
            if keys[0] in scores:
                lines.append((label + kind_label, *(_text(scores, key) for key in keys)))
    result.append(
        _table(f'{title}: PCK of the box', tuple(f'@{t}' for t in PCK_THRESHOLDS), lines)
    )
    shown = {key.format(s) for _, key in rows_3d for s in ('', '_proper')}
    lines = [
        (key, _text(scores, key))
        for key in scores
        if key not in shown and not key.startswith('pck')
    ]
    result.append(_table(f'{title}: everything else', ('value',), lines))
    return [table for table in result if table.row_count]


def _table(title: str, columns: Sequence[str], lines: Sequence[tuple[str, ...]]) -> Table:
    table = Table('', title=title, title_justify='left')
    for column in columns:
        table.add_column(column, justify='right')
    for line in lines:
        table.add_row(*line)
    return table


def _text(scores: dict[str, float], key: str) -> str:
    value = scores.get(key)
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.3f}'


def _camera(sample: Sample, calibrated: bool) -> Camera:
    height, width = sample.image.shape[1:]
    return Camera(width, height, sample.camera_matrix_px.double().numpy(), calibrated=calibrated)


def main() -> None:
    """Entry point of `handos-eval`."""
    try:
        run(tyro.cli(EvalConfig, description=__doc__))
    except UserError as error:
        print(f'handos-eval: {error}', file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == '__main__':
    main()
