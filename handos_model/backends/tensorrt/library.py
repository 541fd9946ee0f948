"""TensorRT itself: is it there, is it new enough, and what its log means for the user."""

from __future__ import annotations

import logging
import re
from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING

from handos_model.backends.tensorrt.cuda_driver import GpuStateError
from handos_model.errors import UserError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 3)  # JetPack 6.1; the first whose strongly typed networks were looked at
INSTALL = 'pip install tensorrt-cu12, on a Jetson: apt install python3-libnvinfer'
_KEPT_LINES = 50

# What to look for in the log, what it means, and what to do; the first that fits.
_OF_THE_MACHINE = (
    (
        r'initialization failure with error:? 35\b|insufficient driver|driver version is insuffi',
        'the NVIDIA driver is too old for this TensorRT: update the driver (nvidia-smi shows its '
        'version), or install a TensorRT for its CUDA version (tensorrt-cu12, tensorrt-cu13)',
    ),
    (
        r'initialization failure with error:? (100|101)\b|no CUDA-capable device',
        'TensorRT sees no GPU: start a container with its GPU (--gpus all, on a Jetson '
        '--runtime nvidia), and look whether CUDA_VISIBLE_DEVICES hides it',
    ),
    (
        r'initialization failure with error:? 2\b|^(?!warning: ).*(out ?of ?memory'
        r'|insufficient (memory|workspace)|requested amount of GPU memory)',
        'the GPU has too little free memory: end other programs that use it (nvidia-smi, on a '
        'Jetson tegrastats), or use smaller weights, fewer hands (max_hands) or fp16',
    ),
)
_OF_THE_GRAPH = (
    (
        r'engine plan file is (not compatible|generated)|version tag|serialization ?error'
        r'|magicTag|Serialization assertion',
        'the engine is of another TensorRT: delete the folder of engines',
    ),
    (
        r'plugin not found|no importer registered|getPluginCreator could not find',
        "TensorRT's plugin library lacks a part: install libnvinfer-plugin of the same version",
    ),
)


def missing() -> str | None:
    """Why the library cannot be used and what to do, None where it can."""
    if find_spec('tensorrt') is None:
        return f'not installed ({INSTALL})'
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        return f'its library does not load ({error}): install it again ({INSTALL})'
    if version_of(trt.__version__) < OLDEST:
        return f'TensorRT {trt.__version__} is older than 10.3 (JetPack 6.1 or newer has it)'
    return None


def version_of(text: str) -> tuple[int, ...]:
    """(10, 13, 3) of '10.13.3.9'."""
    return tuple(int(number) for number in re.findall(r'\d+', text)[:3])


class TensorRtLibrary:
    """The loaded library: its version, its registered plugins, and a log that is kept."""

    def __init__(self) -> None:
        """Raises UserError where the library does not start on this machine."""
        import tensorrt as trt

        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        shown = logging.getLogger('handos_model.tensorrt')
        severity = trt.ILogger.Severity
        # A driver that is too old is only told as a warning; a kernel that was tried and did not
        # fit is one too, and means nothing.
        kept = {
            severity.INTERNAL_ERROR: '',
            severity.ERROR: '',
            severity.WARNING: 'warning: ',
        }

        class Log(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # pybind11 wants the base called by its name

            def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
                if severity in kept:
                    lines.append(kept[severity] + msg)
                shown.debug(msg)

        self.version = trt.__version__
        self.lines = lines
        self.logger: trt.ILogger = Log()  # must outlive all that was made with it
        if not trt.init_libnvinfer_plugins(self.logger, ''):
            raise self.error('its plugin library does not load')
        try:
            trt.Runtime(self.logger)
        except TypeError:  # pybind11's way to say that the library returned a null pointer
            raise self.error('it does not start') from None

    def error(self, what: str) -> UserError:
        """What failed, the likely cause, and what TensorRT said last."""
        log = '\n'.join(self.lines)
        said = '; '.join(list(self.lines)[-3:]) or 'nothing'
        for causes, kind in ((_OF_THE_MACHINE, GpuStateError), (_OF_THE_GRAPH, UserError)):
            for cause, advice in causes:
                if re.search(cause, log, re.IGNORECASE | re.MULTILINE):
                    return kind(f'TensorRT {self.version}: {what}: {advice}. It said: {said}')
        advice = 'use another backend, and report this with the text that follows'
        return UserError(f'TensorRT {self.version}: {what}: {advice}. It said: {said}')
