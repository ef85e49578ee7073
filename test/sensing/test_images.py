"""The image codec against pictures whose pixels are known."""

import struct
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.sensing.images import (
    CompressedImage,
    ImageError,
    RawImage,
    compressed_size,
    decode_compressed,
    decode_image,
    same_bytes,
)

WIDTH, HEIGHT = 8, 6
COLOUR = (40, 90, 200)  # BGR


@pytest.fixture
def picture() -> np.ndarray:
    """Random BGR pixels."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def padded(rows: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Bytes of rows [height, bytes] with `padding` bytes of 0xAA after each, and their step."""
    filler = np.full((len(rows), padding), 0xAA, dtype=np.uint8)
    return np.hstack([rows.reshape(len(rows), -1), filler]).tobytes(), rows[0].size + padding


def smooth(width: int = 64, height: int = 48) -> np.ndarray:
    """A gradient that survives JPEG and chroma subsampling."""
    ys, xs = np.mgrid[0:height, 0:width]
    return np.stack([xs * 255 / width, ys * 255 / height, (xs + ys) * 255 / (width + height)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [("bgr8", [0, 1, 2]), ("rgb8", [2, 1, 0]), ("bgra8", [0, 1, 2, 0]), ("rgba8", [2, 1, 0, 0])],
)
def test_colour_encodings_come_back_as_bgr(
    picture: np.ndarray, encoding: str, channels: list[int], padding: int
) -> None:
    data, step = padded(np.ascontiguousarray(picture[:, :, channels]), padding)
    assert np.array_equal(decode_image(encoding, WIDTH, HEIGHT, step, False, data), picture)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("holder", [bytes, bytearray, lambda b: array("B", b), lambda b: np.frombuffer(b, np.uint8)])
def test_bgr8_is_a_view_of_the_bytes_with_padded_rows_too(picture: np.ndarray, holder, padding: int) -> None:
    data, step = padded(picture, padding)
    buffer = holder(data)
    image = decode_image("bgr8", WIDTH, HEIGHT, step, False, buffer)
    assert np.shares_memory(image, np.frombuffer(buffer, np.uint8))
    assert np.array_equal(image, picture)


@pytest.mark.parametrize("padding", [0, 3])
def test_mono8_comes_back_grey(picture: np.ndarray, padding: int) -> None:
    grey = np.ascontiguousarray(picture[:, :, 0])
    data, step = padded(grey, padding)
    image = decode_image("mono8", WIDTH, HEIGHT, step, False, data)
    assert all(np.array_equal(image[:, :, channel], grey) for channel in range(3))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("is_bigendian", [False, True])
def test_mono16_keeps_the_high_byte_in_either_byte_order(is_bigendian: bool, padding: int) -> None:
    values = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1111
    ordered = values.astype(">u2" if is_bigendian else "<u2")
    data, step = padded(ordered.view(np.uint8), padding)
    image = decode_image("mono16", WIDTH, HEIGHT, step, is_bigendian, data)
    assert np.array_equal(image[:, :, 1], (values >> 8).astype(np.uint8))


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_of_one_colour_gives_that_colour(pattern: str, padding: int) -> None:
    colour = dict(zip("bgr", COLOUR, strict=True))
    cell = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]], np.uint8)
    data, step = padded(np.tile(cell, (HEIGHT // 2, WIDTH // 2)), padding)
    image = decode_image(f"bayer_{pattern}8", WIDTH, HEIGHT, step, False, data)
    assert np.array_equal(image, np.broadcast_to(np.array(COLOUR, np.uint8), image.shape))


def yuv_of(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Y, U, V of a BGR colour in the limited range of ITU-R BT.601, which OpenCV's 4:2:2 and 4:2:0 codes use."""
    blue, green, red = (value / 255 for value in colour)
    luma = 65.481 * red + 128.553 * green + 24.966 * blue + 16
    u = -37.797 * red - 74.203 * green + 112.0 * blue + 128
    v = 112.0 * red - 93.786 * green - 18.214 * blue + 128
    return round(luma), round(u), round(v)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_yuv422_of_one_colour_gives_that_colour(encoding: str, order: str, padding: int) -> None:
    parts = dict(zip("yuv", yuv_of(COLOUR), strict=True))
    row = np.tile(np.array([parts[letter] for letter in order], np.uint8), WIDTH // 2)
    data, step = padded(np.tile(row, (HEIGHT, 1)), padding)
    image = decode_image(encoding, WIDTH, HEIGHT, step, False, data)
    assert np.abs(image.astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize("padding", [0, 8])
def test_nv12_of_one_colour_gives_that_colour(padding: int) -> None:
    luma, u, v = yuv_of(COLOUR)
    rows = np.full((HEIGHT * 3 // 2, WIDTH), luma, np.uint8)
    rows[HEIGHT:, 0::2], rows[HEIGHT:, 1::2] = u, v
    data, step = padded(rows, padding)
    image = decode_image("nv12", WIDTH, HEIGHT, step, False, data)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image.astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bgr9", 8, 6, 24, False, b"\0" * 144), "encoding 'bgr9' is not one of bgr8, rgb8"),
        (("bgr8", 8, 6, 23, False, b"\0" * 138), "step 23 is less than the 24 bytes"),
        (("bgr8", 8, 6, 24, False, b"\0" * 143), "143 bytes of bgr8 are not 6 rows with a step of 24"),
        (("bgr8", 8, 6, 24, False, b""), "0 bytes of bgr8"),
        (("bgr8", 0, 6, 24, False, b""), "0x6 pixels"),
        (("yuv422", 7, 6, 14, False, b"\0" * 84), "even sizes"),
        (("nv12", 8, 5, 8, False, b"\0" * 56), "even sizes"),
        (("nv12", 8, 6, 8, False, b"\0" * 48), "48 bytes of nv12 are not 9 rows"),
    ],
)
def test_raw_images_that_contradict_themselves_are_refused_in_one_sentence(arguments: tuple, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        decode_image(*arguments)
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from(["bgr8", "rgb8", "mono8", "mono16", "yuv422", "nv12", "bayer_rggb8"]),
    st.binary(max_size=200),
    st.integers(-1, 9),
    st.integers(-1, 9),
    st.integers(-1, 40),
)
@settings(deadline=None)
def test_arbitrary_bytes_are_decoded_or_refused_but_never_crash(
    encoding: str, data: bytes, width: int, height: int, step: int
) -> None:
    try:
        image = decode_image(encoding, width, height, step, False, data)
    except ImageError:
        return
    assert image.shape == (height, width, 3)


def encoded(extension: str, image: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(extension, image, list(parameters))[1].tobytes()


@pytest.mark.parametrize("parameters", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_jpeg_is_decoded_and_its_size_read_from_the_header(parameters: tuple[int, ...]) -> None:
    data = encoded(".jpg", smooth(), *parameters)
    assert compressed_size(data) == (64, 48)
    assert np.abs(decode_compressed(data).astype(int) - smooth()).mean() < 4


def test_png_is_decoded_without_loss() -> None:
    data = encoded(".png", smooth())
    assert compressed_size(data) == (64, 48)
    assert np.array_equal(decode_compressed(data, min_size=(8, 6)), smooth())


@pytest.mark.parametrize("holder", [bytearray, lambda b: array("B", b), lambda b: np.frombuffer(b, np.uint8)])
def test_compressed_pictures_may_lie_in_any_buffer(holder) -> None:
    assert decode_compressed(holder(encoded(".jpg", smooth()))).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("min_size", "size"),
    [
        ((64, 48), (64, 48)),
        ((33, 24), (64, 48)),
        ((32, 24), (32, 24)),
        ((17, 3), (32, 24)),
        ((16, 12), (16, 12)),
        ((8, 6), (8, 6)),
        ((1, 1), (8, 6)),
        ((400, 400), (64, 48)),
    ],
)
def test_jpeg_is_reduced_as_far_as_the_least_size_allows(min_size: tuple[int, int], size: tuple[int, int]) -> None:
    image = decode_compressed(encoded(".jpg", smooth()), min_size=min_size)
    assert image.shape == (size[1], size[0], 3)
    expected = cv2.resize(smooth(), size, interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).mean() < 4


def test_jpeg_is_reduced_only_by_factors_that_divide_both_sides() -> None:
    data = encoded(".jpg", smooth(1600, 900))
    assert decode_compressed(data, min_size=(200, 112)).shape == (225, 400, 3)


def test_an_exif_orientation_is_not_applied() -> None:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation: turned by a quarter
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry + b"\0\0\0\0"
    plain = encoded(".jpg", smooth())
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert np.array_equal(decode_compressed(turned), decode_compressed(plain))


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    data = encoded(".jpg", smooth())
    for padding in (16, 10_000):
        assert decode_compressed(data + b"\0" * padding).shape == (48, 64, 3)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_picture_cut_off_anywhere_is_refused(extension: str, progressive: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    parameters = (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive) if extension == ".jpg" else ()
    data = encoded(extension, noise, *parameters)
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(ImageError):
            decode_compressed(data[:length])


def test_a_cut_off_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    thumbnail = b"Exif\0\0" + encoded(".jpg", smooth(16, 12))
    plain = encoded(".jpg", smooth())
    whole = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]
    assert compressed_size(whole) == (64, 48)
    with pytest.raises(ImageError, match="cut off"):
        decode_compressed(whole[:-100])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no bytes"),
        (b"GIF89a", "neither JPEG nor PNG"),
        (b"\xff\xd8\xff\xd9", "cut off"),
        (b"\xff\xd8\xff\xe0\0\x04\0\0\x12\x34\0\0", "corrupt"),
    ],
)
def test_bytes_that_are_no_picture_are_refused_in_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        compressed_size(data)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from([".jpg", ".png"]))
@settings(deadline=None)
def test_a_changed_byte_never_crashes_the_decoder_nor_changes_the_size(place: int, value: int, extension: str) -> None:
    data = bytearray(encoded(extension, smooth()))
    data[place % len(data)] = value
    try:
        size = compressed_size(bytes(data))
        if size != (64, 48):  # a size the calibration check refuses; decoding it could take gigabytes
            return
        image = decode_compressed(bytes(data))
    except ImageError:
        return
    assert image.shape == (48, 64, 3)


def test_a_real_picture_shrinks_to_the_size_the_model_needs(keyframe_folder: Path) -> None:
    picture = CompressedImage((keyframe_folder / "CAM_FRONT.jpg").read_bytes())
    assert picture.size() == (1600, 900)
    assert picture.decode((400, 224)).shape == (225, 400, 3)
    full, half = picture.decode(), picture.decode((800, 450))
    shrunk = cv2.resize(full, (800, 450), interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - shrunk).mean() < 3


def test_same_bytes_sees_one_changed_byte_anywhere() -> None:
    data = bytes(1000)
    first = CompressedImage(data)
    assert same_bytes(first, CompressedImage(array("B", data)))
    assert same_bytes(first, RawImage("mono8", 10, 100, 10, False, np.frombuffer(data, np.uint8)))
    assert not same_bytes(first, CompressedImage(bytes(999)))
    for place in range(0, 1000, 37):
        assert not same_bytes(first, CompressedImage(data[:place] + b"\1" + data[place + 1 :]))
