"""The node's parameters in one table: declaration, limits, validation and documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias, cast

from handos_model.backends.choice import BACKENDS
from handos_ros.messages.conversions import Limits

Value: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter; a `live` one acts at once, others when the node is configured."""

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    zero_is_unset: bool = False  # 0 is allowed below `minimum` and stands for "not known"

    def problem(self, value: Value) -> str:
        """Why the value is refused; empty where it is fine."""
        if type(value) is not type(self.default):
            wanted = type(self.default).__name__
            return f'{self.name} must be a {wanted}, got {value!r}'
        if isinstance(value, float) and not math.isfinite(value):
            return f'{self.name} must be a number, got {value}'
        if self.choices and value not in self.choices:
            return f'{self.name} must be one of {", ".join(self.choices)}, got {value!r}'
        if self.minimum is None or self.maximum is None or isinstance(value, str):
            return ''
        if self.zero_is_unset and value == 0:
            return ''
        if not self.minimum <= value <= self.maximum:
            return f'{self.name} must be in {self.range_text}, got {value}'
        return ''

    @property
    def range_text(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return ', '.join(f'`{choice}`' for choice in self.choices)
        if self.minimum is None or self.maximum is None:
            return ''
        limits = f'{self.minimum:g} to {self.maximum:g}'
        return f'0 or {limits}' if self.zero_is_unset else limits


def parameter(default: Value, description: str, **limits: Any) -> Any:
    """A field of `Settings` with its `ParameterSpec`, which takes its name from the field."""
    return field(default=default, metadata={'description': description, **limits})


@dataclass(frozen=True)
class Settings:
    """The table: names, types, defaults, limits and descriptions.

    A value that is refused raises ValueError.
    """

    model: str = parameter(
        'nano',
        'Weights: a name of the model zoo or a folder with model and config.',
    )
    mano: str = parameter(
        '',
        'MANO_RIGHT.pkl or its conversion, for weights that were trained on it; empty: the hand '
        'that ships.',
    )
    backend: str = parameter(
        'auto',
        'What runs the network. auto takes the fastest that works here and says why.',
        choices=('auto', *BACKENDS),
    )
    image_transport: str = parameter(
        'raw',
        'Whether `image` is subscribed as sensor_msgs/Image or, as `image/compressed`, as '
        'CompressedImage (JPEG or PNG).',
        choices=('raw', 'compressed'),
    )
    use_depth: bool = parameter(
        False,
        'Subscribe to `depth`, aligned to `image`, to refine scale.',
    )
    depth_tolerance_s: float = parameter(
        0.02,
        'Largest difference between the stamps of an image and its depth [s].',
        minimum=0.0,
        maximum=1.0,
    )
    score_threshold: float = parameter(
        0.3,
        'Detections below this confidence are not hands.',
        minimum=0.0,
        maximum=1.0,
    )
    max_hands: int = parameter(
        4,
        'At most so many hands an image.',
        minimum=1,
        maximum=16,
    )
    closer_look: bool = parameter(
        True,
        'Look at hands that are small in the image, or doubtful, a second time, enlarged: far '
        'better joints and a few more hands, for about half of the CPU time of an image each.',
    )
    follow: int = parameter(
        0,
        'Follow one or two hands in small windows about them, for half of the CPU time, and '
        'search the whole image for further hands only once in so many images; 0: every image '
        'whole, independent of the one before.',
        minimum=0,
        maximum=100,
    )
    hand_length_m: float = parameter(
        0.0,
        "Measured length of the user's hand from the wrist to the tip of the middle finger, held "
        'flat [m]; 0 where unknown.',
        minimum=0.08,
        maximum=0.3,
        zero_is_unset=True,
    )
    track: bool = parameter(
        True,
        'Follow hands over time: stable ids, smoothing, lost hands.',
    )
    publish_vertices: bool = parameter(
        True,
        'Fill vertices_m of the hands; false saves 9 kB a hand.',
        live=True,
    )
    publish_theta: bool = parameter(
        False,
        'Fit and publish the MANO pose of every hand.',
        live=True,
    )
    publish_tf: bool = parameter(
        True,
        'Broadcast the wrists as <camera>/hand_<id>.',
        live=True,
    )
    marker_lifetime_s: float = parameter(
        0.0,
        'Markers vanish so long after the last update [s]; 0 keeps them until the hand is lost.',
        minimum=0.0,
        maximum=60.0,
    )
    max_image_pixels: int = parameter(
        64_000_000,
        'Larger images are refused, compressed ones before they are decoded.',
        minimum=1,
        maximum=1_000_000_000,
    )
    max_compressed_bytes: int = parameter(
        64 * 1024 * 1024,
        'Larger compressed images are refused.',
        minimum=1,
        maximum=1_000_000_000,
    )
    stale_after_s: float = parameter(
        1.0,
        'Without an image for so long, hands are said lost and diagnostics say why [s].',
        minimum=0.1,
        maximum=60.0,
    )
    watchdog_s: float = parameter(
        2.0,
        'A backend that works on one image for longer hangs, and is replaced by a new one [s].',
        minimum=0.1,
        maximum=600.0,
    )
    diagnostics_period_s: float = parameter(
        0.5,
        'Time between two messages on /diagnostics [s].',
        minimum=0.05,
        maximum=1.0,
    )
    autostart: bool = parameter(
        True,
        'Configure and activate the node when it starts.',
    )

    def __post_init__(self) -> None:
        problems = find_problems(asdict(self))
        if problems:
            raise ValueError('; '.join(problems))

    @property
    def limits(self) -> Limits:
        return Limits(self.max_image_pixels, self.max_compressed_bytes)


PARAMETERS: tuple[ParameterSpec, ...] = tuple(
    ParameterSpec(entry.name, cast(Value, entry.default), **entry.metadata)
    for entry in fields(Settings)
)


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """Why values are refused; parameters that are not in the table are not looked at."""
    specs = {spec.name: spec for spec in PARAMETERS}
    problems = [specs[name].problem(value) for name, value in values.items() if name in specs]
    return [problem for problem in problems if problem]


def declare(node: Any, types: Callable[[str], Any]) -> None:
    """Declare every parameter on a node, with its description and range."""
    for spec in PARAMETERS:
        descriptor = types('rcl_interfaces/msg/ParameterDescriptor')(
            description=spec.description,
            additional_constraints=', '.join(spec.choices),
            read_only=spec.name == 'autostart',
        )
        if spec.minimum is None or spec.maximum is None:
            pass
        elif isinstance(spec.default, float):
            bounds = types('rcl_interfaces/msg/FloatingPointRange')(
                from_value=0.0 if spec.zero_is_unset else float(spec.minimum),
                to_value=float(spec.maximum),
                step=0.0,
            )
            descriptor.floating_point_range = [bounds]
        else:
            bounds = types('rcl_interfaces/msg/IntegerRange')(
                from_value=int(spec.minimum), to_value=int(spec.maximum), step=1
            )
            descriptor.integer_range = [bounds]
        node.declare_parameter(spec.name, spec.default, descriptor)


def read(node: Any) -> Settings:
    """The node's values now. Raises ValueError for one that is refused."""
    return Settings(**{spec.name: node.get_parameter(spec.name).value for spec in PARAMETERS})


def markdown_table() -> str:
    """The table for the documentation."""
    lines = ['| parameter | default | values | changes | what it does |', '|---|---|---|---|---|']
    for spec in PARAMETERS:
        default = str(spec.default).lower() if isinstance(spec.default, bool) else spec.default
        changes = 'any time' if spec.live else 'unconfigured'
        lines.append(
            f'| `{spec.name}` | `{default}` | {spec.range_text} | {changes} | {spec.description} |'
        )
    return '\n'.join(lines) + '\n'
