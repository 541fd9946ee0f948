"""Hands that close on things: fingers flex until their phalanges touch.

A thing is laid against the palm, or against the thumb's pad, and the fingers advance as far as the
thing's signed distance surely allows (conservative advancement, Mirtich 1996): never through it.
A phalanx that touches stops the joints before it; those after it go on, so fingers wrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_model.hand.pose_limits import ABDUCTION, FLEXION, THUMB, TWIST, WRIST
from handos_training.synth.people.arm import ArmModel
from handos_training.synth.people.placement import Placement
from handos_training.synth.people.pose import CHAINS, FINGER_RADII_M
from handos_training.synth.sampling import Sampler, axis_angle_matrix, frame_matrix
from handos_training.synth.scene.objects import PINCH, ObjectMaker, Things

STEPS = 18
TOUCH_M = 0.0012
SAMPLES = (0.25, 0.6, 0.95)  # along each phalanx
PALM_DEPTH_M = 0.015  # from the knuckles' centres to the skin of the palm
FIRST_DEG, LAST_DEG = (-8.0, 4.0, 3.0), (88.0, 102.0, 68.0)  # open, and closed as far as it goes
THUMB_FIRST_DEG, THUMB_LAST_DEG = (-18.0, -8.0, -6.0), (38.0, 48.0, 62.0)
PACE = (1.0, 1.1, 0.7)  # of MCP, PIP and DIP against each other


@dataclass
class Grasps:
    """What N hands hold, in their own frames; `holds` is False where nothing could be held."""

    things: Things
    placement: Placement  # thing to hand
    holds: Tensor  # [N] bool
    angles_deg: Tensor  # [N,16,3]

    def __getitem__(self, rows: Tensor) -> Grasps:
        placement = Placement(self.placement.linear[rows], self.placement.offset_m[rows])
        return Grasps(self.things[rows], placement, self.holds[rows], self.angles_deg[rows])


class Grasper:
    def __init__(self, arm: ArmModel, maker: ObjectMaker) -> None:
        self.arm = arm
        self.maker = maker
        self.chain = torch.tensor([[c, c + 1, c + 2] for c in CHAINS], device=arm.axes.device)
        self.radii = torch.tensor(FINGER_RADII_M, device=arm.axes.device)  # [5,3]
        self.palm = (arm.is_hand & (arm.weights[:, WRIST] > 0.6)).nonzero().squeeze(1)

    def __call__(self, angles_deg: Tensor, betas: Tensor, sampler: Sampler) -> Grasps:
        """Give each hand (at scale 1) a thing; fingers keep their spread and take new flexion."""
        N = len(angles_deg)
        things = self.maker.sample(N, sampler)
        vertices, _ = self.arm.rest(betas)
        rest = self.arm.joint_regressor_21 @ vertices[:, self.arm.template_indices]
        angles = angles_deg.clone()
        pinches = self.maker.grip[things.kind] == PINCH
        angles[:, THUMB, ABDUCTION] = sampler.uniform(30, 43, N)
        angles[:, THUMB, FLEXION] = torch.where(pinches, sampler.uniform(8, 25, N), -15.0)
        angles[:, THUMB + 1, FLEXION] = torch.where(pinches, 12.0, -5.0)
        angles[:, THUMB + 2, FLEXION] = torch.where(pinches, sampler.uniform(5, 30, N), 0.0)
        angles[:, THUMB, TWIST] = 0.27 * angles[:, THUMB, ABDUCTION]
        open_deg = angles.new_tensor([THUMB_FIRST_DEG] + [FIRST_DEG] * 4).expand(N, 5, 3)
        closed = angles.new_tensor([THUMB_LAST_DEG] + [LAST_DEG] * 4).expand(N, 5, 3)
        thumb = angles[:, self.chain[0], FLEXION]
        flexion = open_deg.clone()
        flexion[:, 0] = torch.where(pinches[:, None], thumb, open_deg[:, 0])
        frames = self._fixed_turns(angles)
        joints = self._joints(rest, frames, flexion)
        placement = self._lay(things, pinches, joints, sampler)
        self._lift_off(things, placement, vertices[:, self.palm])
        # Pinching fingers meet the thumb; those that are not needed rest half closed.
        fixed = torch.zeros(N, 5, dtype=torch.bool, device=angles.device)
        fixed[:, 0] = pinches
        flexion, touched = self._close(things, placement, rest, frames, flexion, closed, fixed)
        idle = ~touched & ~fixed
        loose = closed * sampler.uniform(0.25, 0.7, N, 1, 1)
        flexion = torch.where(idle[..., None] & touched.any(1)[:, None, None], loose, flexion)
        fingers = touched[:, 1:].sum(1)
        holds = torch.where(pinches, touched[:, 1], (fingers >= 2) & (touched.sum(1) >= 3))
        angles[:, self.chain, FLEXION] = flexion
        angles = torch.where(holds[:, None, None], angles, angles_deg)
        return Grasps(things, placement, holds, angles)

    def _lift_off(self, things: Things, placement: Placement, palm_m: Tensor) -> None:
        """Move things down until the palm's skin [N,P,3] yields to them by a millimetre only."""
        for _ in range(3):
            local = (palm_m - placement.offset_m[:, None]) @ placement.linear
            depth = (-things.distance(local).amin(1) - 0.001).clamp(min=0)
            placement.offset_m[:, 2] -= depth

    def _fixed_turns(self, angles_deg: Tensor) -> Tensor:
        """Twist and abduction of each finger joint, [N,5,3,3,3]: they stay while fingers flex."""
        axes = self.arm.axes[self.chain]  # [5,3,axis,3]
        angle = angles_deg[:, self.chain].deg2rad()
        twist = axis_angle_matrix(axes[..., TWIST, :], angle[..., TWIST])
        return twist @ axis_angle_matrix(axes[..., ABDUCTION, :], angle[..., ABDUCTION])

    def _joints(self, rest: Tensor, frames: Tensor, flexion_deg: Tensor) -> Tensor:
        """Joints [N,5,4,3] of the five fingers, from the palm to the tip."""
        N = len(rest)
        points = rest[:, 1:].view(N, 5, 4, 3)
        axes = self.arm.axes[self.chain][..., FLEXION, :]
        turns = frames @ axis_angle_matrix(axes, flexion_deg.deg2rad())
        turn, position = turns[:, :, 0], points[:, :, 0]
        joints = [position]
        for i in range(3):
            if i:
                turn = turn @ turns[:, :, i]
            bone = points[:, :, i + 1] - points[:, :, i]
            position = position + (turn @ bone[..., None])[..., 0]
            joints.append(position)
        return torch.stack(joints, 2)

    def _lay(self, things: Things, pinches: Tensor, joints: Tensor, sampler: Sampler) -> Placement:
        """Against the palm, axis across it; or against the thumb's pad."""
        N, device = len(pinches), pinches.device
        x, y, z = torch.eye(3, device=device)
        tilt = sampler.normal(0.22, N, 2)
        axis = y + tilt[:, :1] * x + 0.4 * tilt[:, 1:] * z
        axis = axis * torch.where(sampler.coin(0.5, N, 1), 1.0, -1.0)
        flat = -z.expand(N, 3)  # the thing's depth faces the palm
        across = frame_matrix(axis, flat)
        power = torch.stack([across[..., 2], across[..., 1], across[..., 0]], -1)
        power[..., 0] *= -1  # columns x, y, z of the thing, right-handed
        knuckles = joints[:, 1:, 0].mean(1)
        thick = things.half_m[:, 1] + PALM_DEPTH_M
        slide = sampler.normal(0.2, N, 1) * things.half_m[:, 2:] * ~things.is_ball[:, None]
        back = 0.3 * things.half_m[:, 0].clamp(max=0.02) + 0.004
        centre = knuckles - thick[:, None] * z - back[:, None] * x
        centre = centre + slide * power[..., 2]
        thumb_tip, thumb_ip = joints[:, 0, 3], joints[:, 0, 2]
        index_knuckle = joints[:, 1, 0]
        pad = 0.6 * thumb_tip + 0.4 * thumb_ip
        bone = normalize(thumb_tip - thumb_ip, dim=-1)
        aim = knuckles + joints.new_tensor([0.075, 0.012, -0.045]) - pad
        inwards = normalize(aim - (aim * bone).sum(-1, keepdim=True) * bone, dim=-1)
        depth = self.radii[0, 2] + things.half_m[:, 1] + 0.0005
        meeting = pad + depth[:, None] * inwards
        towards = index_knuckle + joints.new_tensor([0.0, 0.012, 0.012]) - meeting
        long_axis = normalize(
            towards - (towards * inwards).sum(-1, keepdim=True) * inwards, dim=-1
        )
        held = frame_matrix(long_axis, inwards)
        pinched = torch.stack([held[..., 2], held[..., 1], held[..., 0]], -1)
        pinched[..., 0] *= -1
        out = torch.where(things.half_m[:, 2:] > 0.05, 0.55 * things.half_m[:, 2:], 0.0)
        meeting = meeting + out * long_axis
        choose = pinches[:, None]
        return Placement(
            torch.where(choose[..., None], pinched, power), torch.where(choose, meeting, centre)
        )

    def _close(
        self,
        things: Things,
        placement: Placement,
        rest: Tensor,
        frames: Tensor,
        flexion: Tensor,
        closed: Tensor,
        fixed: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Flexion [N,5,3] at contact, and which fingers touch [N,5]."""
        N = len(rest)
        pace = flexion.new_tensor(PACE)
        points = rest[:, 1:].view(N, 5, 4, 3)
        bones = (points[:, :, 1:] - points[:, :, :-1]).norm(dim=-1)  # [N,5,3]
        # Farthest point of phalanx j from joint k, an upper bound of its lever.
        reach = torch.cumsum(bones, -1)
        lever = (reach[:, :, None] - (reach - bones)[..., None]).clamp(min=0)  # [N,5,k,j]
        radius = self.radii[..., None]
        share = flexion.new_tensor(SAMPLES)
        clearance = flexion.new_zeros(N, 5, 3)
        for _ in range(STEPS):
            joints = self._joints(rest, frames, flexion)
            start, end = joints[:, :, :-1, None], joints[:, :, 1:, None]
            samples = (start + share[:, None] * (end - start)).flatten(1, 3)
            local = (samples - placement.offset_m[:, None]) @ placement.linear
            distance = things.distance(local).view(N, 5, 3, len(SAMPLES))
            clearance = (distance - radius).amin(-1)
            free = clearance > TOUCH_M
            ahead = free & free.flip(2).cummin(2).values.flip(2)  # nothing farther out touches
            moving = (ahead & (flexion < closed) & ~fixed[..., None]) * pace
            swept = torch.einsum('nfk,nfkj->nfj', moving, lever).clamp(min=1e-6)
            step = ((clearance - 0.5 * TOUCH_M).clamp(min=0) / swept).where(free, 1e3).amin(-1)
            step = step.clamp(max=0.35)[..., None].rad2deg()
            flexion = torch.minimum(flexion + moving * step, torch.maximum(closed, flexion))
        return flexion, (clearance < 3 * TOUCH_M).any(-1)
