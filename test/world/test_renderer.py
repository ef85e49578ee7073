"""The renderer: geometry against the calibration, what hides what, what every road user looks like, repeatability."""

import hashlib
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from world.scenes import actor, busy_street, empty_street

from opendrivevla_ros.core.geometry import apply, box_corners, invert
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.world.appearance import palette
from opendrivevla_ros.world.bodies import body
from opendrivevla_ros.world.image_effects import ImageEffects
from opendrivevla_ros.world.mesh import box
from opendrivevla_ros.world.panda_geometry import node
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.state import Actor, Appearance, Attribute, Category, TimeOfDay, Weather, WorldState

WIDTH, HEIGHT = 400, 224
VEHICLES = (Category.CAR, Category.TRUCK, Category.BUS)
SHADOW_REACH = 0.8  # metres around its footprint that a road user's shadow may reach


@pytest.fixture(scope="module")
def renderer():
    renderer = Renderer(nuscenes_rig(), image_size=(WIDTH, HEIGHT))
    yield renderer
    renderer.close()


def tilted(rig: CameraRig) -> CameraRig:
    """The rig with cameras a few degrees off in pitch, roll and yaw."""
    random = np.random.default_rng(2)
    cameras = []
    for camera in rig.cameras:
        pose = camera.camera_to_base.copy()
        pose[:3, :3] = pose[:3, :3] @ Rotation.from_euler("xyz", random.normal(0, 3, 3), degrees=True).as_matrix()
        cameras.append(replace(camera, camera_to_base=pose))
    return replace(rig, cameras=tuple(cameras))


def projected_box(rig: CameraRig, camera: str, state: WorldState, one: Actor, *, shadow: bool = False) -> np.ndarray:
    """Low and high pixel [2, 2] of an actor's box (or of all ground its shadow may darken) at WIDTH x HEIGHT."""
    size, middle = np.array(one.size), [one.x, one.y, one.size[2] / 2]
    if shadow:
        size, middle = (
            np.array([1.15 * size[0] + 2 * SHADOW_REACH, 1.15 * size[1] + 2 * SHADOW_REACH, 0.0]),
            [one.x, one.y, 0.0],
        )
    corners = apply(invert(state.ego.base_to_world), box_corners(middle, size, one.yaw))
    calibration = rig[camera]
    pixels, depth = calibration.project(corners)
    assert (depth > 0).all()
    scaled = pixels * [WIDTH / calibration.width, HEIGHT / calibration.height]
    return np.stack([scaled.min(axis=0), scaled.max(axis=0)])


def difference(renderer: Renderer, first: WorldState, second: WorldState, view: int) -> np.ndarray:
    """Largest change of a channel at each pixel of one view."""
    one, two = (renderer.render(state)[view].astype(int) for state in (first, second))
    return np.abs(one - two).max(axis=2)


def test_one_camera_alone_is_drawn_as_among_all(renderer: Renderer) -> None:
    state = busy_street()
    for camera, picture in zip(renderer.rig.cameras, renderer.render(state), strict=True):
        np.testing.assert_array_equal(renderer.render_one(camera.name, state), picture)


@pytest.mark.parametrize("antialiasing", [1, 2])
def test_markers_appear_where_the_calibration_projects_them(antialiasing: int) -> None:
    rig = tilted(nuscenes_rig())
    renderer = Renderer(rig, image_size=(WIDTH, HEIGHT), antialiasing=antialiasing)
    state = replace(empty_street(), ego=replace(empty_street().ego, yaw=0.3))
    light = palette(state.appearance).light
    random = np.random.default_rng(3)
    plain = renderer.render(state)
    errors = []
    for number, camera in enumerate(rig.cameras):
        for _ in range(8):
            depth = random.uniform(2.0, 4.0)
            pixel = random.uniform([40, 30], [WIDTH - 40, HEIGHT - 30]) * [
                camera.width / WIDTH,
                camera.height / HEIGHT,
            ]
            ray = np.linalg.inv(camera.intrinsics) @ [*pixel, 1.0]
            point = apply(camera.camera_to_base, depth * ray)
            expected, _ = camera.project(point)
            size = 0.012 * depth
            marker = renderer._ego.attach_new_node(
                node(box(point - size, point + size, (1.0, 0.0, 1.0), emission=1.0, closed=True), light)
            )
            marker.set_bin("fixed", 99)
            marker.set_depth_test(False)
            drawn = renderer.render(state)[number].astype(float)
            marker.remove_node()
            weight = np.abs(drawn - plain[number]).sum(axis=2)
            assert weight.sum() > 0
            rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
            centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
            errors.append(centre - expected * [WIDTH / camera.width, HEIGHT / camera.height])
    renderer.close()
    assert np.abs(errors).max() < 1.0
    assert np.abs(np.mean(errors, axis=0)).max() < 0.25


