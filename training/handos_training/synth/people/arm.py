"""The right arm at full resolution, in the hand's own frame; it contains the hand model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from handos_model.hand.model import HandModel, decode_units
from handos_model.hand.pose_limits import WRIST
from handos_training.synth.people.pose import CHAINS, rotations_from_angles
from handos_training.synth.render.surface import blend_skin
from handos_training.synth.sampling import axis_angle_matrix

FOREARM_TWIST, FOREARM, UPPER_ARM = 16, 17, 18
SKIN, NAIL, PALM = 0, 1, 2  # of `region`


@dataclass
class ArmPose:
    """N arms. Angles in degrees; the elbow's is on top of the rest pose's slight bend."""

    betas: Tensor  # [N,10]
    scale: Tensor  # [N]
    angles_deg: Tensor  # [N,16,3]; the wrist's row turns the hand against the forearm
    pronation_deg: Tensor  # [N], how far the wrist is twisted against the elbow
    elbow_deg: Tensor  # [N]

    def __getitem__(self, rows: slice) -> ArmPose:
        return ArmPose(
            self.betas[rows],
            self.scale[rows],
            self.angles_deg[rows],
            self.pronation_deg[rows],
            self.elbow_deg[rows],
        )


@dataclass
class PosedArms:
    """N arms in their hands' own frames (origin at the wrist), metres."""

    vertices_m: Tensor  # [N,V,3]
    hand_vertices_m: Tensor  # [N,778,3]
    joints_m: Tensor  # [N,21,3]
    elbow_m: Tensor  # [N,3]
    shoulder_m: Tensor  # [N,3]


