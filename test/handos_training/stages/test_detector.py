"""The detector's own training: labels, ignored negatives, and the same forward as in use."""

import pytest
import torch
import transformers
from torch import Tensor
from transformers import RTDetrV2Config
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

from handos_model.config import DetectorConfig
from handos_model.network.detectors.dfine import DFineDetector, build_dfine, initialise_detector
from handos_training.data.sample import Batch, empty_labels
from handos_training.stages.detection_loss import detection_loss
from handos_training.stages.detector import DetectorStage, detector_labels
from handos_training.stages.losses import weighted_loss
from handos_training.stages.network import tiny
from handos_training.stages.targets import hand_targets


def build_stage(num_denoising: int = 8, ddf: bool = True) -> DetectorStage:
    torch.manual_seed(0)
    model = tiny().detector.model | {'num_denoising': num_denoising}
    if not ddf:
        model['weight_loss_ddf'] = 0.0
    detector = build_dfine(DetectorConfig(family='d_fine', model=model), freeze=False)
    assert isinstance(detector, DFineDetector)
    initialise_detector(detector.model, 0)
    return DetectorStage(detector)


def batch_of(boxes_px: list[list[list[float]]], size_hw: tuple[int, int] = (96, 128)) -> Batch:
    """One image a list of boxes; grey noise with a bright rectangle for each hand."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 60, (len(boxes_px), 3, *size_hw), generator=generator)
    counts = [len(boxes) for boxes in boxes_px]
    hands = empty_labels(sum(counts))
    hands.boxes_xyxy_px = torch.tensor([box for boxes in boxes_px for box in boxes]).reshape(-1, 4)
    for image, boxes in enumerate(boxes_px):
        for x0, y0, x1, y1 in boxes:
            images[image, :, int(y0) : int(y1), int(x0) : int(x1)] += 150
    B = len(boxes_px)
    names = [f'drawn/{i}' for i in range(B)]
    eye = torch.eye(3).repeat(B, 1, 1)
    return Batch(
        images.to(torch.uint8), eye, hands, counts, names, torch.ones(B, dtype=torch.bool)
    )


def losses_of(stage: DetectorStage, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    _, terms = stage(batch.images.float() / 255, hand_targets(batch), batch.all_hands_labelled)
    return weighted_loss(terms, lambda name: 1.0)


def test_labels_are_normalised_clipped_and_of_their_image() -> None:
    batch = batch_of([[[0, 0, 64, 48]], [], [[96, 48, 127.5, 95.5], [10, 10, 20, 20]]])
    labels = detector_labels(hand_targets(batch), batch.all_hands_labelled)
    assert [len(label['boxes']) for label in labels] == [1, 0, 2]
    expected = torch.tensor([32.5 / 128, 24.5 / 96, 0.5, 0.5])
    assert torch.allclose(labels[0]['boxes'][0], expected)
    low = labels[2]['boxes'][:, :2] - labels[2]['boxes'][:, 2:] / 2
    assert (low >= 0).all()
    assert all(label['class_labels'].dtype == torch.long for label in labels)


def test_output_is_that_of_the_detector_in_use() -> None:
    stage = build_stage().eval()
    images = batch_of([[[10, 10, 60, 60]], []]).images.float() / 255
    with torch.no_grad():
        trained, used = stage.detect(images), stage.detector(images)
    for name in ('memory', 'queries_initial', 'queries_final', 'boxes_cxcywh', 'scores'):
        assert torch.allclose(getattr(trained, name), getattr(used, name), atol=1e-5), name
    assert trained.spatial_shapes == used.spatial_shapes


def test_denoising_queries_stay_out_of_the_output() -> None:
    stage = build_stage().train()
    batch = batch_of([[[10, 10, 60, 60]], [[30, 20, 90, 80], [5, 5, 25, 25]]])
    output, terms = stage(
        batch.images.float() / 255, hand_targets(batch), batch.all_hands_labelled
    )
    Q = stage.detector.model.config.num_queries
    assert output.queries_initial.shape[1] == output.queries_final.shape[1] == Q
    assert output.boxes_cxcywh.shape[1] == output.scores.shape[1] == Q
    assert float(terms['detector_giou'].size) == 3


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_finite_without_hands(mode: str) -> None:
    stage = build_stage()
    stage.train(mode == 'train')
    loss, means = losses_of(stage, batch_of([[], []]))
    loss.backward()
    assert loss.isfinite()
    assert float(means['detector_giou']) == 0
    gradients = [p.grad for p in stage.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


THREE = [[[10, 10, 60, 60]], [], [[30, 20, 90, 80], [5, 5, 25, 25], [50, 10, 70, 40]]]


@pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split('.')[:2])) < (5, 24),
    reason='earlier transformers count denoising queries twice; ours does not',
)
@pytest.mark.parametrize('num_denoising', [0, 8])
@pytest.mark.parametrize('boxes', [THREE, [[], []]])
def test_losses_are_those_of_the_library(
    num_denoising: int, boxes: list[list[list[float]]]
) -> None:
    def run(own: bool) -> tuple[dict[str, Tensor], Tensor]:
        stage = build_stage(num_denoising).train()
        if not own:
            stage.detector.model.loss_function = DFineForObjectDetectionLoss
        torch.manual_seed(1)
        loss, means = losses_of(stage, batch_of(boxes))
        loss.backward()
        gradients = [p.grad.flatten() for p in stage.parameters() if p.grad is not None]
        return means, torch.cat(gradients)

    (ours, our_gradient), (theirs, their_gradient) = run(True), run(False)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert (our_gradient - their_gradient).norm() <= 1e-4 * their_gradient.norm()


def test_losses_of_rtdetr_are_those_of_the_library() -> None:
    config = RTDetrV2Config(num_labels=1, num_queries=12)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    targets = hand_targets(batch_of(THREE))
    labels = detector_labels(targets, torch.ones(3, dtype=torch.bool))
    classes, boxes = normal(3, 3, 12, 1), normal(3, 3, 12, 4).sigmoid()
    arguments = (classes[:, -1], labels, classes.device, boxes[:, -1], config, classes, boxes)
    first = {'enc_topk_logits': normal(3, 12, 1), 'enc_topk_bboxes': normal(3, 12, 4).sigmoid()}
    _, ours, _ = detection_loss(*arguments, **first)
    _, theirs, _ = RTDetrForObjectDetectionLoss(*arguments, **first)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=1e-4), name


def test_unlabelled_hands_are_no_negatives() -> None:
    stage = build_stage(num_denoising=0).eval()
    batch = batch_of([[], []])
    negative, _ = losses_of(stage, batch)
    assert float(negative.detach()) > 0
    batch.all_hands_labelled[:] = False
    ignored, _ = losses_of(stage, batch)
    assert float(ignored.detach()) == pytest.approx(0, abs=1e-6)


def test_labelled_hands_of_incomplete_images_still_teach() -> None:
    stage = build_stage(num_denoising=0).eval()
    batch = batch_of([[[10, 10, 60, 60]]])
    _, complete = losses_of(stage, batch)
    batch.all_hands_labelled[:] = False
    _, incomplete = losses_of(stage, batch)
    for name in ('detector_bbox', 'detector_giou'):  # the matching does not change
        assert float(incomplete[name]) == pytest.approx(float(complete[name]), rel=1e-5)
    assert 0 < float(incomplete['detector_vfl']) < float(complete['detector_vfl'])


def test_learns_a_few_images() -> None:
    stage = build_stage().train()
    batch = batch_of([[[10, 10, 60, 60]], [[70, 20, 120, 80]], [[30, 40, 70, 90]], []])
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    first = last = 0.0
    for step in range(12):
        torch.manual_seed(step)
        loss, _ = losses_of(stage, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        optimizer.step()
        first, last = first or float(loss.detach()), float(loss.detach())
    assert last < 0.9 * first
