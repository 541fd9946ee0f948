"""The few CUDA calls that running an engine needs, from the driver library itself.

libcuda comes with the driver, on a Jetson too, and its C interface has been stable for years;
CUDA's runtime library and cuda-python come in versions that would have to fit TensorRT's. TensorRT
uses the primary context of the device, and so does this. Not run on hardware by the project's
tests, which call a stand-in for the library instead.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError

Array: TypeAlias = npt.NDArray[Any]
DevicePointer: TypeAlias = c_uint64  # CUdeviceptr; handles of streams and contexts are c_void_p
LIBRARY = 'libcuda.so.1'
_COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream

# Argument types, so that ctypes does not cut 64-bit addresses to 32. All return a CUresult.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    'cuInit': (c_uint,),
    'cuDeviceGet': (c_void_p, c_int),
    'cuDeviceGetName': (c_char_p, c_int, c_int),
    'cuDeviceGetAttribute': (c_void_p, c_int, c_int),
    'cuDevicePrimaryCtxRetain': (c_void_p, c_int),
    'cuCtxSetCurrent': (c_void_p,),
    'cuMemGetInfo_v2': (c_void_p, c_void_p),
    'cuMemAlloc_v2': (c_void_p, c_size_t),
    'cuMemFree_v2': (DevicePointer,),
    'cuMemAllocHost_v2': (c_void_p, c_size_t),
    'cuMemFreeHost': (c_void_p,),
    'cuMemcpyHtoDAsync_v2': (DevicePointer, c_void_p, c_size_t, c_void_p),
    'cuMemcpyDtoHAsync_v2': (c_void_p, DevicePointer, c_size_t, c_void_p),
    'cuStreamCreate': (c_void_p, c_uint),
    'cuStreamSynchronize': (c_void_p,),
    'cuGetErrorName': (c_int, c_void_p),
}
_ADVICE = {
    'CUDA_ERROR_OUT_OF_MEMORY': 'the GPU has too little free memory: end other programs that use '
    'it, or use smaller weights, fewer hands (max_hands) or fp16',
    'CUDA_ERROR_NO_DEVICE': 'no GPU is visible: start a container with its GPU (--gpus all, on a '
    'Jetson --runtime nvidia), and look whether CUDA_VISIBLE_DEVICES hides it',
    'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH': 'the driver was updated: restart the machine',
    'CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE': 'the NVIDIA driver is too old: update it',
}
_FAULTS = (
    'CUDA_ERROR_ILLEGAL_ADDRESS',
    'CUDA_ERROR_ILLEGAL_INSTRUCTION',
    'CUDA_ERROR_INVALID_ADDRESS_SPACE',
    'CUDA_ERROR_INVALID_PC',
    'CUDA_ERROR_LAUNCH_FAILED',
    'CUDA_ERROR_LAUNCH_TIMEOUT',
    'CUDA_ERROR_MISALIGNED_ADDRESS',
)


class GpuStateError(UserError):
    """The machine's state stands in the way, not the graph: it may work another time."""


class GpuFaultError(GpuStateError):
    """What ran broke the GPU's context: this process cannot use the GPU any more."""


