"""The network's configuration: frozen, validated, and the whole of `config.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from handos_model.errors import UserError

DetectorFamily: TypeAlias = Literal['d_fine', 'rt_detr_v2', 'grounding_dino']
AttentionStrategy: TypeAlias = Literal['independent', 'unidirectional', 'hierarchical', 'full']
Sampling: TypeAlias = Literal['grid_sample', 'gather']
VERTEX_TOKENS = (778, 195, 98)


@dataclass(frozen=True)
class ScoreConfig:
    """The chance of a hand: sigmoid(tokens * t + queries * q + offset).

    t and q are the logits of `detectors/scores.py`; fitted by `tools/calibrate_scores.py`.
    """

    tokens: float = 1.0
    queries: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.tokens > 0 and self.queries >= 0):
            raise UserError(
                f'detector.score: tokens={self.tokens} must be positive and '
                f'queries={self.queries} not negative, or surer hands would score less'
            )


@dataclass(frozen=True)
class DetectorConfig:
    """Which detector, and where its weights are.

    With `reference` (a hub id or a local folder in transformers' layout) the weights stay there;
    without it `model` holds the keyword arguments of the family's transformers config and the
    weights travel inside `model.safetensors`.
    """

    family: DetectorFamily = 'd_fine'
    reference: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    hand_label: int = 0  # class index of "hand" in the logits
    prompt: str = 'hand.'  # Grounding DINO only
    memory_layer: int | None = None  # encoder layer of F_e, None = the last (F6); 4 is the
    # paper's ablation, Grounding DINO only
    slim: bool = True  # Grounding DINO only: folded text, re-associated fusion (exact)
    score: ScoreConfig | None = None  # None: the queries' own; not for Grounding DINO

    def __post_init__(self) -> None:
        _check_choice('detector.family', self.family, DetectorFamily)
        if isinstance(self.score, dict):  # as config.json has it
            object.__setattr__(self, 'score', _build(ScoreConfig, 'detector.score', self.score))
        if self.score is not None and self.family == 'grounding_dino':
            raise UserError('detector.score needs d_fine or rt_detr_v2, which score their tokens')
        if self.memory_layer is not None and self.family != 'grounding_dino':
            raise UserError(
                f'detector.memory_layer={self.memory_layer} needs family grounding_dino, whose '
                f'encoder has 6 layers; {self.family} has one output: remove it'
            )


@dataclass(frozen=True)
class SideTuningConfig:
    """Learnable convolutions on the backbone maps: F_s, joined to F_e (paper, section VI.1)."""

    # The detector's frozen backbone (the paper), a Swin-T from scratch (its Table 6), or no F_s.
    source: Literal['backbone', 'swin_tiny', 'none'] = 'backbone'
    combine: Literal['concat', 'add'] = 'concat'
    width: int = 256  # channels of F_s; with `add` they are the detector's d
    hidden: int | None = None  # bottleneck 1x1 -> 3x3 -> 1x1 of this width; None = three 3x3

    def __post_init__(self) -> None:
        _check_choice('side_tuning.source', self.source, Literal['backbone', 'swin_tiny', 'none'])
        _check_choice('side_tuning.combine', self.combine, Literal['concat', 'add'])
        _check_positive('side_tuning', width=self.width, hidden=self.hidden or 1)


@dataclass(frozen=True)
class DecoderConfig:
    """The interactive 2D-3D decoder (paper, section 3.3)."""

    dim: int = 256
    heads: int = 8
    points: int = 4
    ffn_dim: int = 2048
    layers_2d: int = 2
    layers_3d: int = 4
    vertex_tokens: int = 778
    attention: AttentionStrategy = 'hierarchical'  # Fig. 8 (a) to (d), in the order of the type
    queries: Literal['instance', 'unified'] = 'instance'  # Q_inst or Q_uni (Table 6)
    # Where the joints' references start: told by the query (the paper), or read off joint maps.
    start: Literal['query', 'maps'] = 'query'
    # What tells left from right: the mesh's normals alone (the paper), or the query's opinion too.
    side: Literal['normals', 'query'] = 'normals'
    stage: Literal['2d', 'full'] = 'full'  # '2d': all layers are 2D layers, no mesh (VI.2)
    sampling: Sampling = 'grid_sample'

    def __post_init__(self) -> None:
        _check_choice('decoder.attention', self.attention, AttentionStrategy)
        _check_choice('decoder.queries', self.queries, Literal['instance', 'unified'])
        _check_choice('decoder.start', self.start, Literal['query', 'maps'])
        _check_choice('decoder.side', self.side, Literal['normals', 'query'])
        _check_choice('decoder.stage', self.stage, Literal['2d', 'full'])
        _check_choice('decoder.sampling', self.sampling, Sampling)
        _check_positive(
            'decoder', dim=self.dim, heads=self.heads, points=self.points, ffn_dim=self.ffn_dim,
            layers_2d=self.layers_2d, layers_3d=self.layers_3d,
        )  # fmt: skip
        if self.dim % self.heads:
            raise UserError(f'decoder.dim={self.dim} must be a multiple of heads={self.heads}')
        if self.vertex_tokens not in VERTEX_TOKENS:
            raise UserError(
                f'decoder.vertex_tokens={self.vertex_tokens} must be one of {VERTEX_TOKENS}'
            )

    @property
    def num_layers(self) -> int:
        return self.layers_2d + self.layers_3d


@dataclass(frozen=True)
class HandOSConfig:
    """Everything that shapes the network; `template_hash` names the hand it was built for."""

    name: str = 'custom'
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    side_tuning: SideTuningConfig = field(default_factory=SideTuningConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    input_size_hw: tuple[int, int] = (480, 640)
    # Images are scaled to this long edge at their own aspect, where the backend takes any size
    # (torch); exported graphs are of `input_size_hw`. None: always `input_size_hw`.
    long_edge: int | None = None
    template_hash: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'input_size_hw', tuple(self.input_size_hw))
        if not isinstance(self.name, str):
            raise UserError(f'name={self.name!r} must be text')
        step = self.size_step
        if len(self.input_size_hw) != 2 or any(s <= 0 or s % step for s in self.input_size_hw):
            raise UserError(
                f'input_size_hw={self.input_size_hw} must be two positive multiples of {step} '
                f'for the detector family {self.detector.family}'
            )

    @property
    def size_step(self) -> int:
        """Sides of the input are multiples of this."""
        # Swin pads its maps; the two others upsample theirs by two and need them to fit.
        return 8 if self.detector.family == 'grounding_dino' else 32

    def size_for(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """The input's size for an image: with `long_edge` less than a step of padding a side."""
        if self.long_edge is None:
            return self.input_size_hw
        scale, step = self.long_edge / max(image_hw), self.size_step
        height, width = (max(step, -(-round(side * scale) // step) * step) for side in image_hw)
        return height, width

    @classmethod
    def nano(cls, **changes: Any) -> HandOSConfig:
        """Two CPU cores: our own D-FINE with strides 8, 16, 32 at d=128, four decoder layers."""
        config = cls(
            name='nano',
            detector=DetectorConfig(family='d_fine', model=_nano_d_fine()),
            side_tuning=SideTuningConfig(combine='add', width=128, hidden=64),
            decoder=DecoderConfig(
                dim=128,
                heads=8,
                ffn_dim=512,
                layers_3d=2,
                vertex_tokens=98,
                start='maps',
                side='query',
            ),
            input_size_hw=(480, 640),
        )
        return replace(config, **changes)

    @classmethod
    def base(cls, **changes: Any) -> HandOSConfig:
        """An embedded GPU: RT-DETRv2-R18, d=256, 195 vertex tokens."""
        config = cls(
            name='base',
            detector=DetectorConfig(family='rt_detr_v2', reference='PekingU/rtdetr_v2_r18vd'),
            side_tuning=SideTuningConfig(combine='add', width=256, hidden=128),
            decoder=DecoderConfig(ffn_dim=1024, vertex_tokens=195),
            input_size_hw=(640, 640),
        )
        return replace(config, **changes)

    @classmethod
    def paper(cls, **changes: Any) -> HandOSConfig:
        """The paper's network on the open Grounding DINO tiny: 778 tokens, F_GD concatenated."""
        config = cls(
            name='paper',
            detector=DetectorConfig(
                family='grounding_dino', reference='IDEA-Research/grounding-dino-tiny'
            ),
            input_size_hw=(720, 1280),
            long_edge=1280,
        )
        return replace(config, **changes)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + '\n'

    @classmethod
    def from_json(cls, text: str) -> HandOSConfig:
        """Parse `config.json`; an unknown or malformed field is named in a UserError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # numbers too long, brackets too deep
            raise UserError(f'config.json is not JSON: {error}') from error
        parts = {
            'detector': DetectorConfig,
            'side_tuning': SideTuningConfig,
            'decoder': DecoderConfig,
        }
        if not isinstance(values, dict):
            raise UserError('config.json must hold one object')
        for name, part in parts.items():
            if name in values:
                values[name] = _build(part, name, values[name])
        return _build(cls, 'config.json', values)  # type: ignore[no-any-return]


def _nano_d_fine() -> dict[str, Any]:
    """Keyword arguments of transformers' DFineConfig; the backbone is our EfficientNet-Lite0."""
    return {
        'backbone_config': {'model_type': 'efficientnet_lite', 'variant': 0},
        'feat_strides': [8, 16, 32],
        'encoder_hidden_dim': 128,
        'encoder_ffn_dim': 512,
        'encode_proj_layers': [2],
        'hidden_expansion': 0.5,
        'depth_mult': 0.34,
        'd_model': 128,
        'decoder_in_channels': [128, 128, 128],
        'decoder_ffn_dim': 512,
        'decoder_layers': 3,
        'decoder_n_points': [4, 4, 4],
        'num_queries': 60,
        'num_denoising': 10,
        'num_labels': 1,
    }


def _build(kind: type[Any], where: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise UserError(f'{where} must be one object')
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise UserError(
            f'{where} has unknown fields {sorted(unknown)}: the weights are of another version '
            'of handos-ros; update it, or correct the file'
        )
    try:
        return kind(**values)
    except (TypeError, ValueError, AttributeError) as error:  # a field of another type
        raise UserError(f'{where} is malformed: {error}') from None


def _check_choice(name: str, value: object, kind: Any) -> None:
    choices = get_args(kind)
    if value not in choices:
        raise UserError(f'{name}={value!r} must be one of {", ".join(map(str, choices))}')


def _check_positive(where: str, **values: int) -> None:
    for name, value in values.items():
        if value <= 0:
            raise UserError(f'{where}.{name}={value} must be positive')
