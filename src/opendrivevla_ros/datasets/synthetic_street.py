"""A street that exists only in numbers: a curved road with traffic, drawn as six cameras see it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, apply, box_corners, invert, planar_transform
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

LANE_WIDTH = 3.6
ROAD_HALF_WIDTH = 2 * LANE_WIDTH
PAVEMENT_WIDTH = 3.0
CURVE_LENGTH = 180.0  # metres from one bend to the next like it
CURVE_HEADING = 0.22  # radians
GROUND_METRES_PER_PIXEL = 0.08
FOG_METRES = 90.0
NEAR_METRES = 0.4
HAZE: Color = (226, 214, 200)
ZENITH: Color = (222, 164, 108)
LIGHT = np.array([0.35, -0.5, 0.8])

# Where the cameras of nuScenes' vehicles sit, rounded: x, y, z in base_link, and the focal length at 1600 pixels.
MOUNTING = {
    "cam_front": (1.70, 0.0, 1.51, 1266.0),
    "cam_front_right": (1.55, -0.49, 1.50, 1261.0),
    "cam_front_left": (1.52, 0.49, 1.51, 1273.0),
    "cam_back": (0.03, 0.0, 1.58, 809.0),
    "cam_back_left": (1.04, 0.48, 1.57, 1257.0),
    "cam_back_right": (1.01, -0.48, 1.56, 1260.0),
}


def street_rig(width: int, height: int) -> CameraRig:
    """Six level pinhole cameras like those of nuScenes' vehicles, with images of `width` x `height`."""
    cameras = []
    for name in CAMERA_NAMES:
        x, y, z, focal = MOUNTING[name]
        focal *= width / 1600
        intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        optical_to_base = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0, 0, 0, 1]])
        pose = planar_transform(x, y, np.radians(NOMINAL_YAW_DEGREES[name])) @ optical_to_base
        pose[2, 3] = z
        cameras.append(CameraCalibration(name, width, height, intrinsics, pose))
    return CameraRig(tuple(cameras))


@dataclass(frozen=True)
class Body:
    """A box on the road: where along it (m), how far left of its middle (m), its speed (m/s), size and colour."""

    along: float
    left: float
    speed: float
    size: tuple[float, float, float]
    color: Color
    kind: str = "car"
    heading: float = 0.0


