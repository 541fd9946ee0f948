"""A folder of exported graphs: `manifest.json` and ONNX files, checked before use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.weights.store import sha256

MANIFEST = 'manifest.json'
WINDOW_MANIFEST = 'window.json'  # of the graphs that see a window of the input; not all have them
FORMAT_VERSION = 3
LOCATION = b'\n\x08location\x12'
HANDS = 'hands'  # name of the size K of a decoder's inputs, which whoever opens the file fixes

Pixels: TypeAlias = npt.NDArray[np.uint8]
Precision: TypeAlias = Literal['fp32', 'fp16', 'int8']
Storage: TypeAlias = Literal['fp32', 'fp16']  # of weights in the files; computing is `precision`
Part: TypeAlias = Literal['detector', 'decoder']
GraphSampling: TypeAlias = Literal['grid_sample', 'gather', 'plugin']


@dataclass(frozen=True)
class GraphFile:
    """One graph: `hands` is K of a decoder, None for the detector.

    The decoders of a variant are one file, in which K is open.
    """

    file: str
    sha256: str
    hands: int | None
    precision: Precision
    sampling: GraphSampling
    operators: dict[str, int]
    parity: dict[str, float] = field(default_factory=dict)  # against torch, see exporter.py


@dataclass(frozen=True)
class WindowPlace:
    """Where a window's pixels lie in the whole input, in whose coordinates its graphs answer."""

    whole_hw: tuple[int, int]
    corner_px: tuple[int, int]  # row and column of the window's first pixel

    def cut(self, image: Pixels, size_hw: tuple[int, int]) -> Pixels:
        """The window [h,w,3] of `size_hw` out of a whole input [H,W,3]; a view, not a copy."""
        (top, left), (height, width) = self.corner_px, size_hw
        return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class AccuracyGate:
    """Graphs that compute with less, compared with those in float by what they find.

    Scores are shares of 1: found hands, PCK, sides, and the area under the curve of joint errors
    after alignment (PA). A gate that failed is not written, and neither are its graphs.
    """

    precision: Precision
    images: int
    hands: int
    limit: float  # largest loss of any score
    losses: dict[str, float]  # by '<backend>.<score>'; below zero where rounding helped
    scores: dict[str, float]  # of the rounded graphs, by the same names

    @property
    def worst(self) -> float:
        return max(self.losses.values())


