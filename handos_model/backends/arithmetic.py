"""Which arithmetic is fastest on this CPU, of what a weights folder has and may use."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

from handos_model.weights.exported import ExportedWeights, Precision

# Instructions that sum products of 8-bit numbers without overflow; older ones saturate at 16 bits.
_INT8_FLAGS = {'avx512_vnni', 'avx_vnni', 'asimddp'}


@lru_cache(maxsize=1)
def has_int8_products(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """Whether this CPU multiplies 8-bit numbers exactly, and so faster than floats."""
    if cpuinfo.is_file():
        words = {word for line in cpuinfo.read_text().splitlines() for word in line.split()}
        return bool(words & _INT8_FLAGS)
    return platform.machine() == 'arm64'


def fastest_on_cpu(exported: ExportedWeights) -> Precision:
    """int8 where it passed its gate and the CPU is made for it, else fp32."""
    passed = exported.gate('int8') is not None
    return 'int8' if passed and has_int8_products() else 'fp32'


def why_not_int8(exported: ExportedWeights) -> str | None:
    """Why `fastest_on_cpu` is not int8, in words; None where it is."""
    if exported.gate('int8') is None:
        return 'the weights were not quantised (handos-quantise)'
    if not has_int8_products():
        return 'this CPU has no exact 8-bit products (VNNI, or dot products on ARM)'
    return None
