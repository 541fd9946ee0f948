"""Clothes, hair and faces of people: which layers are drawn, how thick, in which colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_training.synth.people.body import (
    EYE,
    EYES,
    FOREARM,
    GLASSES,
    HAIR,
    LEFT,
    LONG_HAIR,
    RIGHT,
    SHOE,
    SKIN,
    SUIT,
    UPPER_ARM,
    WRIST,
    BodyModel,
    PosedBodies,
)
from handos_training.synth.people.placement import Placement
from handos_training.synth.render.mesh import Material, SceneMesh, concatenate
from handos_training.synth.render.surface import (
    Smoother,
    cloth_colours,
    instances,
    lab_to_linear_rgb,
    vertex_normals,
)
from handos_training.synth.sampling import Sampler

TRUNK = 9.0  # of `along_sleeve`, where there is no arm
BALD, SHORT, LONG = range(3)
HAIR_COLOURS = (
    (0.012, 0.010, 0.009), (0.030, 0.018, 0.012), (0.070, 0.037, 0.020), (0.16, 0.085, 0.040),
    (0.26, 0.17, 0.085), (0.16, 0.055, 0.022), (0.20, 0.19, 0.18),
)  # fmt: skip


@dataclass
class Outfits:
    """What P people wear."""

    cuff: Tensor  # [P] on the arm's scale: 0 wrist, 1 elbow, 2 shoulder
    neckline_m: Tensor  # [P] radius around the neck's base
    neck_depth: Tensor  # [P] how far the collar opens in front (V-neck)
    thickness_m: Tensor  # [P]
    shirt: Tensor  # [P,3] linear colours
    trousers: Tensor  # [P,3]
    shoes: Tensor  # [P,3]
    hair: Tensor  # [P,3]
    hair_style: Tensor  # [P] BALD, SHORT, LONG
    hair_m: Tensor  # [P] thickness
    beard: Tensor  # [P] in [0,1]
    brows: Tensor  # [P] in [0,1]
    iris: Tensor  # [P,3]
    glasses: Tensor  # [P] bool
    headless: Tensor  # [P] bool: seen through their own eyes

    @classmethod
    def sample(cls, count: int, headless: Tensor, sampler: Sampler) -> Outfits:
        P, device = count, headless.device
        long, short = sampler.uniform(-0.1, 0.14, P), sampler.uniform(1.15, 1.6, P)
        kind = sampler.choice((0.55, 0.35, 0.10), P)
        cuff = torch.where(
            kind == 0, long, torch.where(kind == 1, short, sampler.uniform(0.3, 1, P))
        )
        colours = torch.tensor(HAIR_COLOURS, device=device)
        hair = colours[sampler.choice((4, 4, 3, 1.5, 1.2, 0.5, 0.8), P)]
        brown = lab_to_linear_rgb(
            torch.stack(
                [sampler.uniform(10, 50, P), sampler.normal(6, P), sampler.normal(12, P)], -1
            )
        )
        return cls(
            cuff=cuff,
            neckline_m=sampler.uniform(0.085, 0.125, P),
            neck_depth=torch.where(sampler.coin(0.3, P), sampler.uniform(0.2, 0.7, P), 0.0),
            thickness_m=sampler.uniform(0.007, 0.018, P),
            shirt=cloth_colours(P, sampler),
            trousers=cloth_colours(P, sampler),
            shoes=cloth_colours(P, sampler) * 0.6,
            hair=hair * sampler.uniform(0.7, 1.3, P, 1),
            hair_style=sampler.choice((0.07, 0.53, 0.4), P),
            hair_m=sampler.log_uniform(0.004, 0.03, P),
            beard=sampler.uniform(0.2, 0.9, P) * sampler.coin(0.2, P),
            brows=sampler.uniform(0.3, 0.9, P),
            iris=brown,
            glasses=sampler.coin(0.25, P),
            headless=headless,
        )


class Dresser:
    """Draws posed bodies; places on the body are found once on the rest pose."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        v, joints = body.v_template, body.joints
        self.is_suit = body.layer == SUIT
        along = torch.full((len(v),), TRUNK, device=v.device)
        for side in (RIGHT, LEFT):
            shoulder, elbow, wrist = (joints[j + side] for j in (UPPER_ARM, FOREARM, WRIST))

            def share(start: Tensor, end: Tensor) -> Tensor:
                return ((v - start) @ (end - start)) / (end - start).square().sum()

            on_arm = body.weights[:, [UPPER_ARM + side, FOREARM + side]].sum(1) > 0.55
            lower = share(elbow, wrist)
            t = torch.where(lower > 0, 1 - lower, 2 - share(shoulder, elbow))
            along = torch.where(on_arm & self.is_suit, t.clamp(max=2), along)
        self.along_sleeve = along  # [V]
        # From the collar outwards, less where a V opens in front.
        self.collar_m = (v - v.new_tensor([0, 0.012, -0.012])).norm(dim=1)
        self.front = (v[:, 1] < 0.02) * (-(v[:, 0] / 0.055).square()).exp() * (v[:, 2] < 0)
        self.waist = v[:, 2] < -0.56
        self.chest_skin = (body.layer == SKIN) & (v[:, 2] < -0.035)
        eyes = joints[EYES : EYES + 2]
        middle = eyes.mean(0)
        x, y, z = (v - middle).unbind(1)
        skin = body.layer == SKIN
        arch = (
            0.021
            + 0.10 * (x.abs() - 0.02).clamp(0, 0.03)
            - 4 * (x.abs() - 0.035).clamp(min=0) ** 2
        )
        self.brow = skin * (-((z - arch) / 0.0045).square()).exp() * (y < 0.02)
        self.brow = self.brow * ((x.abs() > 0.011) & (x.abs() < 0.052))
        jaw = (z < -0.058) & (y < 0.055) & (z > -0.135)
        moustache = (z < -0.045) & (z > -0.062) & (x.abs() < 0.03)
        self.beard = (skin & (jaw | moustache)) * (1 - body.lips).clamp(0, 1) * (x.abs() < 0.075)
        cheeks = torch.stack([v.new_tensor([s * 0.04, -0.02, -0.035]) for s in (-1, 1)]) + middle
        nose = middle + v.new_tensor([0, -0.05, -0.035])
        spots = torch.cat([cheeks, nose[None]])
        self.blush = (-torch.cdist(v, spots).square() / (2 * 0.018**2)).exp().amax(1)
        ball = torch.cdist(v, eyes)
        gaze = normalize(v - eyes[ball.argmin(1)], dim=1)
        self.iris = ((body.layer == EYE) & (-gaze[:, 1] > 0.87)).float()
        self.pupil = ((body.layer == EYE) & (-gaze[:, 1] > 0.965)).float()
        self.cloth_faces = body.faces[(body.face_layer == SUIT) | (body.face_layer == HAIR)]
        self.smooth_suit = Smoother(body.faces[body.face_layer == SUIT], len(v))
        self.smooth_hair = Smoother(body.faces[body.face_layer == HAIR], len(v))
        self.material = torch.full_like(body.layer, int(Material.SKIN))
        for layer, material in (
            (EYE, Material.EYE),
            (SUIT, Material.CLOTH),
            (SHOE, Material.CLOTH),
            (HAIR, Material.HAIR),
            (LONG_HAIR, Material.HAIR),
            (GLASSES, Material.RIGID),
        ):
            self.material[body.layer == layer] = int(material)

    def __call__(
        self,
        bodies: PosedBodies,
        outfits: Outfits,
        tones: Tensor,
        view: Placement,
        image: Tensor,
        sampler: Sampler,
    ) -> SceneMesh:
        """P people in the camera's frame; `tones` [P,3] are their linear skin colours."""
        body = self.body
        posed = view(body.skin(bodies))
        posed = self._loosened(posed, outfits, sampler)
        inside = self._inside_cloth(outfits)
        posed = self._trimmed(posed, inside)
        normals = vertex_normals(posed, body.faces)
        albedo = self._colours(outfits, tones)
        gloss = torch.where(
            body.layer == GLASSES, 0.4, torch.where(body.layer == SKIN, 0.25, 0.05)
        )
        gloss = gloss.expand(len(image), -1)
        keep = self._keep(outfits, inside)
        below = self.waist[body.faces].all(1)[None] & (body.face_layer == SUIT)
        material, rest = self.material, body.v_template

        def part(which: Tensor, colours: Tensor) -> SceneMesh:
            shown = keep & which
            return instances(
                posed, normals, colours, rest, material, gloss, body.faces, image, keep=shown
            )

        trousers = outfits.trousers[:, None].expand_as(albedo)
        return concatenate([part(~below, albedo), part(below, trousers)])

    def _loosened(self, posed: Tensor, outfits: Outfits, sampler: Sampler) -> Tensor:
        """Cloth and hair lifted off the skin; cloth spans what is hollow beneath it."""
        P, layer = len(posed), self.body.layer
        along = self.along_sleeve
        hem = ((along - outfits.cuff[:, None]) / 0.12).clamp(0.25, 1)
        waist = torch.where(self.waist, 0.55, 1.0)
        cloth = outfits.thickness_m[:, None] * hem * waist * self.is_suit
        cloth = cloth + 0.008 * (layer == SHOE)
        rest = self.body.v_template
        wave = (rest @ sampler.normal(45, P, 3, 1))[..., 0].sin() * (
            rest @ sampler.normal(60, P, 3, 1)
        )[..., 0].cos()
        hair = outfits.hair_m[:, None] * (layer == HAIR) * (1 + 0.35 * wave)
        hair = hair.clamp(min=0.002) * (layer == HAIR)
        posed = self.smooth_suit(posed, 3)
        normals = vertex_normals(posed, self.cloth_faces)
        posed = posed + normals * (cloth * (1 + 0.25 * wave) + hair)[..., None]
        return self.smooth_hair(posed, 1)

    def _colours(self, outfits: Outfits, tones: Tensor) -> Tensor:
        """Linear albedo [P,V,3]."""
        layer = self.body.layer
        P, V = len(tones), len(layer)
        tone = tones[:, None]

        def towards(base: Tensor, colour: Tensor, share: Tensor) -> Tensor:
            return base + share[..., None] * (colour - base)

        red = tone.new_tensor([1.08, 0.82, 0.82])
        skin = towards(tone.expand(P, V, 3), tone * red, 0.8 * self.blush)
        skin = towards(skin, tone * tone.new_tensor([0.95, 0.55, 0.60]), self.body.lips)
        hair = outfits.hair[:, None]
        skin = towards(skin, 0.6 * hair + 0.1 * tone, outfits.brows[:, None] * self.brow)
        skin = towards(skin, 0.8 * hair + 0.2 * tone, outfits.beard[:, None] * self.beard)
        white = tone.new_tensor([0.75, 0.72, 0.70]).expand(P, V, 3)
        eye = towards(white, outfits.iris[:, None], self.iris)
        eye = towards(eye, tone.new_tensor([0.01, 0.01, 0.01]), self.pupil)
        plain = torch.stack(
            [tones, tones, outfits.shirt, outfits.shoes, outfits.hair, outfits.hair,
             outfits.shoes * 0.3], 1
        )  # fmt: skip
        cloth_and_hair = torch.where((layer == EYE)[:, None], eye, plain[:, layer])
        albedo: Tensor = torch.where((layer == SKIN)[:, None], skin, cloth_and_hair)
        return albedo.clamp(0.005, 0.9)

    def _collar(self, outfits: Outfits) -> Tensor:
        """How far [P,V] outside the neckline a vertex lies, in metres at rest."""
        collar = self.collar_m - self.front * 0.12 * outfits.neck_depth[:, None]
        outside: Tensor = collar - outfits.neckline_m[:, None]
        return outside

    def _inside_cloth(self, outfits: Outfits) -> Tensor:
        """Positive [P,V] where a suit's vertex is cloth, zero at collar and cuffs."""
        sleeve = (self.along_sleeve - outfits.cuff[:, None]) * 0.25  # about metres
        return torch.minimum(self._collar(outfits), sleeve)

    def _trimmed(self, posed: Tensor, inside: Tensor) -> Tensor:
        """Vertices just beyond a hem drawn back onto it, so that cloth ends in a line."""
        to, source = self.smooth_suit.to, self.smooth_suit.source
        scalar = inside.transpose(0, 1).contiguous()
        beyond, within = scalar.index_select(0, to), scalar.index_select(0, source)
        crossing = (beyond < 0) & (within >= 0)
        t = torch.where(crossing, beyond / (beyond - within), 0)
        points = posed.transpose(0, 1).contiguous()
        here, there = points.index_select(0, to), points.index_select(0, source)
        target = torch.lerp(here, there, t[..., None]) * crossing[..., None]
        total = torch.zeros_like(points).index_add_(0, to, target)
        count = torch.zeros_like(scalar).index_add_(0, to, crossing.float())[..., None]
        trimmed = torch.where(count > 0, total / count.clamp(min=1), points)
        return trimmed.transpose(0, 1)

    def _keep(self, outfits: Outfits, inside: Tensor) -> Tensor:
        """Which faces [P,F] are drawn."""
        faces, layer = self.body.faces, self.body.face_layer
        cloth = (inside >= 0)[:, faces].any(2)
        covered = self.chest_skin & (self._collar(outfits) > 0.05)
        style = outfits.hair_style[:, None]
        keep = ~((layer == SUIT) & ~cloth)
        keep &= ~((layer == SKIN) & covered[:, faces].all(2))
        keep &= ~((layer == HAIR) & (style == BALD))
        keep &= ~((layer == LONG_HAIR) & (style != LONG))
        keep &= ~((layer == GLASSES) & ~outfits.glasses[:, None])
        return keep & ~(outfits.headless[:, None] & (layer != SUIT) & (layer != SHOE))
