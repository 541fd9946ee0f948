"""Generated hands: pure batched torch, one code path for CPU and CUDA."""
