"""Low-rank changes of a model's attention (LoRA, arXiv 2106.09685), written into the weights that a decoder reads."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")


class LowRank(nn.Module):
    """Changes of the attention's matrices W of a language model to W + alpha / rank * up down, from no change on.

    `write` puts the changed matrices in the model's place, so that whatever reads its weights has them; a forward
    with gradients then gives those of `up` and `down`. Without dropout: what is drawn and what is trained must be one
    function. The start is drawn from torch's own generator. Raises ValueError for a rank below 1.
    """

    def __init__(self, language: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"a low-rank change needs a rank of 1 or more, not {rank}")
        self._scale = alpha / rank
        adapted = {name: part for name, part in language.named_modules() if name.split(".")[-1] in ADAPTED}
        self._weights = {f"{name}.weight": part.weight for name, part in adapted.items()}
        self.start = {name: weight.detach().clone() for name, weight in self._weights.items()}
        shapes = [weight.shape for weight in self._weights.values()]
        self.down = nn.ParameterList(torch.randn(rank, columns) * columns**-0.5 for _, columns in shapes)
        self.up = nn.ParameterList(torch.zeros(rows, rank) for rows, _ in shapes)
        for index, part in enumerate(adapted.values()):
            part.register_forward_hook(self._gradient(index))

    @torch.no_grad()
    def write(self) -> None:
        """Writes the changed matrices into the model, in place."""
        for (name, weight), down, up in zip(self._weights.items(), self.down, self.up, strict=True):
            start = self.start[name] = self.start[name].to(weight.device)
            weight.copy_(start + (self._scale * up @ down).to(start.dtype))

    def _gradient(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """A hook that adds nothing to an output but the gradients of one change: the value has it already."""

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return output
            change = F.linear(
                F.linear(inputs[0].detach().to(self.down[index].dtype), self.down[index]), self.up[index]
            )
            change = (self._scale * change).to(output.dtype)
            return output + (change - change.detach())

        return hook
