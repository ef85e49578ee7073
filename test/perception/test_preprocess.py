"""Pictures to the network's input."""

import numpy as np
import pytest
import torch

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.preprocess import preprocess

CONFIG = PerceptionConfig(image_size=(50, 20), cameras=2)


def picture(value: int, height: int = 20, width: int = 50) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_the_mean_is_subtracted_in_bgr_order_and_the_padding_stays_zero() -> None:
    batch = preprocess([picture(0), picture(255)], CONFIG)
    assert batch.shape == (2, 3, 32, 64)
    torch.testing.assert_close(batch[0, :, 0, 0], -torch.tensor(CONFIG.mean_bgr))
    torch.testing.assert_close(batch[1, :, 19, 49], 255 - torch.tensor(CONFIG.mean_bgr))
    assert batch[:, :, 20:].eq(0).all()
    assert batch[:, :, :, 50:].eq(0).all()


def test_a_picture_of_another_size_is_resized() -> None:
    large = np.zeros((40, 100, 3), dtype=np.uint8)
    large[:, 50:] = 200
    batch = preprocess([large, picture(0)], CONFIG)
    torch.testing.assert_close(batch[0, :, 10, 40], 200 - torch.tensor(CONFIG.mean_bgr))
    torch.testing.assert_close(batch[0, :, 10, 10], -torch.tensor(CONFIG.mean_bgr))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([picture(0)], r"1 pictures came, the network takes 2"),
        ([picture(0), picture(0)[..., 0]], r"picture 1 is uint8 \[20, 50\]"),
        ([picture(0).astype(np.float32), picture(0)], r"picture 0 is float32 \[20, 50, 3\]"),
        ([picture(0), picture(0, height=0)], r"picture 1 is uint8 \[0, 50, 3\]"),
    ],
)
def test_pictures_of_a_wrong_number_shape_or_type_are_refused(images: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocess(images, CONFIG)
