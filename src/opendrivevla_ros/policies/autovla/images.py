"""From pictures to what Qwen2.5-VL's vision tower takes: frames of the past by stamp, resized, normalised, in patches.

Resizing, normalisation and the order of patches are those of the model's own processor, without torchvision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FRAME_STEP_NS = 500_000_000  # 2 Hz
STAMP_TOLERANCE_NS = 250_000_000  # half a step: a picture further off belongs to another step
# Of CLIP (arXiv 2103.00020), whose statistics Qwen2.5-VL's processor uses.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """A BGR picture uint8 [height, width, 3] as RGB uint8 [3, H, W] of `size` (W, H); bicubic, antialiased."""
    picture = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)
    width, height = size
    if picture.shape[1:] == (height, width):
        return picture.contiguous()
    return F.interpolate(picture[None], (height, width), mode="bicubic", antialias=True)[0].contiguous()


def patches(frames: Tensor, *, patch: int, temporal_patch: int, merge: int) -> Tensor:
    """Patches float32 [N, 3 * temporal_patch * patch * patch] of a video uint8 [T, 3, H, W].

    N = T/temporal_patch * H/patch * W/patch, by time, then by rows of tokens; the merge * merge patches of one token
    stand together. In a patch: colour, time, row, column.
    """
    count, colours, height, width = frames.shape
    mean = torch.tensor(MEAN, device=frames.device)[:, None, None]
    deviation = torch.tensor(DEVIATION, device=frames.device)[:, None, None]
    normal = (frames.float() / 255.0 - mean) / deviation
    side = patch * merge
    shape = (count // temporal_patch, temporal_patch, colours)
    cut = normal.reshape(*shape, height // side, merge, patch, width // side, merge, patch)
    ordered = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(-1, colours * temporal_patch * patch * patch)


def steps_back(stamps: Sequence[int], now_ns: int, count: int) -> tuple[int, ...]:
    """Which of rising `stamps` stand for the `count` instants up to now, half a second apart, oldest first.

    The last is the newest picture. For each other instant the nearest picture within STAMP_TOLERANCE_NS is taken, the
    older of two alike; where there is none, as at the start of a drive, that of the step after it stands again.
    Raises ValueError where there is no picture at all.
    """
    if not len(stamps):
        raise ValueError("a camera without any picture has no video")
    chosen = [len(stamps) - 1]
    for step in range(1, count):
        wanted = now_ns - step * FRAME_STEP_NS
        nearest = min(range(len(stamps)), key=lambda index: (abs(stamps[index] - wanted), stamps[index]))
        fits = abs(stamps[nearest] - wanted) <= STAMP_TOLERANCE_NS
        chosen.append(min(nearest, chosen[-1]) if fits else chosen[-1])
    return tuple(reversed(chosen))


@dataclass(frozen=True)
class CameraHistory:
    """A camera's pictures of the last seconds: stamps rising, and uint8 [3, H, W] each."""

    stamps: tuple[int, ...] = ()
    pictures: tuple[Tensor, ...] = ()

    def with_picture(self, stamp_ns: int, picture: Tensor, count: int) -> "CameraHistory":
        """With one more picture, and without those that no video of `count` frames can need any more.

        A picture that is not newer than the last, such as one that is held, adds nothing.
        """
        if self.stamps and stamp_ns <= self.stamps[-1]:
            return self
        oldest = stamp_ns - (count - 1) * FRAME_STEP_NS - STAMP_TOLERANCE_NS
        kept = sum(stamp < oldest for stamp in self.stamps)
        return CameraHistory((*self.stamps[kept:], stamp_ns), (*self.pictures[kept:], picture))

    def video(self, now_ns: int, count: int) -> Tensor:
        """[count, 3, H, W], see `steps_back`."""
        return torch.stack([self.pictures[index] for index in steps_back(self.stamps, now_ns, count)])
