"""Pictures from bytes to BGR: the encodings of sensor_msgs/Image, and JPEG and PNG of sensor_msgs/CompressedImage.

Nothing is copied before it is decoded, and headers are read without decoding, so that a picture of the wrong size or
a cut-off one costs nothing. OpenCV releases the interpreter lock while it decodes.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Size: TypeAlias = tuple[int, int]  # width, height

# Anything with the buffer protocol: bytes, rclpy's array.array("B"), the numpy arrays of rosbags.
Buffer: TypeAlias = Any


class ImageError(ValueError):
    """Bytes that are not the picture they claim to be."""


@dataclass(frozen=True)
class _Encoding:
    """bytes_per_pixel of the packed rows; convert: uint8 [height, width * bytes_per_pixel] rows to BGR."""

    bytes_per_pixel: int
    convert: Callable[[Image, int, bool], Image]
    even_width: bool = False
    even_height: bool = False


def _packed(channels: int, code: int | None) -> _Encoding:
    def convert(rows: Image, width: int, is_bigendian: bool) -> Image:
        pixels = rows.reshape(rows.shape[0], width, channels) if channels > 1 else rows
        return pixels if code is None else _converted(pixels, code)

    return _Encoding(channels, convert)


def _mono16(rows: Image, width: int, is_bigendian: bool) -> Image:
    high_byte = rows.reshape(rows.shape[0], width, 2)[:, :, 0 if is_bigendian else 1]
    return _converted(np.ascontiguousarray(high_byte), cv2.COLOR_GRAY2BGR)


def _yuv422(code: int) -> _Encoding:
    def convert(rows: Image, width: int, is_bigendian: bool) -> Image:
        return _converted(rows.reshape(rows.shape[0], width, 2), code)

    return _Encoding(2, convert, even_width=True)


def _nv12(rows: Image, width: int, is_bigendian: bool) -> Image:
    return _converted(rows, cv2.COLOR_YUV2BGR_NV12)


def _converted(pixels: Image, code: int) -> Image:
    return np.asarray(cv2.cvtColor(pixels, code), dtype=np.uint8)


# OpenCV names a Bayer pattern by the second and third pixel of its second row, ROS by the first row.
_ENCODINGS = {
    "bgr8": _packed(3, None),
    "rgb8": _packed(3, cv2.COLOR_RGB2BGR),
    "bgra8": _packed(4, cv2.COLOR_BGRA2BGR),
    "rgba8": _packed(4, cv2.COLOR_RGBA2BGR),
    "mono8": _packed(1, cv2.COLOR_GRAY2BGR),
    "mono16": _Encoding(2, _mono16),
    "bayer_rggb8": _packed(1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": _packed(1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": _packed(1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": _packed(1, cv2.COLOR_BayerGB2BGR),
    "yuv422": _yuv422(cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": _yuv422(cv2.COLOR_YUV2BGR_YUY2),
    "nv12": _Encoding(1, _nv12, even_width=True, even_height=True),
}
ENCODINGS = tuple(_ENCODINGS)


def decode_image(encoding: str, width: int, height: int, step: int, is_bigendian: bool, data: Buffer) -> Image:
    """The picture of a sensor_msgs/Image as BGR uint8 [height, width, 3].

    `bgr8` comes back as a view of `data`, padded rows or not (read-only where `data` is). 16-bit grey keeps its high
    byte. `yuv422` is UYVY. `nv12` holds height * 3 / 2 rows of `step` bytes. Raises ImageError.
    """
    kind = _ENCODINGS.get(encoding)
    if kind is None:
        raise ImageError(f"encoding {encoding!r} is not one of {', '.join(ENCODINGS)}")
    if width <= 0 or height <= 0:
        raise ImageError(f"an image of {width}x{height} pixels has no picture: both must be above 0")
    if (kind.even_width and width % 2) or (kind.even_height and height % 2):
        raise ImageError(f"encoding {encoding} needs even sizes, not {width}x{height}")
    row_bytes = width * kind.bytes_per_pixel
    if step < row_bytes:
        raise ImageError(
            f"step {step} is less than the {row_bytes} bytes that a row of {width} {encoding} pixels takes"
        )
    rows = height * 3 // 2 if encoding == "nv12" else height
    flat = np.frombuffer(data, dtype=np.uint8)
    if flat.size != step * rows:
        raise ImageError(f"{flat.size} bytes of {encoding} are not {rows} rows with a step of {step} bytes")
    return kind.convert(flat.reshape(rows, step)[:, :row_bytes], width, bool(is_bigendian))


def decode_compressed(data: Buffer, *, min_size: Size | None = None) -> Image:
    """A JPEG or PNG as BGR uint8 [height, width, 3], as stored (an EXIF orientation is not applied).

    min_size: (width, height) that the caller needs. A JPEG is then decoded at a half, a quarter or an eighth of its
    size where both sides divide exactly and stay at least that large: libjpeg skips most of the work.
    Raises ImageError, also for a picture that is cut off (OpenCV would fill the rest with grey).
    """
    width, height = compressed_size(data)
    scale = _reduction(width, height, min_size) if _is_jpeg(data) else 1
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
        scale, cv2.IMREAD_REDUCED_COLOR_8
    )
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"OpenCV cannot decode a compressed picture of {width}x{height}: {error.err}") from error
    if image is None or image.shape != (height // scale, width // scale, 3):
        raise ImageError(
            f"a compressed picture of {width}x{height} is corrupt: OpenCV decodes no such picture from it"
        )
    return np.asarray(image, dtype=np.uint8)


def compressed_size(data: Buffer) -> Size:
    """(width, height) from the header of a whole JPEG or PNG, without decoding. Raises ImageError."""
    view = memoryview(data).cast("B")
    if len(view) == 0:
        raise ImageError("a compressed picture has no bytes")
    if _is_jpeg(view):
        return _jpeg_size(view)
    if bytes(view[:8]) == _PNG_SIGNATURE:
        return _png_size(view)
    raise ImageError(f"a compressed picture begins with {bytes(view[:4]).hex(' ')}, which is neither JPEG nor PNG")


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range (ITU-T T.81, table B.1).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xD9)) | {0x01}  # RST0 to RST7, SOI, TEM


def _is_jpeg(data: Buffer) -> bool:
    return bytes(memoryview(data).cast("B")[:3]) == b"\xff\xd8\xff"


def _jpeg_size(view: memoryview) -> Size:
    """Walks the segments from SOI to the first scan; whatever follows a scan must hold an end-of-image marker.

    Within a scan a byte 0xFF is always followed by 0 or a restart marker, so the first 0xFFD9 after it is the end.
    """
    size, position, end = None, 2, len(view)
    while position + 4 <= end:
        if view[position] != 0xFF:
            raise ImageError(f"a JPEG is corrupt: byte {position} is {view[position]:#04x} where a marker begins")
        marker = view[position + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # 0xFF may fill the space before a marker
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME and position + 9 <= end:
            height, width = struct.unpack(">HH", view[position + 5 : position + 9])
            size = (width, height)
        length = struct.unpack(">H", view[position + 2 : position + 4])[0]
        position += 2 + length
        if marker == _START_OF_SCAN:
            return _checked_jpeg(view, size, position)
    raise ImageError(f"a JPEG is cut off after {end} bytes, before its first scan")


def _checked_jpeg(view: memoryview, size: Size | None, scan: int) -> Size:
    if size is None or min(size) == 0:
        raise ImageError("a JPEG has no frame header with a size before its first scan")
    tail = max(scan, len(view) - 4096)  # the marker stands at the very end, save for padding
    if bytes(view[tail:]).find(_JPEG_END) < 0 and bytes(view[scan:]).find(_JPEG_END) < 0:
        raise ImageError(f"a JPEG of {size[0]}x{size[1]} is cut off after {len(view)} bytes: no end-of-image marker")
    return size


def _png_size(view: memoryview) -> Size:
    if len(view) < 24 or bytes(view[12:16]) != b"IHDR":
        raise ImageError(f"a PNG of {len(view)} bytes has no header chunk")
    width, height = struct.unpack(">II", view[16:24])
    if width == 0 or height == 0:
        raise ImageError(f"a PNG claims to be {width}x{height} pixels")
    if bytes(view[-4096:]).rfind(_PNG_END) < 0:
        raise ImageError(f"a PNG of {width}x{height} is cut off after {len(view)} bytes: no end chunk")
    return width, height


def _reduction(width: int, height: int, min_size: Size | None) -> int:
    """The largest of 8, 4, 2, 1 that divides both sides and leaves at least `min_size`."""
    if min_size is None:
        return 1
    for scale in (8, 4, 2):
        exact = width % scale == 0 and height % scale == 0
        if exact and width // scale >= min_size[0] and height // scale >= min_size[1]:
            return scale
    return 1


@dataclass(frozen=True)
class RawImage:
    """The fields of a sensor_msgs/Image, undecoded."""

    encoding: str
    width: int
    height: int
    step: int
    is_bigendian: bool
    data: Buffer

    def size(self) -> Size:
        """(width, height) of the full picture."""
        return self.width, self.height

    def decode(self, min_size: Size | None = None) -> Image:
        """BGR uint8 [height, width, 3] at full size, whatever `min_size` is. Raises ImageError."""
        return decode_image(self.encoding, self.width, self.height, self.step, self.is_bigendian, self.data)


@dataclass(frozen=True)
class CompressedImage:
    """The bytes of a sensor_msgs/CompressedImage, undecoded; JPEG or PNG shows in the bytes themselves."""

    data: Buffer

    def size(self) -> Size:
        """(width, height) of the full picture, from its header. Raises ImageError."""
        return compressed_size(self.data)

    def decode(self, min_size: Size | None = None) -> Image:
        """BGR uint8, reduced as `decode_compressed` says. Raises ImageError."""
        return decode_compressed(self.data, min_size=min_size)


EncodedImage: TypeAlias = RawImage | CompressedImage


def same_bytes(first: EncodedImage, second: EncodedImage) -> bool:
    """Whether two pictures hold the same bytes; microseconds where they differ, as live pictures do."""
    a, b = memoryview(first.data), memoryview(second.data)
    if a.nbytes != b.nbytes:
        return False
    for start in (a.nbytes // 2, a.nbytes // 3, a.nbytes * 3 // 4):  # the headers of two JPEGs are alike
        if a[start : start + 256] != b[start : start + 256]:
            return False
    return bool(np.array_equal(np.frombuffer(a, dtype=np.uint8), np.frombuffer(b, dtype=np.uint8)))
