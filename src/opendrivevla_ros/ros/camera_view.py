"""One camera's picture with the plan on the ground and the agents' boxes projected into it. No rclpy."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, apply, box_corners, invert
from opendrivevla_ros.core.observation import CameraFrame
from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.core.rig import CameraCalibration
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.ros.palette import PLAN_RGB, Footprint, class_rgb

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

NEAR_PLANE_METRES = 0.5
RIBBON_STEP_METRES = 0.25
RIBBON_PIECES = 40  # at most, from one waypoint to the next: an untrained model's may lie 100 m apart
SUBPIXEL_BITS = 4
FARTHEST_PIXEL = 16_000  # cv2 draws with 32-bit fixed point
SMALLEST_LABELLED_PIXELS = 14  # of a box's height at a width of 480: labels of a far crowd would hide it
FONT = cv2.FONT_HERSHEY_DUPLEX

# Pairs of `core.geometry.box_corners` that an edge joins, and the face at the front.
BOX_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
BOX_FRONT = (0, 1, 5, 4)


def bgr(rgb: tuple[float, float, float], brightness: float = 1.0) -> Color:
    red, green, blue = (round(255 * min(1.0, value * brightness)) for value in rgb)
    return blue, green, red


def clip_to_near_plane(polygon: Array, near: float = NEAR_PLANE_METRES) -> Array:
    """The part of a polygon [N, 3] (camera frame, depth last) beyond the near plane (Sutherland and Hodgman, 1974)."""
    if (polygon[:, 2] >= near).all():
        return polygon
    kept = []
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if start[2] >= near:
            kept.append(start)
        if (start[2] >= near) != (end[2] >= near):
            kept.append(start + (near - start[2]) / (end[2] - start[2]) * (end - start))
    return np.array(kept).reshape(-1, 3)


def ribbon(trajectory: Trajectory, half_width: float, start: float = 0.0) -> tuple[Array, Array]:
    """Both edges of the plan's ribbon on the ground of base_link: two arrays [M, 3].

    A cubic through the waypoints, from the origin, heading along the planned yaw, in pieces of a quarter of a metre.
    """
    xy = np.vstack([np.zeros((1, 2)), trajectory.xy])
    yaw = np.concatenate([[0.0], trajectory.yaw])
    headings = np.column_stack([np.cos(yaw), np.sin(yaw)])
    steps = np.linalg.norm(np.diff(xy, axis=0), axis=1)
    points, tangents = [], []
    for k, step in enumerate(steps):
        count = int(np.clip(np.ceil(step / RIBBON_STEP_METRES), 1, RIBBON_PIECES))
        last = k == len(steps) - 1
        u = np.linspace(0.0, 1.0, count + 1)[: None if last else -1, None]
        sign = 1.0 if (xy[k + 1] - xy[k]) @ headings[k + 1] >= 0 else -1.0
        first_slope, second_slope = sign * step * headings[k], sign * step * headings[k + 1]
        points.append(
            (2 * u**3 - 3 * u**2 + 1) * xy[k]
            + (u**3 - 2 * u**2 + u) * first_slope
            + (3 * u**2 - 2 * u**3) * xy[k + 1]
            + (u**3 - u**2) * second_slope
        )
        tangents.append((1 - u) * headings[k] + u * headings[k + 1])
    centre, tangent = np.concatenate(points), np.concatenate(tangents)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    ahead = centre[:, 0] >= start if start > 0 else np.ones(len(centre), bool)
    centre, tangent = centre[ahead], tangent[ahead]
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * half_width
    ground = np.zeros((len(centre), 1))
    return np.hstack([centre + normal, ground]), np.hstack([centre - normal, ground])


def blend_polygon(image: Image, pixels: NDArray[np.int32], color: Color, opacity: float) -> None:
    """Fills a polygon of fixed-point pixels [N, 1, 2] into an image in place, mixed with what is there."""
    height, width = image.shape[:2]
    corners = pixels.reshape(-1, 2) >> SUBPIXEL_BITS
    left, top = np.maximum(corners.min(axis=0) - 1, 0)
    right, bottom = np.minimum(corners.max(axis=0) + 2, (width, height))
    if left >= right or top >= bottom:
        return
    part = image[top:bottom, left:right]
    overlay = part.copy()
    shifted = pixels - np.array([left, top], dtype=np.int32) * 2**SUBPIXEL_BITS
    cv2.fillPoly(overlay, [shifted], color, cv2.LINE_AA, SUBPIXEL_BITS)
    part[:] = cv2.addWeighted(overlay, opacity, part, 1.0 - opacity, 0.0)


class CameraView:
    """Draws into a `size` (width, height) copy of one camera's picture."""

    def __init__(self, frame: CameraFrame, calibration: CameraCalibration, size: tuple[int, int]) -> None:
        width, height = size
        self.image: Image = np.ascontiguousarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
        self._base_to_camera = invert(calibration.camera_to_base)
        scale = np.diag([width / calibration.width, height / calibration.height, 1.0])
        self._intrinsics = scale @ calibration.intrinsics
        self._scale = width / 480.0

    def draw_plan(self, trajectory: Trajectory, footprint: Footprint) -> None:
        """The ribbon that the vehicle's body will cover, from the front bumper on, fading with time."""
        left, right = ribbon(trajectory, footprint.width / 2, start=footprint.front)
        if len(left) < 2:
            return
        left, right = apply(self._base_to_camera, left), apply(self._base_to_camera, right)
        overlay = self.image.copy()
        quads = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
        for k, pixels in self._visible(quads):
            color = bgr(PLAN_RGB, 1.0 - 0.35 * k / len(left))
            cv2.fillPoly(overlay, [pixels], color, cv2.LINE_8, SUBPIXEL_BITS)
        self.image = cv2.addWeighted(overlay, 0.5, self.image, 0.5, 0.0)
        width = max(1, round(2 * self._scale))
        for edge in (left, right):
            pieces = [pixels for _, pixels in self._visible(np.stack([edge[:-1], edge[1:]], axis=1))]
            cv2.polylines(self.image, pieces, False, bgr(PLAN_RGB), width, cv2.LINE_AA, SUBPIXEL_BITS)

    def draw_agents(self, agents: Sequence[Agent]) -> None:
        """Boxes, far to near, each with its class and track id."""
        seen = []
        for agent in agents:
            corners = apply(self._base_to_camera, box_corners(agent.position, agent.size, agent.yaw))
            if corners[:, 2].max() > NEAR_PLANE_METRES and self._is_near_the_picture(corners):
                seen.append((corners[:, 2].mean(), corners, agent))
        for _, corners, agent in sorted(seen, key=lambda item: -item[0]):
            self._draw_box(corners, agent)

    def draw_name(self, text: str, color: Color = (235, 235, 235)) -> None:
        """A label in the top left corner."""
        font = 0.42 * self._scale
        (width, height), _ = cv2.getTextSize(text, FONT, font, 1)
        margin = round(6 * self._scale)
        box = self.image[: height + 2 * margin, : width + 2 * margin]
        box[:] = box // 4
        cv2.putText(self.image, text, (margin, margin + height), FONT, font, color, 1, cv2.LINE_AA)

    def _draw_box(self, corners: Array, agent: Agent) -> None:
        color = bgr(class_rgb(agent.label))
        front = clip_to_near_plane(corners[list(BOX_FRONT)])
        if len(front):
            blend_polygon(self.image, self._pixels(front), color, 0.3)
        for start, end in BOX_EDGES:
            self._line(corners[start], corners[end], color, 1)
        if corners[:, 2].min() <= NEAR_PLANE_METRES:
            return
        top = self._pixels(corners).reshape(-1, 2) / 2**SUBPIXEL_BITS
        if np.ptp(top[:, 1]) >= SMALLEST_LABELLED_PIXELS * self._scale:
            text, font = f"{agent.label} {agent.track_id}", 0.34 * self._scale
            (width, _), _ = cv2.getTextSize(text, FONT, font, 1)
            place = (round(top[:, 0].mean() - width / 2), round(top[:, 1].min() - 4))
            cv2.putText(self.image, text, place, FONT, font, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(self.image, text, place, FONT, font, color, 1, cv2.LINE_AA)

    def _is_near_the_picture(self, corners: Array) -> bool:
        height, width = self.image.shape[:2]
        visible = corners[corners[:, 2] > NEAR_PLANE_METRES]
        pixels = self._pixels(visible).reshape(-1, 2) / 2**SUBPIXEL_BITS
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        return bool(high[0] >= 0 and low[0] <= width and high[1] >= 0 and low[1] <= height)

    def _visible(self, polygons: Array) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Number and fixed-point pixels [P, 1, 2] of each of the polygons [N, P, 3] that may touch the picture."""
        ahead = polygons[..., 2] >= NEAR_PLANE_METRES
        whole = ahead.all(axis=1)
        flat = np.where(whole[:, None, None], polygons, (0.0, 0.0, 1.0)).reshape(-1, 3)
        pixels = self._pixels(flat).reshape(*polygons.shape[:2], 1, 2)
        height, width = self.image.shape[:2]
        limit = np.array([width, height]) * 2**SUBPIXEL_BITS
        touching = ((pixels.max(axis=1) >= 0) & (pixels.min(axis=1) <= limit)).all(axis=(1, 2))
        for k in np.flatnonzero(np.where(whole, touching, ahead.any(axis=1))):
            yield int(k), pixels[k] if whole[k] else self._pixels(clip_to_near_plane(polygons[k]))

    def _line(self, start: Array, end: Array, color: Color, thickness: int) -> None:
        piece = clip_to_near_plane(np.stack([start, end]))
        if len(piece) >= 2:
            first, second = self._pixels(piece[:2]).reshape(-1, 2).tolist()
            width = max(1, round(thickness * self._scale))
            cv2.line(self.image, first, second, color, width, cv2.LINE_AA, SUBPIXEL_BITS)

    def _pixels(self, points_camera: Array) -> NDArray[np.int32]:
        """Fixed-point pixels [N, 1, 2] of points [N, 3] before the camera."""
        homogeneous = points_camera @ self._intrinsics.T
        pixels = np.clip(homogeneous[:, :2] / homogeneous[:, 2:], -FARTHEST_PIXEL, FARTHEST_PIXEL)
        return np.round(pixels * 2**SUBPIXEL_BITS).astype(np.int32).reshape(-1, 1, 2)