class ArmModel:
    """Shape, pose blend shapes and linear blend skinning of the arm in assets/arm.npz."""

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        with (files('handos_training.synth') / 'assets' / 'arm.npz').open('rb') as file:
            arrays = decode_units(dict(np.load(file, allow_pickle=False)))
        hand = HandModel.embedded()

        def tensor(value: object) -> Tensor:
            return torch.tensor(np.asarray(value), dtype=torch.float32, device=device)

        def index(value: object) -> Tensor:
            return torch.tensor(np.asarray(value).astype(np.int64), device=device)

        self.v_template = tensor(arrays['v_template'])  # [V,3]
        self.shapedirs = tensor(arrays['shapedirs'])  # [V,3,10]
        self.posedirs = tensor(arrays['posedirs']).flatten(0, 1).T.contiguous()  # [162,3V]
        self.weights = tensor(arrays['skinning_weights'])  # [V,19]
        self.faces = index(arrays['faces'])  # [F,3]
        self.region = index(arrays['region'])  # [V]
        self.is_nail_face = torch.tensor(arrays['is_nail_face'], device=device)  # [F]
        self.is_hand = torch.tensor(arrays['is_hand'], device=device)  # [V]
        self.template_indices = index(arrays['template_indices'])  # [778]
        self.parents = [int(p) for p in arrays['parents']]
        self.hand_faces = index(hand.faces)  # [1538,3]
        self.joint_regressor = tensor(hand.joint_regressor)  # [16,778]
        self.joint_regressor_21 = tensor(hand.joint_regressor_21)  # [21,778]
        self.axes = tensor(hand.rotation_axes)  # [16,3,3]
        self.arm_joints = tensor(arrays['arm_joints'])  # [3,3]
        self.arm_joint_dirs = tensor(arrays['arm_joint_dirs'])  # [3,3,10]
        self.face_bone = self._face_bones()  # [F], -1 beyond the hand
        self.along_arm = self._along_arm()  # [V]

    def rest(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Shaped vertices [N,V,3] and the 19 pivots [N,19,3]."""
        vertices = self.v_template + torch.einsum('vcs,ns->nvc', self.shapedirs, betas)
        hand = self.joint_regressor @ vertices[:, self.template_indices]
        arm = self.arm_joints + torch.einsum('jcs,ns->njc', self.arm_joint_dirs, betas)
        return vertices, torch.cat([hand, arm], 1)

    def pose(self, pose: ArmPose) -> PosedArms:
        vertices, pivots = self.rest(pose.betas)
        N, V = vertices.shape[:2]
        twist, elbow = self._arm_turns(pivots, pose.pronation_deg, pose.elbow_deg)
        still = torch.eye(3, device=vertices.device).expand(N, 1, 3, 3)
        turns = torch.cat(
            [
                rotations_from_angles(pose.angles_deg, self.axes),
                twist[:, None],
                elbow[:, None],
                still,
            ],
            1,
        )
        bend = (turns[:, :UPPER_ARM] - torch.eye(3, device=vertices.device)).flatten(1)
        vertices = vertices + (bend @ self.posedirs).view(N, V, 3)
        rotations, offsets = self._chain(turns, pivots)
        # Seen from the hand: undo the wrist's own transform.
        root, root_offset = rotations[:, :1], offsets[:, :1]
        offsets = ((offsets - root_offset)[:, :, None] @ root)[:, :, 0]
        rotations = root.transpose(2, 3) @ rotations
        bones = torch.cat([rotations, offsets[..., None]], -1)
        posed = blend_skin(vertices, bones, self.weights) * pose.scale[:, None, None]
        hand = posed[:, self.template_indices]

        def carried(joint: int) -> Tensor:
            moved = rotations[:, joint] @ pivots[:, joint, :, None]
            return (moved[..., 0] + offsets[:, joint]) * pose.scale[:, None]

        joints = self.joint_regressor_21 @ hand
        return PosedArms(posed, hand, joints, carried(FOREARM), carried(UPPER_ARM))

    def hand_joints(self, angles_deg: Tensor) -> Tensor:
        """The 21 joints [N,21,3] of the mean hand in its own frame, without its skin."""
        hand = self.v_template[self.template_indices]
        pivots, tips = self.joint_regressor @ hand, (self.joint_regressor_21 @ hand)[4::4]
        turns = rotations_from_angles(angles_deg, self.axes)
        still = torch.eye(3, device=hand.device).expand(len(turns), 3, 3)
        joints = [pivots[WRIST].expand(len(turns), 3)]
        for tip, first in zip(tips, CHAINS, strict=True):
            parent, position = still, pivots[first].expand(len(turns), 3)
            rest = [*pivots[first : first + 3], tip]
            joints.append(position)
            for i in range(3):
                parent = parent @ turns[:, first + i]
                position = position + parent @ (rest[i + 1] - rest[i])
                joints.append(position)
        return torch.stack(joints, 1)

    def segment_lengths(self, pivots: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths [N] of upper arm and forearm at scale 1, from pivots [N,19,3]."""
        elbow = pivots[:, FOREARM]
        upper = (elbow - pivots[:, UPPER_ARM]).norm(dim=-1)
        return upper, (pivots[:, WRIST] - elbow).norm(dim=-1)

    def rest_elbow_deg(self, pivots: Tensor) -> Tensor:
        """Inner angles [N] of the elbow at rest."""
        upper = pivots[:, UPPER_ARM] - pivots[:, FOREARM]
        lower = pivots[:, WRIST] - pivots[:, FOREARM]
        cosine = torch.nn.functional.cosine_similarity(upper, lower, dim=-1)
        return cosine.acos().rad2deg()

    def elbow_and_shoulder(
        self, pivots: Tensor, wrist_deg: Tensor, pronation_deg: Tensor, elbow_deg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both joints [N,3] in the hand's frame at scale 1; `wrist_deg` [N,2]."""
        angles = torch.zeros(len(pivots), 1, 3, device=pivots.device)
        angles[:, 0, :2] = wrist_deg
        wrist = rotations_from_angles(angles, self.axes[:1])[:, 0]
        twist, bend = self._arm_turns(pivots, pronation_deg, elbow_deg)
        # From the hand outwards: undo the wrist's turn, then the twist, then the elbow's.
        origin = pivots[:, WRIST]

        def back(point: Tensor, turn: Tensor, pivot: Tensor) -> Tensor:
            return (turn.transpose(1, 2) @ (point - pivot)[..., None])[..., 0] + pivot

        elbow = back(back(pivots[:, FOREARM], twist, pivots[:, FOREARM_TWIST]), wrist, origin)
        shoulder = back(pivots[:, UPPER_ARM], bend, pivots[:, FOREARM])
        shoulder = back(back(shoulder, twist, pivots[:, FOREARM_TWIST]), wrist, origin)
        return elbow - origin, shoulder - origin

    def length(self, pivots: Tensor) -> Tensor:
        """From shoulder over elbow to wrist [N], at scale 1."""
        upper, lower = self.segment_lengths(pivots)
        return upper + lower

    def _arm_turns(
        self, pivots: Tensor, pronation_deg: Tensor, elbow_deg: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rotations [N,3,3] of the forearm's twist and of the elbow."""
        forearm = torch.nn.functional.normalize(pivots[:, WRIST] - pivots[:, FOREARM], dim=-1)
        axis = torch.linalg.cross(pivots[:, FOREARM] - pivots[:, UPPER_ARM], forearm)
        axis = torch.nn.functional.normalize(axis, dim=-1)
        twist = axis_angle_matrix(forearm, pronation_deg.deg2rad())
        return twist, axis_angle_matrix(axis, elbow_deg.deg2rad())

    def _chain(self, turns: Tensor, pivots: Tensor) -> tuple[Tensor, Tensor]:
        """World rotations [N,19,3,3] and offsets [N,19,3] of the kinematic tree."""
        world: dict[int, tuple[Tensor, Tensor]] = {}

        def transform(joint: int) -> tuple[Tensor, Tensor]:
            if joint not in world:
                turn, pivot = turns[:, joint], pivots[:, joint, :, None]
                if self.parents[joint] < 0:
                    world[joint] = turn, pivot - turn @ pivot
                else:
                    parent, offset = transform(self.parents[joint])
                    world[joint] = parent @ turn, parent @ (pivot - turn @ pivot) + offset
            return world[joint]

        chain = [transform(joint) for joint in range(len(self.parents))]
        return torch.stack([r for r, _ in chain], 1), torch.stack([t[..., 0] for _, t in chain], 1)

    def _face_bones(self) -> Tensor:
        """The bone that moves a face most, for the faces inside the wrist's loop; else -1."""
        bones = self.weights[self.faces].sum(1)[:, :16].argmax(1)
        return torch.where(self.is_hand[self.faces].all(1), bones, -1)

    def _along_arm(self) -> Tensor:
        """Where a vertex lies: 0 at the wrist (and on the hand below it), 1 elbow, 2 shoulder."""
        elbow, shoulder = self.arm_joints[FOREARM - 16], self.arm_joints[UPPER_ARM - 16]
        lower = (self.v_template @ elbow) / (elbow @ elbow)
        upper = shoulder - elbow
        higher = ((self.v_template - elbow) @ upper) / (upper @ upper)
        share = self.weights[:, UPPER_ARM] / (self.weights[:, FOREARM_TWIST:].sum(1) + 1e-6)
        return torch.where(share > 0.5, 1 + higher, lower)
