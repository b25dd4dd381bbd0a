"""Descriptors in tensors and arrays of any kind: brought to real numbers on the host, or refused in one sentence."""

from typing import Any

import numpy as np
import torch


def plain(X: Any) -> Any:
    """Return arrays in the place of tensors, detached from their gradients; all else as it is.

    Parameters
    ----------
    X : object
        Descriptors, or a list of region sets.

    Returns
    -------
    X : object
        Without tensors.

    Raises
    ------
    ValueError
        For a tensor without plain numbers, and for complex numbers; the message names the item of a list.
    """
    if isinstance(X, torch.Tensor):
        return _array_of(X, "X")
    if isinstance(X, np.ndarray):
        _check_real(X.dtype.kind == "c", "X")
    elif isinstance(X, list | tuple) and any(isinstance(item, torch.Tensor) for item in X):
        return [
            _array_of(item, f"Item {place} of X") if isinstance(item, torch.Tensor) else item
            for place, item in enumerate(X)
        ]
    return X


def _array_of(tensor: torch.Tensor, what: str) -> np.ndarray:
    kinds = {
        "nested: give a list of its parts, tensor.unbind()": tensor.is_nested,
        "on the meta device, which has shapes and no numbers": tensor.is_meta,
        "quantised: give tensor.dequantize()": tensor.is_quantized,
        "sparse: give tensor.to_dense(), or a SciPy matrix": tensor.layout != torch.strided,
    }
    for kind, found in kinds.items():
        if found:
            raise ValueError(f"{what} is a tensor that is {kind}.")
    _check_real(tensor.is_complex(), what)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _check_real(is_complex: bool, what: str) -> None:
    if is_complex:
        raise ValueError(
            f"Complex data not supported: {what} holds complex numbers, but descriptors are real."
        )
