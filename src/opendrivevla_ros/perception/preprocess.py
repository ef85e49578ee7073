"""Camera pictures to the network's input: resize, mean subtraction, padding."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig


def preprocess(images: Sequence[NDArray[np.uint8]], config: PerceptionConfig) -> Tensor:
    """BGR pictures [height, width, 3], one a camera -> float32 [cameras, 3, padded height, padded width].

    A picture of another size than `config.image_size` is resized by area. The padding, at the bottom and right, is
    zero after the mean was taken off, as the published model was trained. Raises ValueError for a wrong number,
    shape or type of pictures.
    """
    if len(images) != config.cameras:
        raise ValueError(f"{len(images)} pictures came, the network takes {config.cameras}: give one for each camera")
    width, height = config.image_size
    padded_width, padded_height = config.padded_size
    mean = np.array(config.mean_bgr, dtype=np.float32)
    pixels = np.zeros((config.cameras, padded_height, padded_width, 3), dtype=np.float32)
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(
                f"picture {index} is {image.dtype} {list(image.shape)}, not uint8 [height, width, 3]: decode it to BGR"
            )
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        np.subtract(image, mean, out=pixels[index, :height, :width])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # channels last in memory, as the backbone wants it
