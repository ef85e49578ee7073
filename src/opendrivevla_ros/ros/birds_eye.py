"""A bird's-eye view of a plan: grid, ego, plan, agents with ids, map elements. Ahead is up. No rclpy."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Agent, MapElement, Plan
from opendrivevla_ros.ros.camera_view import FONT, SUBPIXEL_BITS, Color, Image, bgr, blend_polygon, ribbon
from opendrivevla_ros.ros.palette import PLAN_RGB, Footprint, class_rgb

BACKGROUND: Color = (30, 26, 24)
GRID: Color = (52, 46, 43)
GRID_TEXT: Color = (120, 110, 105)
WHITE: Color = (240, 240, 240)
GRID_STEP_METRES = 10


class BirdsEyeView:
    """A picture of `size` (width, height) that shows `depth` metres from behind the ego to far ahead of it."""

    def __init__(self, size: tuple[int, int], depth: float = 80.0, behind: float = 0.36) -> None:
        self._width, self._height = size
        self._scale = self._height / depth
        self._origin = np.array([self._width / 2, self._height * (1 - behind)])
        self.image: Image = np.full((self._height, self._width, 3), BACKGROUND, dtype=np.uint8)
        self._draw_grid()

    def draw(self, plan: Plan | None, footprint: Footprint) -> Image:
        """Map below, then the plan, the ego and the agents."""
        if plan is not None:
            for element in plan.map_elements:
                self._draw_map_element(element)
            self._draw_plan(plan, footprint)
        self._polygon(footprint.outline(), fill=(250, 250, 250), edge=(120, 120, 120))
        nose = np.array([[footprint.front, 0.0], [footprint.front - 1.0, 0.6], [footprint.front - 1.0, -0.6]])
        self._polygon(nose, fill=(110, 100, 95), edge=None)
        if plan is not None:
            for agent in plan.agents:
                self._draw_agent(agent)
        return self.image

    def _draw_grid(self) -> None:
        reach = int(max(self._width, self._height) / self._scale)
        for metres in range(-reach // 10 * 10, reach + 10, GRID_STEP_METRES):
            bright = (78, 70, 66) if metres == 0 else GRID
            self._lines([[-reach, metres], [reach, metres]], bright)
            self._lines([[metres, -reach], [metres, reach]], bright)
            row = int(self._origin[1] - metres * self._scale)
            if 20 < row < self._height - 6:
                cv2.putText(self.image, f"{metres} m", (6, row - 4), FONT, 0.34, GRID_TEXT, 1, cv2.LINE_AA)

    def _draw_map_element(self, element: MapElement) -> None:
        color = bgr(class_rgb(element.label))
        if element.label == "drivable_area" and element.closed:
            blend_polygon(self.image, self._pixels(element.points), color, 0.3)
        self._lines(element.points, color, thickness=2, closed=element.closed)

    def _draw_plan(self, plan: Plan, footprint: Footprint) -> None:
        trajectory = plan.trajectory
        left, right = ribbon(trajectory, footprint.width / 2)
        overlay = self.image.copy()
        for k in range(len(left) - 1):
            quad = np.stack([left[k], left[k + 1], right[k + 1], right[k]])[:, :2]
            color = bgr(PLAN_RGB, 1.0 - 0.35 * k / len(left))
            cv2.fillPoly(overlay, [self._pixels(quad)], color, cv2.LINE_8, SUBPIXEL_BITS)
        self.image = cv2.addWeighted(overlay, 0.55, self.image, 0.45, 0.0)
        self._lines(left[:, :2], bgr(PLAN_RGB), thickness=1)
        self._lines(right[:, :2], bgr(PLAN_RGB), thickness=1)
        for centre, covariance in zip(trajectory.xy, trajectory.covariance, strict=True):
            self._draw_covariance(centre, covariance)
            self._dot(centre, 4, WHITE)

    def _draw_covariance(self, centre: Array, covariance: Array) -> None:
        """The ellipse of two standard deviations."""
        if not covariance.any():
            return
        values, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        angles = np.linspace(0.0, 2 * np.pi, 33)
        circle = 2.0 * np.sqrt(np.maximum(values, 0.0)) * np.column_stack([np.cos(angles), np.sin(angles)])
        self._lines(centre + circle @ axes.T, (150, 190, 150), thickness=1)

    def _draw_agent(self, agent: Agent) -> None:
        color = bgr(class_rgb(agent.label))
        length, width = agent.size[:2] / 2
        cosine, sine = np.cos(agent.yaw), np.sin(agent.yaw)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        centre = np.asarray(agent.position[:2])
        box = np.array([[length, width], [length, -width], [-length, -width], [-length, width]]) @ turn.T + centre
        self._polygon(box, fill=bgr(class_rgb(agent.label), 0.55), edge=color)
        self._lines(np.stack([centre, centre + turn @ [length, 0.0]]), color, thickness=1)
        if np.hypot(*agent.velocity) > 0.3:
            self._arrow(centre, centre + np.asarray(agent.velocity), color)
        if len(agent.predicted):
            self._lines(np.vstack([centre, agent.predicted]), color, thickness=1)
            for point in agent.predicted:
                self._dot(point, 2, color)
        x, y = self._pixels(centre).reshape(2) / 2**SUBPIXEL_BITS
        place = (round(x + 7), round(y - 6))
        cv2.putText(self.image, str(agent.track_id), place, FONT, 0.36, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(self.image, str(agent.track_id), place, FONT, 0.36, color, 1, cv2.LINE_AA)

    def _lines(self, xy: ArrayLike, color: Color, *, thickness: int = 1, closed: bool = False) -> None:
        cv2.polylines(self.image, [self._pixels(xy)], closed, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def _polygon(self, xy: ArrayLike, *, fill: Color, edge: Color | None) -> None:
        cv2.fillPoly(self.image, [self._pixels(xy)], fill, cv2.LINE_AA, SUBPIXEL_BITS)
        if edge is not None:
            self._lines(xy, edge, closed=True)

    def _arrow(self, start: ArrayLike, end: ArrayLike, color: Color) -> None:
        first, second = self._pixels(start).reshape(2).tolist(), self._pixels(end).reshape(2).tolist()
        cv2.arrowedLine(self.image, first, second, color, 1, cv2.LINE_AA, SUBPIXEL_BITS, tipLength=0.2)

    def _dot(self, xy: ArrayLike, radius: int, color: Color) -> None:
        centre = self._pixels(xy).reshape(2).tolist()
        cv2.circle(self.image, centre, radius << SUBPIXEL_BITS, color, -1, cv2.LINE_AA, SUBPIXEL_BITS)

    def _pixels(self, xy: ArrayLike) -> NDArray[np.int32]:
        """Fixed-point pixels [N, 1, 2] of points [N, 2] in base_link."""
        points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        pixels = self._origin - points[:, ::-1] * self._scale
        return np.round(np.clip(pixels, -16_000, 16_000) * 2**SUBPIXEL_BITS).astype(np.int32).reshape(-1, 1, 2)
