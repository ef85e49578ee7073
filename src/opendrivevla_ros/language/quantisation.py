"""A language model's weights in int8, made by torchao: one scale a row, of the embedding as of every projection.

Activations stay bfloat16. torchao makes the weights and holds them (`Int8Tensor`), but its own product first turns
them into bfloat16, whole. Here a few rows at a time, which is what decoding multiplies, go to torch's int8 kernel,
which reads the weights as they are.
"""

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to so many rows the int8 kernel is the faster way. Measured on a core of an EPYC with AVX-512, by the size of the
# matrix: 5 to 10 times at 1 row, 2 to 5 times at 4 rows, even at 13 to 40 rows, 0.4 to 0.7 times at 100.
FEW_ROWS = 16
BFLOAT16_ROUNDING = 2**-8  # at most, relative
PROBE = 64  # rows and columns of the product that tells whether a device has the kernel


class QuantisationError(ValueError):
    """int8 was asked for where it cannot run; one sentence that says why, and what to do."""


def require_int8(device: str) -> None:
    """Raises QuantisationError where torchao is not installed, or no int8 kernel of `device` gives a right product."""
    try:
        import torchao.quantization  # noqa: F401
    except ImportError as error:
        raise QuantisationError(
            f"precision 'int8' needs torchao, which cannot be imported ({error}); pip install -r"
            " requirements/runtime.txt, or choose precision float32 or bfloat16"
        ) from error
    x = torch.ones((2, PROBE), dtype=torch.bfloat16)
    values = torch.eye(PROBE, dtype=torch.int8)
    scale = torch.full((PROBE,), 0.5, dtype=torch.bfloat16)
    try:
        product = torch._weight_int8pack_mm(x.to(device), values.to(device), scale.to(device)).cpu()
        right = bool((product == 0.5).all())
    except RuntimeError as error:  # NotImplementedError is one
        found = str(error).splitlines()[0]
        raise QuantisationError(_no_kernel(device, found)) from error
    if not right:
        raise QuantisationError(_no_kernel(device, "its product is wrong"))


def _no_kernel(device: str, found: str) -> str:
    return (
        f"precision 'int8' has no kernel on device {device!r} with torch {torch.__version__} ({found}); use device"
        " cpu, or precision float32 or bfloat16"
    )


@torch.no_grad()
def quantise(*parts: nn.Module) -> None:
    """Gives every linear layer and embedding of `parts` int8 weights; layers that share a weight go on sharing it.

    The weights should still be in the precision of their file: bfloat16's rounding would be added to that of int8.
    Whatever else there is, norms and biases, is left to be made bfloat16.
    """
    owners: dict[Tensor, list[nn.Module]] = defaultdict(list)
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            owners[module.weight].append(module)
    while owners:  # one weight at a time, so that two copies of the model are never in memory
        weight, modules = owners.popitem()
        parameter = nn.Parameter(_quantised(weight), requires_grad=False)
        for module in modules:
            module.weight = parameter


def _quantised(weight: Tensor) -> Tensor:
    """[rows, columns] in int8, symmetric about 0.

    Scales are rounded to bfloat16, as the kernel takes them, before weights are divided by them, so that this is no
    error of the product; and up, so that the largest weights still fit.
    """
    from torchao.quantization import Int8Tensor, MappingType, PerRow, choose_qparams_affine

    exact = weight.detach().float()
    row = [1, exact.shape[1]]
    scale, _ = choose_qparams_affine(exact, MappingType.SYMMETRIC, row, torch.int8, keepdim=True)
    scale = (scale * (1 + BFLOAT16_ROUNDING)).bfloat16()
    return int8_tensor(Int8Tensor.from_hp(exact, PerRow(), scale=scale.float()).qdata, scale)


def int8_tensor(values: Tensor, scale: Tensor) -> Tensor:
    """torchao's tensor of int8 values [rows, columns] and bfloat16 scales [rows, 1]; it counts as bfloat16."""
    from torchao.quantization import Int8Tensor

    return Int8Tensor(values, scale, [1, values.shape[1]], torch.bfloat16)


def int8_parts(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Values and scales of an int8 weight, see `int8_tensor`; None for any other."""
    held: Any = weight
    return (held.qdata, held.scale) if hasattr(weight, "qdata") else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of [..., columns], for int8 weights too."""
    parts = int8_parts(weight)
    if parts is None:
        return F.linear(x, weight, bias)
    values, scale = parts
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= FEW_ROWS:
        product = torch._weight_int8pack_mm(rows, values, scale.flatten())
    else:
        product = F.linear(rows, values.to(x.dtype)) * scale.flatten()  # every int8 is a bfloat16
    product = product.view(*x.shape[:-1], len(values))
    return product if bias is None else product + bias


def embed(ids: Tensor, weight: Tensor) -> Tensor:
    """`F.embedding` of ids [...] as [..., columns]; of int8 weights no more than the rows asked for are read."""
    parts = int8_parts(weight)
    if parts is None:
        return F.embedding(ids, weight)
    values, scale = parts
    return values[ids] * scale[ids]


def weight_bytes(*parts: nn.Module) -> int:
    """What the weights take in memory; one that several layers share counts once."""
    weights = {id(weight): weight for part in parts for weight in part.parameters()}.values()
    held = (tensor for weight in weights for tensor in int8_parts(weight) or (weight,))
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
