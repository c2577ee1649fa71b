"""Muon: momentum made orthogonal, for the matrices inside a network; in bfloat16 where the processor has it, else in float32.

Letters: G matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["Muon", "native_bfloat16", "orthogonal"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix_GRC: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Nearly orthogonal matrices with the same row and column spaces: singular values go to about one.

    Args:
        matrix_GRC: any float matrices.
        rounds: Newton-Schulz iterations of degree five.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    a, b, c = COEFFICIENTS
    tall = matrix_GRC.shape[1] > matrix_GRC.shape[2]
    x = matrix_GRC.transpose(1, 2) if tall else matrix_GRC
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(torch.bfloat16 if native_bfloat16(x.device) else torch.float32)
    for _ in range(rounds):
        square = x @ x.transpose(1, 2)
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    return (x.transpose(1, 2) if tall else x).to(matrix_GRC.dtype)


def native_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is up to fifty times slower than float32."""
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled so that AdamW's learning rates serve.

    Args:
        params: matrices, or groups of them.
        lr: learning rate.
        momentum: of the average of gradients.
        weight_decay: decoupled.

    Source: scaling by 0.2 * sqrt(max(R, C)) matches AdamW's update size (2502.16982, section 2.2).
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix; those of one shape go through the iteration together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                self._update(group, shape, parameters)

    def _update(self, group: dict[str, Any], shape: torch.Size, parameters: list[torch.nn.Parameter]) -> None:
        ahead = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            ahead.append(parameter.grad.lerp(average, group["momentum"]))
        scale = group["lr"] * 0.2 * max(shape) ** 0.5
        for parameter, update in zip(parameters, orthogonal(torch.stack(ahead)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
