"""The image codec against cv_bridge, where a full ROS 2 is installed."""

import importlib.util

import numpy as np
import pytest
from sensor_msgs.msg import Image

from opendrivevla_ros.sensing.images import decode_image

ENCODINGS = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "bayer_rggb8": 1, "bayer_gbrg8": 1, "yuv422": 2}
WIDTH, HEIGHT = 64, 48


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_codec_decodes_as_cv_bridge_does(encoding: str) -> None:
    if importlib.util.find_spec("cv_bridge") is None:
        pytest.skip(
            "the comparison with cv_bridge was not run: cv_bridge is not installed (it comes with a full ROS 2)"
        )
    from cv_bridge import CvBridge

    step = WIDTH * ENCODINGS[encoding]
    data = np.random.default_rng(0).integers(0, 256, HEIGHT * step, dtype=np.uint8).tobytes()
    message = Image(encoding=encoding, width=WIDTH, height=HEIGHT, step=step, data=data)
    expected = CvBridge().imgmsg_to_cv2(message, "bgr8")
    ours = decode_image(encoding, WIDTH, HEIGHT, step, False, data)
    np.testing.assert_allclose(ours.astype(int), expected.astype(int), atol=1)