class DeviceMemory:
    """Bytes on the GPU, freed when nothing refers to them any more."""

    def __init__(self, driver: CudaDriver, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes
        free = weakref.finalize(self, driver.free, address)
        free.atexit = False  # at the end of the process the driver frees it


class CudaDriver:
    """The first visible GPU. Calls may come from any thread that has called `make_current`."""

    def __init__(self, library: str = '') -> None:
        """Raises GpuStateError, as every call does, where there is no driver or no GPU."""
        try:
            self._cuda = ctypes.CDLL(library or LIBRARY)
            for name, types in _PROTOTYPES.items():
                getattr(self._cuda, name).argtypes = types
        except (OSError, AttributeError) as error:
            raise GpuStateError(
                f'the NVIDIA driver library cannot be used ({error}): install the driver, or '
                'start the container with its GPU (--gpus all, on a Jetson --runtime nvidia)'
            ) from error
        self._call('cuInit', 0)
        device, context = c_int(), c_void_p()
        self._call('cuDeviceGet', byref(device), 0)
        self._call('cuDevicePrimaryCtxRetain', byref(context), device)
        self._device, self._context = device, context
        self.make_current()

    def make_current(self) -> None:
        """Let this thread use the GPU."""
        self._call('cuCtxSetCurrent', self._context)

    def device_name(self) -> str:
        name = ctypes.create_string_buffer(256)
        self._call('cuDeviceGetName', name, len(name), self._device)
        return name.value.decode()

    def compute_capability(self) -> str:
        """For example '8.7'."""
        value, parts = c_int(), []
        for attribute in _COMPUTE_CAPABILITY:
            self._call('cuDeviceGetAttribute', byref(value), attribute, self._device)
            parts.append(str(value.value))
        return '.'.join(parts)

    def free_bytes(self) -> int:
        free, total = c_size_t(), c_size_t()
        self._call('cuMemGetInfo_v2', byref(free), byref(total))
        return free.value

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Memory on the GPU, aligned to 256 bytes."""
        address = DevicePointer()
        self._call('cuMemAlloc_v2', byref(address), nbytes)
        return DeviceMemory(self, address.value, nbytes)

    def free(self, address: int) -> None:
        self._cuda.cuCtxSetCurrent(self._context)
        self._cuda.cuMemFree_v2(address)  # an error of an earlier call may show here: too late

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array in page-locked memory, to which the GPU copies without the processor."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape))
        address = c_void_p()
        self._call('cuMemAllocHost_v2', byref(address), count * kind.itemsize)
        assert address.value is not None
        memory = (ctypes.c_uint8 * (count * kind.itemsize)).from_address(address.value)
        free = weakref.finalize(memory, self._free_host, address.value)
        free.atexit = False
        return np.frombuffer(memoryview(memory), kind).reshape(shape)

    def _free_host(self, address: int) -> None:
        self._cuda.cuCtxSetCurrent(self._context)
        self._cuda.cuMemFreeHost(address)

    def create_stream(self) -> int:
        """A handle; it lives as long as the process."""
        stream = c_void_p()
        self._call('cuStreamCreate', byref(stream), _NON_BLOCKING)
        assert stream.value is not None
        return stream.value

    def copy_to_device(self, memory: DeviceMemory, array: Array, stream: int) -> None:
        """Queue a copy; `array` is contiguous and stays until `synchronize`."""
        _check(memory, array)
        self._call('cuMemcpyHtoDAsync_v2', memory.address, array.ctypes.data, array.nbytes, stream)

    def copy_to_host(self, array: Array, memory: DeviceMemory, stream: int) -> None:
        """Queue a copy; `array` holds it after `synchronize`."""
        _check(memory, array)
        self._call('cuMemcpyDtoHAsync_v2', array.ctypes.data, memory.address, array.nbytes, stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all that was queued; errors of queued work show here."""
        self._call('cuStreamSynchronize', stream)

    def _call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._cuda, name)(*arguments)
        if result == 0:
            return
        text = c_char_p()
        self._cuda.cuGetErrorName(result, byref(text))
        error = (text.value or b'CUDA error %d' % result).decode()
        advice = _ADVICE.get(error, 'restart the program; if it comes again, look into dmesg')
        kind = GpuFaultError if error in _FAULTS else GpuStateError
        raise kind(f'{name} failed with {error}: {advice}')


def _check(memory: DeviceMemory, array: Array) -> None:
    if array.nbytes != memory.nbytes or not array.flags.c_contiguous:
        raise ValueError(
            f'an array of {array.nbytes} bytes for {memory.nbytes} on the GPU, or one that is '
            'not contiguous'
        )
