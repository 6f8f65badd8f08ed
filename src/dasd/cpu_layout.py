"""How does a bfloat16 model write quickly on a CPU? With its weights laid out once, not at every token.

For a few rows a linear layer is as fast as its weights come from memory. torch keeps them row by row; oneDNN, which multiplies
there, lays them out in tiles of the processor first, at every call, and that takes about as long as the product. Laid out once
they give the same numbers, now and then another last bit.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import torch
from torch import Tensor, nn

SHARE = 0.5  # of the memory that is free: copies that would take more are not made


@contextmanager
def laid_out(model: nn.Module) -> Iterator[None]:
    """Within, linear layers of bfloat16 on a CPU read a copy of their weights that is laid out for it. Nothing else changes.

    For passes without gradient between which no weight changes. The copies take as much memory as those weights; where that is
    more than `SHARE` of what is free, there are none.
    """
    layers = layers_to_lay_out(model)
    if sum(layer.weight.nbytes for layer in layers) > SHARE * psutil.virtual_memory().available:
        layers = []
    try:
        for layer in layers:
            vars(layer)["forward"] = _forward(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
        if layers:
            _give_back()


def layers_to_lay_out(model: nn.Module) -> list[nn.Linear]:
    """Those of bfloat16 on a CPU that are neither quantised nor sharded, and whose forward pass nobody else stands in for."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)] if _supported() else []
    return [layer for layer in linear if type(layer) is nn.Linear and "forward" not in vars(layer) and _fits(layer.weight)]


def _fits(weight: Tensor) -> bool:
    return type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype == torch.bfloat16


def _forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()), layer.bias
    product = torch.ops.mkldnn._linear_pointwise

    def forward(input: Tensor) -> Tensor:
        return product(input.to(torch.bfloat16), weight, bias, "none", [], "")

    return forward


def _give_back() -> None:
    """The copies' memory to the system: they are many small pieces, which glibc keeps, and what comes next is larger than they
    are. Not where the user has told glibc when to give back."""
    with suppress(OSError, AttributeError):  # no glibc
        if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _supported() -> bool:
    """Whether oneDNN multiplies bfloat16 here, and torch gives the operators by which its own compiler has it done."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    oneDNN = torch.backends.mkldnn
    if not (oneDNN.is_available() and oneDNN.enabled and all(hasattr(torch.ops.mkldnn, name) for name in names)):
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