class Street:
    """The road, what stands beside it and who drives on it; the same for the same seed.

    The ego vehicle drives in the right lane; `ego_pose` says where it is at a time in seconds.
    """

    ego_speed = 8.0
    ego_left = -LANE_WIDTH / 2

    def __init__(self, length: float, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._along = np.arange(-120.0, length + 220.0, 0.5)
        self._heading = CURVE_HEADING * np.sin(2 * np.pi * self._along / CURVE_LENGTH)
        steps = 0.5 * np.column_stack([np.cos(self._heading), np.sin(self._heading)])
        middle = np.cumsum(steps, axis=0)
        self._middle = middle - middle[int(np.searchsorted(self._along, 0.0))]
        self._buildings = self._place_buildings()
        self._traffic = self._place_traffic()
        self._origin = self._middle.min(axis=0) - 60.0
        self._ground = self._paint_ground()

    def place(self, along: float, left: float, heading: float = 0.0) -> Array:
        """The 4x4 pose of something `along` metres down the road and `left` of its middle."""
        x = np.interp(along, self._along, self._middle[:, 0])
        y = np.interp(along, self._along, self._middle[:, 1])
        yaw = float(np.interp(along, self._along, self._heading))
        return planar_transform(x - left * np.sin(yaw), y + left * np.cos(yaw), yaw + heading)

    def ego_along(self, time_s: float) -> float:
        """How far the ego vehicle has come, metres: a steady speed with a gentle wave in it."""
        return self.ego_speed * time_s + 1.2 * (1 - np.cos(0.9 * time_s))

    def ego_pose(self, time_s: float) -> Array:
        """The 4x4 pose of base_link in the world."""
        return self.place(self.ego_along(time_s), self.ego_left)

    def draw(self, camera: "StreetCamera", time_s: float) -> Image:
        """What `camera` sees, BGR [height, width, 3]."""
        base_to_world = self.ego_pose(time_s)
        image = camera.draw_ground(self._ground, base_to_world, self._origin)
        traffic = self._traffic
        bodies = [(body, self.place(body.along + body.speed * time_s, body.left, body.heading)) for body in traffic]
        everything = [*self._buildings, *bodies]
        camera_to_world = base_to_world @ camera.calibration.camera_to_base
        eye = camera_to_world[:2, 3]
        everything.sort(key=lambda item: -float(np.hypot(*(item[1][:2, 3] - eye))))
        world_to_camera = invert(camera_to_world)
        for body, pose in everything:
            camera.draw_body(image, body, world_to_camera @ pose, pose)
        return image

    def _place_buildings(self) -> list[tuple[Body, Array]]:
        placed = []
        for side in (-1, 1):
            along = -100.0
            while along < self._along[-1] - 60:
                width = float(self._rng.uniform(10, 22))
                depth, height = float(self._rng.uniform(9, 14)), float(self._rng.uniform(5, 16))
                left = side * (ROAD_HALF_WIDTH + PAVEMENT_WIDTH + 4.0 + depth / 2)
                tone = self._rng.uniform(120, 205)
                color = tuple(int(tone * factor) for factor in self._rng.uniform(0.8, 1.1, 3))
                size, paint = (width, depth, height), (color[0], color[1], color[2])
                body = Body(along + width / 2, left, 0.0, size, paint, "house")
                placed.append((body, self.place(body.along, left)))
                along += width + float(self._rng.uniform(3, 14))
            for tree in np.arange(-90.0, self._along[-1] - 60, 17.0):
                body = Body(tree, side * (ROAD_HALF_WIDTH + 1.2), 0.0, (0.3, 0.3, 2.6), (52, 74, 96), "tree")
                placed.append((body, self.place(tree + float(self._rng.uniform(-2, 2)), body.left)))
        return placed

    def _place_traffic(self) -> list[Body]:
        car, truck, person = (4.4, 1.85, 1.5), (8.5, 2.5, 3.1), (0.5, 0.55, 1.75)
        right, opposite = -LANE_WIDTH / 2, LANE_WIDTH / 2
        bodies = [
            Body(24.0, right, 8.4, car, (54, 62, 190)),
            Body(52.0, right, 8.0, truck, (200, 186, 160), "truck"),
            Body(-16.0, right, 8.0, car, (150, 120, 60)),
            Body(45.0, opposite, -9.0, car, (190, 190, 196), heading=np.pi),
            Body(88.0, opposite, -8.0, truck, (90, 140, 90), "truck", np.pi),
            Body(120.0, opposite, -9.5, car, (60, 60, 66), heading=np.pi),
        ]
        for along in np.arange(-40.0, self._along[-1] - 150, 13.0):
            if self._rng.random() < 0.6:
                shade = self._rng.integers(60, 210, 3)
                color = (int(shade[0]), int(shade[1]), int(shade[2]))
                bodies.append(Body(float(along), -ROAD_HALF_WIDTH + 1.1, 0.0, car, color))
        for along in np.arange(0.0, self._along[-1] - 150, 16.0):
            side = 1 if self._rng.random() < 0.5 else -1
            speed = float(self._rng.uniform(-1.4, 1.4))
            bodies.append(Body(float(along), side * (ROAD_HALF_WIDTH + 2.0), speed, person, (60, 50, 150), "person"))
        return bodies

    def _paint_ground(self) -> Image:
        """The ground from above, world x to the right and y down, GROUND_METRES_PER_PIXEL."""
        extent = (self._middle.max(axis=0) + 60.0 - self._origin) / GROUND_METRES_PER_PIXEL
        width, height = (int(value) for value in extent)
        ground = np.empty((height, width, 3), np.uint8)
        ground[:] = (78, 128, 104)
        self._band(ground, 0.0, 2 * (ROAD_HALF_WIDTH + PAVEMENT_WIDTH), (158, 162, 166))
        self._band(ground, 0.0, 2 * ROAD_HALF_WIDTH + 0.5, (205, 208, 210))
        self._band(ground, 0.0, 2 * ROAD_HALF_WIDTH, (88, 84, 82))
        for left in (-LANE_WIDTH, LANE_WIDTH):
            self._band(ground, left, 0.16, (235, 235, 235))
        for start in np.arange(self._along[0], self._along[-1] - 5, 9.0):
            self._band(ground, 0.0, 0.18, (120, 215, 240), start, start + 4.0)
        for crossing in np.arange(30.0, self._along[-1] - 100, 75.0):
            for left in np.arange(-ROAD_HALF_WIDTH + 0.6, ROAD_HALF_WIDTH, 1.2):
                self._band(ground, left, 0.6, (232, 232, 232), crossing, crossing + 3.5)
        noise = self._rng.integers(0, 24, (height // 4, width // 4, 1), dtype=np.uint8)
        grain = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.subtract(ground, cv2.merge([grain, grain, grain]))

    def _band(self, ground: Image, left: float, width: float, color: Color, *span: float) -> None:
        """Paints a band along the road, all of it or from span[0] to span[1] metres."""
        inside = (self._along >= span[0]) & (self._along <= span[1]) if span else np.ones(len(self._along), bool)
        normal = np.column_stack([-np.sin(self._heading), np.cos(self._heading)])[inside]
        middle = self._middle[inside]
        edge = np.concatenate([middle + (left + width / 2) * normal, (middle + (left - width / 2) * normal)[::-1]])
        pixels = (edge - self._origin) / GROUND_METRES_PER_PIXEL
        cv2.fillPoly(ground, [np.round(pixels * 16).astype(np.int32)], color, cv2.LINE_AA, 4)


class StreetCamera:
    """Draws the street through one camera's projection."""

    def __init__(self, calibration: CameraCalibration) -> None:
        self.calibration = calibration
        width, height = calibration.width, calibration.height
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        rays = pixels @ np.linalg.inv(calibration.intrinsics).T @ calibration.camera_to_base[:3, :3].T
        down = rays[..., 2] < -1e-4
        reach = np.where(down, -calibration.camera_to_base[2, 3] / np.where(down, rays[..., 2], -1.0), 1e4)
        ground = calibration.camera_to_base[:2, 3] + rays[..., :2] * reach[..., None]
        self._ground = ground.astype(np.float32)
        distance = np.hypot(ground[..., 0], ground[..., 1])
        self._clear = np.where(down, np.exp(-((distance / FOG_METRES) ** 2)), 0.0).astype(np.float32)
        climb = np.clip(rays[..., 2:] / np.linalg.norm(rays, axis=-1, keepdims=True) / 0.4, 0.0, 1.0)
        self._sky = (np.array(HAZE) + climb * (np.array(ZENITH, float) - HAZE)).astype(np.uint8)

    def draw_ground(self, ground: Image, base_to_world: Array, origin: Array) -> Image:
        """Sky and ground, fading into haze. ground: seen from above, its first pixel at `origin` (world, m)."""
        turn = (base_to_world[:2, :2] / GROUND_METRES_PER_PIXEL).astype(np.float32)
        shift = ((base_to_world[:2, 3] - origin) / GROUND_METRES_PER_PIXEL).astype(np.float32)
        places = cv2.transform(self._ground, np.column_stack([turn, shift]))
        seen = cv2.remap(ground, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.blendLinear(seen, self._sky, self._clear, 1 - self._clear)

    def draw_body(self, image: Image, body: Body, body_to_camera: Array, body_to_world: Array) -> None:
        """Draws a box with its sides shaded, fading into haze; nothing when it is out of sight."""
        length, width, height = body.size
        aside, _, ahead = body_to_camera[:3, 3]
        distance, reach = float(np.hypot(aside, ahead)), length + width
        slope = self.calibration.width / 2 / self.calibration.intrinsics[0, 0]
        if distance > 2 * FOG_METRES or ahead < -reach or abs(aside) > reach + slope * (ahead + reach):
            return
        clear = float(np.exp(-((distance / FOG_METRES) ** 2)))
        shadow = box_corners((0.0, 0.0, 0.01), (length + 0.3, width + 0.3, 0.0), 0.0)[:4]
        self._fill(image, apply(body_to_camera, shadow), (60, 58, 58), clear)
        if body.kind == "tree":
            self._box(image, body.size, body.color, (body_to_camera, body_to_world), clear)
            for lift, radius, tone in ((3.4, 1.5, 0.85), (4.3, 1.1, 1.0)):
                self._ball(image, body_to_camera, (lift, radius), _shade((58, 118, 70), tone), clear)
        elif body.kind in ("car", "truck"):
            self._vehicle(image, body, (body_to_camera, body_to_world), clear)
        elif body.kind == "house":
            self._box(image, body.size, body.color, (body_to_camera, body_to_world), clear, storeys=clear > 0.4)
        else:
            self._box(image, (length, width, height * 0.85), body.color, (body_to_camera, body_to_world), clear)
            self._ball(image, body_to_camera, (height * 0.9, 0.16), (140, 170, 215), clear)

    def _vehicle(self, image: Image, body: Body, poses: tuple[Array, Array], clear: float) -> None:
        """A body above dark wheels, with a cabin of glass on a car."""
        length, width, height = body.size
        base = 0.3
        waist = 0.62 * height if body.kind == "car" else height
        self._box(image, (length * 0.9, width, base), (34, 32, 32), poses, clear)
        self._box(image, (length, width, waist - base), body.color, poses, clear, lift=base)
        if body.kind == "car":
            cabin = (length * 0.55, width * 0.88, height - waist)
            self._box(image, cabin, _shade(body.color, 0.35), poses, clear, lift=waist)

    def _box(
        self,
        image: Image,
        size: tuple[float, float, float],
        color: Color,
        poses: tuple[Array, Array],
        clear: float,
        *,
        lift: float = 0.0,
        storeys: bool = False,
    ) -> None:
        """A box that stands `lift` metres above the ground; poses: body to camera, and to world for the light."""
        corners = box_corners((0.0, 0.0, lift + size[2] / 2), size, 0.0)
        points = apply(poses[0], corners)
        faces = ((0, 1, 5, 4), (2, 3, 7, 6), (1, 2, 6, 5), (3, 0, 4, 7), (4, 5, 6, 7))
        outward = np.array([[1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, 1]], float)
        for face, normal in zip(faces, outward, strict=True):
            ring = points[list(face)]
            if float(ring.mean(axis=0) @ (poses[0][:3, :3] @ normal)) >= 0:
                continue
            tone = 0.72 + 0.28 * float((poses[1][:3, :3] @ normal) @ LIGHT)
            self._fill(image, ring, _shade(color, tone), clear)
            if storeys and normal[2] == 0:
                self._windows(image, ring, size[2], clear)

    def _windows(self, image: Image, wall: Array, height: float, clear: float) -> None:
        """Rows of windows on a wall given as bottom left, bottom right, top right, top left [4, 3]."""
        columns = max(1, int(np.linalg.norm(wall[1] - wall[0]) // 3))
        rows = max(1, int(height // 3))
        across, up = wall[1] - wall[0], wall[3] - wall[0]
        for row in range(rows):
            for column in range(columns):
                u0, u1 = (column + 0.25) / columns, (column + 0.7) / columns
                v0, v1 = (row + 0.3) / rows, (row + 0.75) / rows
                ring = wall[0] + np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]]) @ np.stack([across, up])
                self._fill(image, ring, (116, 96, 80), clear)

    def _fill(self, image: Image, ring: Array, color: Color, clear: float) -> None:
        """Fills a flat ring [N, 3] of the camera frame, cut at the near plane."""
        ring = _in_front(ring)
        if len(ring) < 3:
            return
        pixels = ring @ self.calibration.intrinsics.T
        pixels = np.clip(pixels[:, :2] / pixels[:, 2:], -30000, 30000)
        width, height = self.calibration.width, self.calibration.height
        if (pixels.max(axis=0) < 0).any() or (pixels.min(axis=0) > (width, height)).any():
            return
        cv2.fillConvexPoly(image, np.round(pixels * 8).astype(np.int32), _haze(color, clear), cv2.LINE_AA, 3)

    def _ball(self, image: Image, to_camera: Array, shape: tuple[float, float], color: Color, clear: float) -> None:
        """A ball of shape (lift, radius) metres above a body's foot."""
        centre = apply(to_camera, (0.0, 0.0, shape[0]))
        if centre[2] < NEAR_METRES:
            return
        pixel = self.calibration.intrinsics @ centre / centre[2]
        radius = shape[1] * self.calibration.intrinsics[0, 0] / centre[2]
        if np.abs(pixel).max() + radius > 3e4:
            return
        middle = (round(float(pixel[0]) * 8), round(float(pixel[1]) * 8))
        cv2.circle(image, middle, max(8, round(radius * 8)), _haze(color, clear), -1, cv2.LINE_AA, 3)


def _in_front(ring: Array) -> Array:
    """The part of a ring [N, 3] that lies beyond the near plane (Sutherland and Hodgman, 1974)."""
    if (ring[:, 2] >= NEAR_METRES).all():
        return ring
    kept = []
    for first, second in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if first[2] >= NEAR_METRES:
            kept.append(first)
        if (first[2] >= NEAR_METRES) != (second[2] >= NEAR_METRES):
            kept.append(first + (NEAR_METRES - first[2]) / (second[2] - first[2]) * (second - first))
    return np.array(kept)


def _shade(color: Color, tone: float) -> Color:
    blue, green, red = (int(min(255.0, channel * tone)) for channel in color)
    return blue, green, red


def _haze(color: Color, clear: float) -> Color:
    blue, green, red = (int(channel * clear + haze * (1 - clear)) for channel, haze in zip(color, HAZE, strict=True))
    return blue, green, red
