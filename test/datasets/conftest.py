"""A drive in numbers for the tests of nuScenes-format data: small pictures, a bend, and a few road users."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command, DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import Array, invert, planar_transform, yaw_of
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.datasets.nuscenes_export import ExportBox, ExportFrame, ExportScene
from opendrivevla_ros.datasets.nuscenes_map import LaneShape, RoadLayers
from opendrivevla_ros.world.rig import STAMP_OFFSETS_NS, nuscenes_rig

START_NS = 1_700_000_000_000_000_000
STEP_NS = 500_000_000
SIZE = (96, 54)
SPEED, YAW_RATE = 8.0, 0.15  # m/s, rad/s, to the left


def ego_pose(time_s: float) -> Array:
    """base_link on a circle, from (20, -5) with heading 0.3."""
    turn = YAW_RATE * time_s
    radius = SPEED / YAW_RATE
    along = planar_transform(radius * np.sin(turn), radius * (1 - np.cos(turn)), turn)
    return planar_transform(20.0, -5.0, 0.3) @ along


def _ego(stamp_ns: int, time_s: float) -> EgoState:
    pose = ego_pose(time_s)
    past = [invert(pose) @ ego_pose(time_s - back) for back in (2.0, 1.5, 1.0, 0.5)]
    return EgoState(
        stamp_ns=stamp_ns,
        base_to_world=pose,
        velocity=np.array([SPEED, 0.0, 0.0]),
        acceleration=np.array([0.0, SPEED * YAW_RATE, 0.0]),
        angular_velocity=np.array([0.0, 0.0, YAW_RATE]),
        history=np.array([[step[0, 3], step[1, 3], yaw_of(step)] for step in past]),
        steering=0.05,
        world_frame="map",
    )


def _boxes(time_s: float) -> tuple[ExportBox, ...]:
    start = ego_pose(0.0)
    lead = ego_pose(time_s + 2.0) @ planar_transform(0.0, 0.2, 0.0)

    def box(name: str, category: str, pose: Array, size: tuple[float, float, float], attribute: str = "") -> ExportBox:
        centre = pose[:3, 3] + [0.0, 0.0, size[2] / 2]
        return ExportBox(name, category, centre, np.array(size), yaw_of(pose), attribute)

    boxes = [
        box("lead", "vehicle.car", lead, (4.4, 1.8, 1.5), "vehicle.moving"),
        box("parked", "vehicle.truck", start @ planar_transform(14.0, -5.0, 0.1), (8.0, 2.5, 3.0), "vehicle.parked"),
        box("cone", "movable_object.trafficcone", start @ planar_transform(9.0, 6.0, 0.0), (0.4, 0.4, 0.8)),
    ]
    if time_s >= 1.0:  # who comes later
        walking = start @ planar_transform(18.0, 8.0 - 1.2 * time_s, -np.pi / 2)
        boxes.append(box("walker", "human.pedestrian.adult", walking, (0.6, 0.6, 1.7), "pedestrian.moving"))
    return tuple(boxes)


def road() -> RoadLayers:
    """A road of two lanes along the drive, with a crossing and a stop line."""
    poses = [ego_pose(time_s) for time_s in np.arange(-4.0, 9.0, 0.25)]

    def line(left: float) -> Array:
        return np.array([(pose @ [0.0, left, 0.0, 1.0])[:2] for pose in poses])

    def strip(right: float, left: float) -> Array:
        return np.concatenate([line(right), line(left)[::-1]])

    crossing = ego_pose(1.5)
    corners = np.array([[0, -1.75], [3, -1.75], [3, 5.25], [0, 5.25]])
    return RoadLayers(
        drivable=(strip(-1.75, 5.25),),
        lanes=(LaneShape(strip(-1.75, 1.75)), LaneShape(strip(1.75, 5.25)[::-1])),
        road_dividers=(line(1.75),),
        crosswalks=((crossing[:2, :2] @ corners.T).T + crossing[:2, 3],),
        stop_lines=((crossing[:2, :2] @ np.array([[-1.0, -1.75], [-1.0, 1.75]]).T).T + crossing[:2, 3],),
    )


def picture(camera: str, index: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth picture that tells camera and frame apart, so that JPEG keeps it."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, width, dtype=np.uint8)
    image[..., 1] = 40 * CAMERA_NAMES.index(camera)
    image[..., 2] = 10 * index
    return image


def drive(frames: int, rig: CameraRig) -> Iterator[ExportFrame]:
    """Keyframes half a second apart."""
    size = (rig.cameras[0].width, rig.cameras[0].height)
    for index in range(frames):
        stamp_ns = START_NS + index * STEP_NS
        time_s = index * STEP_NS / 1e9
        stamps = {name: stamp_ns + STAMP_OFFSETS_NS[name] for name in CAMERA_NAMES}
        pictures = tuple(CameraFrame(name, stamps[name], picture(name, index, size)) for name in CAMERA_NAMES)
        poses = np.stack([ego_pose((stamps[name] - START_NS) / 1e9) for name in CAMERA_NAMES])
        command = DrivingCommand(Command.TURN_LEFT, is_default=False)
        observation = Observation(stamp_ns, pictures, rig, _ego(stamp_ns, time_s), command)
        yield ExportFrame(observation, poses, _boxes(time_s))


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., ExportScene]:
    """Builds a scene of some frames (keywords: name, split, frames, size)."""

    def make(
        name: str = "bend", split: str = "world_val", frames: int = 8, size: tuple[int, int] = SIZE
    ) -> ExportScene:
        return ExportScene(name, split, road(), drive(frames, nuscenes_rig(*size)))

    return make
