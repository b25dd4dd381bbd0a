"""Which precision a device is fast in."""

from __future__ import annotations

from functools import cache

import torch


def dtype_on(device: torch.device) -> str:
    """Return "bfloat16" where a device multiplies it natively, else "float32".

    Parameters
    ----------
    device : torch.device
        Of a CPU or of CUDA; any other has float32.

    Returns
    -------
    dtype : str
        Without the instructions bfloat16 is emulated, several times slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        native = device.type == "cpu" and _cpu_multiplies_bfloat16()
    return "bfloat16" if native else "float32"


@cache
def _cpu_multiplies_bfloat16() -> bool:
    """Tell whether the processor has AMX or AVX512_BF16, for which oneDNN has kernels."""
    if hasattr(torch.cpu, "get_capabilities"):  # not in every version of torch that this package takes
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
