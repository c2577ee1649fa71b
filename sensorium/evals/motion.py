"""How much a video moves: the energy of its optical flow.

Letters: F frames, H W pixels.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["flow", "flow_energy"]


def flow(first_FHW: torch.Tensor, second_FHW: torch.Tensor, window: int = 9, rounds: int = 4) -> torch.Tensor:
    """Where each pixel of the first pictures went in the second, (F, 2, H, W) across and down, in pixels.

    Args:
        first_FHW, second_FHW: grey, 0..1.
        window: neighbours that are taken to move alike.
        rounds: refinements, each from the pictures as warped so far.

    Source: B. Lucas and T. Kanade, 1981; with a small prior of no motion, where nothing is to be seen.
    """
    count, height, width = first_FHW.shape
    across, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    out = torch.zeros(count, 2, height, width)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x[:, None], window, stride=1, padding=window // 2, count_include_pad=False)[:, 0]

    for _ in range(rounds):
        place = torch.stack([(across + out[:, 0]) * 2 / (width - 1) - 1, (down + out[:, 1]) * 2 / (height - 1) - 1], dim=-1)
        warped = F.grid_sample(second_FHW[:, None], place, align_corners=True, padding_mode="border")[:, 0]
        both = F.pad((first_FHW + warped)[:, None] / 2, (1, 1, 1, 1), mode="replicate")[:, 0]
        x, y, t = (both[:, 1:-1, 2:] - both[:, 1:-1, :-2]) / 2, (both[:, 2:, 1:-1] - both[:, :-2, 1:-1]) / 2, warped - first_FHW
        xx, yy, xy, xt, yt = mean(x * x) + 1e-4, mean(y * y) + 1e-4, mean(x * y), mean(x * t), mean(y * t)
        det = xx * yy - xy * xy
        step = torch.stack([(xy * yt - yy * xt) / det, (xy * xt - xx * yt) / det], dim=1)
        out = out + step.clamp(-2, 2)
    return out


def flow_energy(video_FCHW: torch.Tensor) -> float:
    """Mean square of the flow between neighbouring frames, in squares of a hundredth of the side; 0 for a still."""
    grey_FHW = video_FCHW.mean(dim=1)
    found = flow(grey_FHW[:-1], grey_FHW[1:])
    return float((found / grey_FHW.shape[-1] * 100).square().sum(dim=1).mean())
