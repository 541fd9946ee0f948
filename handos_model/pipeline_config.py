"""What counts as a hand, and how far its metres are believed."""

from __future__ import annotations

from dataclasses import dataclass

from handos_model.errors import UserError


@dataclass(frozen=True)
class PipelineConfig:
    """What counts as a hand, and how far its metres are believed.

    The defaults are a robot's: `paper()` has those of the paper's evaluation.
    """

    score_threshold: float = 0.3
    nms_threshold: float = 0.9  # IoU of boxes; loose, because crossed hands share a box
    # Hands whose 2D joints agree more than this are one hand found twice, and a hand over a surer
    # one of the same side is a part of it; None keeps all. A robot that is shown one hand twice
    # plans for two; two real hands never agree joint by joint.
    duplicate_similarity: float | None = 0.5
    max_hands: int = 4
    # Hands whose longer side is less in the network's input are looked at again, enlarged: they
    # cost a second, smaller run each. None leaves them as they are.
    closer_below_px: float | None = 48.0
    # Instances from this score up to the threshold are looked at from near as well, and are hands
    # if they are sure there (0.5). None takes the first look's word.
    doubtful_score: float | None = 0.05
    sigma_px: float = 2.0  # noise of the network's 2D joints
    # Relative spread of adult hand lengths, which one image cannot see past: it scales the
    # position along the ray, and is part of the covariance.
    hand_length_sigma: float = 0.06
    hand_length_m: float | None = None  # this user's, wrist to tip of the middle finger
    network_placement: bool = False  # fill `Hand.network_joints_px`, which only evaluation wants

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1 or not 0 <= self.nms_threshold <= 1:
            raise UserError('score_threshold and nms_threshold must be within 0 and 1')
        if self.doubtful_score is not None and self.doubtful_score <= 0:
            raise UserError('doubtful_score must be above 0: nearly nothing is a hand')
        if self.max_hands < 1:
            raise UserError(f'max_hands={self.max_hands} must be at least 1')
        if self.hand_length_m is not None and not 0.08 <= self.hand_length_m <= 0.3:
            raise UserError(
                f'hand_length_m={self.hand_length_m} must be metres from the wrist to the tip of '
                'the middle finger, 0.08 to 0.3'
            )

    @classmethod
    def paper(cls, max_hands: int = 32) -> PipelineConfig:
        """Section 4.1: score 0.1, NMS 0.9, nothing else suppressed, every hand seen once."""
        return cls(
            score_threshold=0.1,
            duplicate_similarity=None,
            closer_below_px=None,
            doubtful_score=None,
            max_hands=max_hands,
            network_placement=True,
        )