def test_the_same_state_gives_the_same_bytes_again_and_in_another_process(renderer: Renderer) -> None:
    busy, other = busy_street(), busy_street(Appearance(8, TimeOfDay.NIGHT))
    first = b"".join(image.tobytes() for image in renderer.render(busy))
    renderer.render(other)
    assert b"".join(image.tobytes() for image in renderer.render(busy)) == first
    script = (
        "import hashlib\n"
        "from world.scenes import busy_street\n"
        "from opendrivevla_ros.world.renderer import Renderer\n"
        "from opendrivevla_ros.world.rig import nuscenes_rig\n"
        f"images = Renderer(nuscenes_rig(), image_size=({WIDTH}, {HEIGHT})).render(busy_street())\n"
        "print(hashlib.sha256(b''.join(image.tobytes() for image in images)).hexdigest())\n"
    )
    command = [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{script}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.strip() == hashlib.sha256(first).hexdigest()


def test_the_picture_does_not_depend_on_who_was_seen_first() -> None:
    state = busy_street(Appearance(8, TimeOfDay.NIGHT))
    crowd = tuple(actor(20 + k, Category.CAR, 12.0 + 0.6 * k, -1.0 + 0.7 * k, state.ego) for k in range(3))
    state = replace(state, actors=(*state.actors, *crowd))
    pictures = []
    for order in (1, -1):
        renderer = Renderer(nuscenes_rig(), image_size=(WIDTH, HEIGHT), antialiasing=1)
        for shown in range(4, len(state.actors) + 1):
            images = renderer.render(replace(state, actors=state.actors[::order][:shown]))
        pictures.append(images)
        renderer.close()
    assert all((one == two).all() for one, two in zip(*pictures, strict=True))


@pytest.mark.parametrize("category", list(Category))
@pytest.mark.parametrize(("ahead", "left", "view"), [(14.0, 0.0, 0), (-14.0, 0.5, 3)])
def test_every_category_changes_the_picture_in_its_projected_box_and_nowhere_else(
    renderer: Renderer, category: Category, ahead: float, left: float, view: int
) -> None:
    state = empty_street()
    one = actor(0, category, ahead, left, state.ego, yaw=0.2, appearance=1)
    busy = replace(state, actors=(one,))
    changed = difference(renderer, state, busy, view) > 12
    camera = renderer.rig.cameras[view].name
    (low_x, low_y), (high_x, high_y) = np.rint(projected_box(renderer.rig, camera, state, one)).astype(int)
    inside = np.zeros_like(changed)
    inside[max(low_y - 1, 0) : high_y + 2, max(low_x - 1, 0) : high_x + 2] = True
    assert changed[inside].mean() > (0.2 if category is Category.BICYCLE else 0.3)
    (low_x, low_y), (high_x, high_y) = projected_box(renderer.rig, camera, state, one, shadow=True)
    rows, columns = np.nonzero(changed & ~inside)
    brighter = renderer.render(busy)[view].astype(int).sum(axis=2) > renderer.render(state)[view].astype(int).sum(
        axis=2
    )
    assert not brighter[rows, columns].any()
    assert ((rows >= low_y) & (rows <= high_y) & (columns >= low_x) & (columns <= high_x)).all()


@pytest.mark.parametrize("category", list(Category))
def test_a_shape_reaches_the_edges_of_its_box_and_does_not_leave_it(category: Category) -> None:
    for look in range(6):
        shape = body(category, look)
        meshes = [shape.shell, *(limb.mesh for limb in shape.limbs)]
        points = np.concatenate([mesh.vertices for mesh in meshes])
        assert (points.min(axis=0) >= [-0.501, -0.501, -0.001]).all()
        assert (points.max(axis=0) <= [0.501, 0.501, 1.011]).all()
        assert points[:, 2].max() > 0.97
        if category in VEHICLES:
            assert np.ptp(points[:, 0]) > 0.98
            assert np.ptp(points[:, 1]) > 0.95


def test_a_nearer_vehicle_hides_a_farther_one_whatever_their_order(renderer: Renderer) -> None:
    state = empty_street()
    truck = actor(0, Category.TRUCK, 12.0, 0.0, state.ego)
    child = replace(actor(1, Category.PEDESTRIAN, 22.0, 0.0, state.ego), size=(0.5, 0.5, 1.2))
    alone = renderer.render(replace(state, actors=(truck,)))[0]
    for actors in ((truck, child), (child, truck)):
        assert (renderer.render(replace(state, actors=actors))[0] == alone).all()
    visible = difference(renderer, state, replace(state, actors=(child,)), 0)
    assert visible.max() > 30


@pytest.mark.parametrize("category", VEHICLES)
@pytest.mark.parametrize("time_of_day", list(TimeOfDay))
def test_brake_lights_turn_pixels_red(renderer: Renderer, category: Category, time_of_day: TimeOfDay) -> None:
    state = empty_street(appearance=Appearance(3, time_of_day))
    one = actor(0, category, 14.0, 0.0, state.ego)
    dark = renderer.render(replace(state, actors=(one,)))[0].astype(int)
    lit = renderer.render(replace(state, actors=(replace(one, brake_lights=True),)))[0].astype(int)
    redder = (lit[..., 2] - dark[..., 2] > 60) & (lit[..., 2] > 2 * lit[..., 1]) & (lit[..., 2] > 150)
    assert redder.sum() >= 6
    (low_x, low_y), (high_x, high_y) = projected_box(renderer.rig, "cam_front", state, one)
    rows, columns = np.nonzero((lit != dark).any(axis=2))
    assert low_y - 2 <= rows.min() <= rows.max() <= high_y + 2
    assert low_x - 2 <= columns.min() <= columns.max() <= high_x + 2


def test_a_parked_car_shines_no_headlights(renderer: Renderer) -> None:
    state = empty_street(appearance=Appearance(3, TimeOfDay.NIGHT))
    moving = actor(0, Category.CAR, 12.0, 3.0, state.ego, yaw=np.pi)
    parked = replace(moving, attribute=Attribute.PARKED)
    bright = [(renderer.render(replace(state, actors=(one,)))[0].min(axis=2) > 190).sum() for one in (moving, parked)]
    lamps = (renderer.render(state)[0].min(axis=2) > 190).sum()
    assert bright[0] > bright[1] + 10
    assert bright[1] <= lamps


def test_an_indicator_blinks_on_its_own_side(renderer: Renderer) -> None:
    state = empty_street()
    one = actor(0, Category.CAR, 10.0, 0.0, state.ego)
    off = replace(state, actors=(one,))
    for indicator in (1, -1):
        on = replace(state, actors=(replace(one, indicator=indicator),))
        columns = np.nonzero(difference(renderer, off, on, 0).max(axis=0) > 20)[0]
        middle = 816.0 * WIDTH / 1600
        assert len(columns) > 0
        assert ((columns < middle) == (indicator > 0)).all()
        later = {"time_ns": 500_000_000}
        assert difference(renderer, replace(off, **later), replace(on, **later), 0).max() == 0


def test_legs_move_as_a_pedestrian_walks_and_rest_while_it_stands(renderer: Renderer) -> None:
    state = empty_street()
    one = actor(0, Category.PEDESTRIAN, 6.0, 0.0, state.ego, yaw=1.5)
    pictures = {}
    for speed in (0.0, 1.4):
        steps = [replace(state, actors=(replace(one, speed=speed, walked=walked),)) for walked in (0.0, 0.4)]
        pictures[speed] = difference(renderer, *steps, 0)
    assert pictures[0.0].max() == 0
    assert (pictures[1.4] > 20).sum() > 20


@pytest.mark.parametrize("size", [(224, 128), (333, 187), (1600, 900)])
def test_pictures_have_the_wanted_size_in_bgr(size: tuple[int, int]) -> None:
    renderer = Renderer(nuscenes_rig(), image_size=size, antialiasing=1)
    images = renderer.render(empty_street(appearance=Appearance(1)))
    renderer.close()
    assert len(images) == 6
    for image in images:
        assert image.shape == (size[1], size[0], 3)
        assert image.dtype == np.uint8
        assert image.flags["C_CONTIGUOUS"]
    sky = images[3][: size[1] // 8].reshape(-1, 3).mean(axis=0)
    assert sky[0] > sky[2] + 20  # blue comes first


def test_cameras_of_different_sizes_need_an_image_size() -> None:
    rig = nuscenes_rig()
    odd = replace(rig, cameras=(replace(rig.cameras[0], width=800), *rig.cameras[1:]))
    with pytest.raises(ValueError, match="give one image_size"):
        Renderer(odd)
    with pytest.raises(ValueError, match="give whole numbers above 0"):
        Renderer(rig, image_size=(0, 128))


def test_times_of_day_and_weather_change_the_light(renderer: Renderer) -> None:
    brightness = {time: np.mean(renderer.render(empty_street(appearance=Appearance(5, time)))) for time in TimeOfDay}
    assert brightness[TimeOfDay.DAY] > 1.3 * brightness[TimeOfDay.DUSK] > 1.3 * brightness[TimeOfDay.NIGHT]
    blueness = {}
    for weather in Weather:
        back = renderer.render(empty_street(appearance=Appearance(5, TimeOfDay.DAY, weather)))[3]
        sky = back[: HEIGHT // 8].astype(float)
        blueness[weather] = (sky[..., 0] - sky[..., 2]).mean()
    assert blueness[Weather.CLEAR] > 2 * max(blueness[w] for w in Weather if w is not Weather.CLEAR)


def test_noise_and_blur_are_seeded_and_as_strong_as_asked(renderer: Renderer) -> None:
    state = busy_street()
    plain = renderer.render(state)[0].astype(float)
    noisy = renderer.render(state, ImageEffects(noise=5.0))[0]
    assert (noisy == renderer.render(state, ImageEffects(noise=5.0))[0]).all()
    later = renderer.render(replace(state, time_ns=1), ImageEffects(noise=5.0))[0]
    assert (noisy != later).any()
    middle = (plain > 30) & (plain < 225)
    assert (noisy - plain)[middle].std() == pytest.approx(5.0, rel=0.1)
    blurred = renderer.render(state, ImageEffects(blur=2.0))[0].astype(float)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.6 * np.abs(np.diff(plain, axis=1)).mean()
    with pytest.raises(ValueError, match="noise"):
        ImageEffects(noise=-1.0)


def test_memory_does_not_grow_over_300_frames_and_new_scenes() -> None:
    renderer = Renderer(nuscenes_rig(), image_size=(112, 64), antialiasing=1)
    base = busy_street()

    def drive(frames: int, start: int) -> None:
        for frame in range(start, start + frames):
            ego = replace(base.ego, x=base.ego.x + 0.1 * (frame % 100), yaw=0.001 * frame)
            actors = tuple(replace(one, x=one.x + 0.01 * frame) for one in base.actors if one.id != frame % 9)
            look = base.appearance if frame % 25 else Appearance(frame)
            renderer.render(replace(base, time_ns=frame, ego=ego, actors=actors, appearance=look))

    drive(120, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    drive(300, 120)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    renderer.close()
    assert grown < 20_000, f"{grown} KiB more after 300 frames"