@dataclass(frozen=True)
class ExportedWeights:
    """What `handos export` wrote: every graph with its checksum, and what it was made from."""

    folder: Path
    name: str
    licence: str
    opset: int
    input_size_hw: tuple[int, int]
    template_hash: str
    source_sha256: str
    graphs: tuple[GraphFile, ...]
    storage: Storage = 'fp32'
    gates: tuple[AccuracyGate, ...] = ()
    window: WindowPlace | None = None  # None: these graphs see the whole input

    @classmethod
    def load(cls, folder: Path) -> ExportedWeights:
        """Read and check the manifest; graphs are checked when `path` hands them out.

        Raises UserError where the folder is no export, or of a newer format.
        """
        return cls._read(folder, folder / MANIFEST)

    @classmethod
    def load_window(cls, folder: Path) -> ExportedWeights | None:
        """The graphs that see a window of the input, None where there are none."""
        path = folder / WINDOW_MANIFEST
        return cls._read(folder, path) if path.is_file() else None

    @classmethod
    def _read(cls, folder: Path, path: Path) -> ExportedWeights:
        try:
            values: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(
                f'{folder} has no {path.name}: export the weights first '
                '(handos export WEIGHTS --out DIR)'
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f'{path} cannot be read ({error}): export the weights again') from None
        if not isinstance(values, dict):
            raise UserError(f'{path} is malformed (no object): export the weights again')
        version = values.pop('format', None)
        if version != FORMAT_VERSION:
            raise UserError(
                f'{path} has format {version}, this handos-ros reads {FORMAT_VERSION}: '
                'export the weights again, or update handos-ros'
            )
        try:
            values['graphs'] = tuple(GraphFile(**graph) for graph in values['graphs'])
            values['gates'] = tuple(AccuracyGate(**gate) for gate in values.pop('gates', ()))
            values['input_size_hw'] = tuple(values['input_size_hw'])
            if (place := values.pop('window', None)) is not None:
                place = WindowPlace(tuple(place['whole_hw']), tuple(place['corner_px']))
            values['window'] = place
            return cls(folder=folder, **values)
        except (KeyError, TypeError) as error:
            raise UserError(f'{path} is malformed ({error}): export the weights again') from None

    def to_json(self) -> str:
        """The text of the file `manifest`."""
        values = asdict(self)
        del values['folder']
        if self.window is None:
            del values['window']
        return json.dumps({'format': FORMAT_VERSION, **values}, indent=2, sort_keys=True) + '\n'

    @property
    def manifest(self) -> Path:
        """The file that lists these graphs."""
        return self.folder / (MANIFEST if self.window is None else WINDOW_MANIFEST)

    @property
    def whole_hw(self) -> tuple[int, int]:
        """Size of the whole input, in whose coordinates these graphs answer."""
        return self.input_size_hw if self.window is None else self.window.whole_hw

    def seen(self, image: Pixels) -> Pixels:
        """What these graphs see of a whole input, uint8 [H,W,3]."""
        return image if self.window is None else self.window.cut(image, self.input_size_hw)

    def gate(self, precision: Precision) -> AccuracyGate | None:
        """The gate that the graphs in `precision` passed."""
        return next((gate for gate in self.gates if gate.precision == precision), None)

    def variants(self) -> list[tuple[Precision, GraphSampling]]:
        """The (precision, sampling) pairs that are here, the manifest's order."""
        return list(dict.fromkeys((graph.precision, graph.sampling) for graph in self.graphs))

    def hands(self, precision: Precision, sampling: GraphSampling) -> list[int]:
        """The numbers of hands K for which this variant has a decoder, ascending."""
        return sorted(
            graph.hands
            for graph in self.graphs
            if graph.hands is not None
            and (graph.precision, graph.sampling) == (precision, sampling)
        )

    def path(self, hands: int | None, precision: Precision, sampling: GraphSampling) -> Path:
        """The file of one graph, after its sha256 was compared with the manifest's.

        Raises UserError where it is missing or was changed.
        """
        wanted = (hands, precision, sampling)
        for graph in self.graphs:
            if (graph.hands, graph.precision, graph.sampling) == wanted:
                break
        else:
            part: Part = 'detector' if hands is None else 'decoder'
            name = graph_file_name(part, precision, sampling, self.window is not None)
            raise UserError(
                f'{self.folder} has no {name}: export it '
                f'(handos export WEIGHTS --out DIR --precision {precision} --sampling {sampling})'
            )
        path = self.folder / graph.file
        if path.parent != self.folder or not path.is_file():
            raise UserError(f'{path} is missing: export the weights again')
        if sha256(path) != graph.sha256:
            raise UserError(f'{path} is damaged or was changed: export the weights again')
        for name in files_beside(path.read_bytes()):
            if (self.folder / name).parent != self.folder or not (self.folder / name).is_file():
                raise UserError(f'{path} wants weights in {name!r}, which is not beside it')
        return path


def files_beside(graph: bytes) -> set[str]:
    """Names of the files in which an ONNX graph says that tensors of its lie.

    A runtime opens them as they are named, so they are looked at before one gets the graph. The
    names stand behind the key `location`, as protobuf writes a pair of strings.
    """
    names, end = set(), 0
    while (start := graph.find(LOCATION, end)) >= 0:
        end = start + len(LOCATION) + 1
        names.add(graph[end : end + graph[end - 1]].decode(errors='replace'))
    return names


def graph_file_name(
    part: Part, precision: Precision, sampling: GraphSampling, window: bool = False
) -> str:
    """`detector.onnx`, `decoder.onnx`, and with suffixes where not FP32 and GridSample."""
    stem: str = part + ('_window' if window else '')
    stem += '' if precision == 'fp32' else f'_{precision}'
    stem += '' if sampling == 'grid_sample' else f'_{sampling}'
    return f'{stem}.onnx'
