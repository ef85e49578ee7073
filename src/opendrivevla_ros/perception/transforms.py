"""Small functions that several heads share: inverse sigmoid, regression branches, rotation of a BEV grid."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of x clamped to [0, 1], with numerator and denominator kept at `eps` or above."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def softmax_of_few(x: Tensor) -> Tensor:
    """Softmax over a short last dimension: computed across the columns of the transpose, which is much faster."""
    return x.reshape(-1, x.shape[-1]).t().contiguous().softmax(0).t().reshape(x.shape)


def regression_branch(embed_dim: int, outputs: int, hidden_layers: int = 2) -> nn.Sequential:
    """Linear layers with ReLU between: [..., embed_dim] -> [..., outputs]."""
    layers: list[nn.Module] = []
    for _ in range(hidden_layers):
        layers += [nn.Linear(embed_dim, embed_dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(embed_dim, outputs))


def rotated_cells(size: int, degrees: float, device: torch.device | str = "cpu") -> Tensor:
    """For each cell of a size x size grid turned by `degrees` about its centre: the cell that it comes from.

    int64 [size * size], row by row; -1 where it comes from outside. Nearest neighbour, counter-clockwise as an image
    with its first row at the top, rounded in float32 exactly as torchvision's `rotate` does.
    """
    angle = math.radians(-degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0]], dtype=torch.float32, device=device)
    steps = torch.linspace(-size * 0.5 + 0.5, size * 0.5 - 0.5, size, device=device)
    base = torch.ones(1, size, size, 3, device=device)
    base[..., 0] = steps
    base[..., 1] = steps[:, None]
    half = torch.tensor([0.5 * size, 0.5 * size], device=device)
    grid = base.view(1, size * size, 3).bmm((theta.t() / half)[None]).view(1, size, size, 2)
    # cell numbers plus one are exact in float32 up to 4096 x 4096 cells, and leave zero for "outside"
    numbers = torch.arange(1, size * size + 1, dtype=torch.float32, device=device).view(1, 1, size, size)
    return F.grid_sample(numbers, grid, mode="nearest", padding_mode="zeros", align_corners=False).flatten().long() - 1


def rotate_bev(bev: Tensor, degrees: float) -> Tensor:
    """Turns BEV features [S, C] of a square grid about its centre; cells from outside are zero (T8)."""
    size = math.isqrt(bev.shape[0])
    source = rotated_cells(size, degrees, bev.device)
    return bev[source.clamp(min=0)] * (source >= 0).unsqueeze(-1)
