"""The overview: what is drawn lies where the calibration says, and nothing is drawn behind a camera."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros.samples import observation, plan

from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.ros.birds_eye import BirdsEyeView
from opendrivevla_ros.ros.camera_view import NEAR_PLANE_METRES, CameraView, bgr, clip_to_near_plane, ribbon
from opendrivevla_ros.ros.overview import CELL, GAP, LAYOUT, render_overview
from opendrivevla_ros.ros.palette import PLAN_RGB, Footprint

points = st.tuples(*[st.floats(-50, 50)] * 3)


@given(st.lists(points, min_size=3, max_size=6))
def test_nothing_of_a_clipped_polygon_lies_before_the_near_plane(polygon: list[tuple[float, float, float]]) -> None:
    clipped = clip_to_near_plane(np.array(polygon))
    assert (clipped[:, 2] >= NEAR_PLANE_METRES - 1e-9).all()
    if min(point[2] for point in polygon) >= NEAR_PLANE_METRES:
        assert np.array_equal(clipped, np.array(polygon))
    if max(point[2] for point in polygon) < NEAR_PLANE_METRES:
        assert len(clipped) == 0


@given(st.floats(0.5, 20.0), st.floats(-0.1, 0.1))
def test_the_ribbon_passes_through_the_waypoints_at_its_full_width(speed: float, bend: float) -> None:
    times = np.arange(1, 7) * 0.5
    xy = np.column_stack([speed * times, bend * (speed * times) ** 2 / 10])
    left, right = ribbon(Trajectory.from_waypoints(times, xy), 0.9)
    centre = (left + right)[:, :2] / 2
    nearest = np.linalg.norm(centre[:, None] - xy[None], axis=2).min(axis=0)
    assert nearest.max() < 1e-9
    assert np.linalg.norm(left - right, axis=1) == pytest.approx(np.full(len(left), 1.8))


def test_the_plan_is_drawn_where_the_calibration_projects_it() -> None:
    """A ground point on the plan 8 m ahead turns green in the front picture, one beside it stays grey."""
    seen = observation()
    calibration = seen.rig["cam_front"]
    view = CameraView(seen.frames[0], calibration, (calibration.width, calibration.height))
    view.draw_plan(plan().trajectory, Footprint())
    pixels, _ = calibration.project(np.array([[8.0, 0.0, 0.0], [8.0, 3.0, 0.0]]))
    (u, v), (beside_u, beside_v) = np.round(pixels).astype(int)
    green, grey = view.image[v, u].astype(int), view.image[beside_v, beside_u]
    assert green[1] > green[0]
    assert green[1] > green[2]
    assert (grey == 60).all()


def test_the_edges_of_an_agents_box_are_drawn_where_the_calibration_projects_them() -> None:
    seen, car = observation(), plan().agents[0]
    calibration = seen.rig["cam_front"]
    view = CameraView(seen.frames[0], calibration, (calibration.width, calibration.height))
    view.draw_agents([car])
    pixels, _ = calibration.project(np.array([[18.0, 0.0, 0.0], [18.0, 2.0, 1.6]]))
    for u, v in np.round(pixels).astype(int):
        assert (view.image[v - 1 : v + 2, u - 1 : u + 2] != 60).any()


@pytest.mark.parametrize("camera", ["cam_back", "cam_back_left", "cam_back_right"])
def test_a_plan_ahead_is_not_drawn_into_the_pictures_behind(camera: str) -> None:
    seen = observation()
    frame = seen.frames[CAMERA_NAMES.index(camera)]
    view = CameraView(frame, seen.rig[camera], CELL)
    view.draw_plan(plan().trajectory, Footprint())
    assert (view.image == 60).all()


def test_ahead_is_up_and_left_is_left_in_the_birds_eye_view() -> None:
    line = MapElement("boundary", 1.0, np.array([[5.0, 10.0], [20.0, 10.0]]))
    straight = replace(plan(), agents=(), map_elements=(line,))
    size = (400, 500)
    empty = BirdsEyeView(size).image.copy()
    changed = (BirdsEyeView(size).draw(straight, Footprint()) != empty).any(axis=2)
    red = cv2.absdiff(BirdsEyeView(size).draw(straight, Footprint()), np.array(bgr((0.92, 0.35, 0.38)), np.uint8))
    rows, columns = np.nonzero(red.max(axis=2) < 20)
    assert columns.max() < size[0] / 2
    rows_changed = np.nonzero(changed)[0]
    assert rows.max() < rows_changed.max()


def test_all_cameras_have_their_place_and_degraded_ones_say_so() -> None:
    seen = observation()
    full = render_overview(seen, plan(), status="small")
    frames = tuple(replace(frame, held=frame.camera == "cam_back") for frame in seen.frames)
    held = render_overview(replace(seen, frames=frames), plan(), status="small")
    assert full.dtype == np.uint8
    assert sorted(sum(LAYOUT, ())) == sorted(CAMERA_NAMES)
    rows, columns = np.nonzero((full != held).any(axis=2))
    assert CELL[1] < rows.min() < rows.max() < 2 * CELL[1] + GAP
    assert CELL[0] < columns.min() < columns.max() < 2 * CELL[0] + GAP


def test_without_a_plan_the_pictures_are_shown_with_the_reason() -> None:
    refused = render_overview(observation(), None, status="cam_back: cut off")
    assert refused.shape == render_overview(observation(), plan()).shape
    green = np.array(bgr(PLAN_RGB), np.uint8)
    assert not (refused == green).all(axis=2).any()
