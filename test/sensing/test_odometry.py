"""The odometry buffer against motions that are known in closed form."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from opendrivevla_ros.core.geometry import quaternion, yaw_of
from opendrivevla_ros.sensing.odometry import CAPACITY, GRAVITY, OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import ObservationError, Refusal

MS = 1_000_000
SECOND = 1000 * MS
START = 1_600_000_000 * SECOND


@dataclass(frozen=True)
class Circle:
    """A drive on a circle: speed (m/s) rising by `acceleration` (m/s^2), at a curvature (1/m), from the origin."""

    speed: float = 8.0
    acceleration: float = 0.0
    curvature: float = 0.02

    def pose(self, seconds: float) -> tuple[float, float, float]:
        distance = self.speed * seconds + self.acceleration * seconds**2 / 2
        yaw = distance * self.curvature
        if self.curvature == 0:
            return distance, 0.0, 0.0
        return np.sin(yaw) / self.curvature, (1 - np.cos(yaw)) / self.curvature, yaw

    def add_to(self, buffer: OdometryBuffer, first_ms: int, last_ms: int, step_ms: int = 10) -> None:
        for milliseconds in range(first_ms, last_ms + 1, step_ms):
            seconds = milliseconds / 1000
            x, y, yaw = self.pose(seconds)
            speed = self.speed + self.acceleration * seconds
            sample(
                buffer,
                milliseconds,
                (x, y, 0.0),
                Rotation.from_euler("z", yaw).as_quat(),
                speed,
                speed * self.curvature,
            )


def sample(
    buffer: OdometryBuffer,
    milliseconds: float,
    position=(0.0, 0.0, 0.0),
    rotation=(0.0, 0.0, 0.0, 1.0),
    speed: float = 0.0,
    yaw_rate: float = 0.0,
    frame: str = "odom",
    child: str = "base_link",
):
    return buffer.add(
        START + round(milliseconds * MS),
        position=position,
        quaternion_xyzw=rotation,
        linear=(speed, 0.0, 0.0),
        angular=(0.0, 0.0, yaw_rate),
        frame_id=frame,
        child_frame_id=child,
    )


def reason_of(refused) -> Refusal | None:
    return None if refused is None else refused.reason


@given(
    st.floats(0, 30),
    st.floats(-3, 3),
    st.integers(-100, 100).map(lambda n: n / 1000),
    st.integers(2_100 * MS, 2_990 * MS),
)
@settings(deadline=None, max_examples=100)
def test_pose_and_twist_are_interpolated_at_any_stamp(
    speed: float, acceleration: float, curvature: float, after_ns: int
) -> None:
    drive = Circle(speed, acceleration, curvature)
    buffer = OdometryBuffer()
    drive.add_to(buffer, 0, 3000, step_ms=50)
    state = buffer.state_at(START + after_ns)
    seconds = after_ns / SECOND
    x, y, yaw = drive.pose(seconds)
    sharpest = (speed + abs(acceleration) * 3) ** 2 * abs(curvature) + abs(acceleration)
    chord = sharpest * 0.05**2 / 8  # how far a straight line between two samples strays from the curve
    assert state.base_to_world[:2, 3] == pytest.approx([x, y], abs=chord + 1e-6)
    assert np.cos(yaw_of(state.base_to_world) - yaw) == pytest.approx(1, abs=1e-5)
    assert state.velocity == pytest.approx([speed + acceleration * seconds, 0, 0], abs=1e-6)
    assert state.angular_velocity[2] == pytest.approx((speed + acceleration * seconds) * curvature, abs=1e-6)
    assert state.world_frame == "odom"


def test_rotation_is_interpolated_by_slerp_over_the_short_way() -> None:
    buffer = OdometryBuffer()
    sample(buffer, 0, rotation=Rotation.from_euler("z", 170, degrees=True).as_quat())
    sample(buffer, 20, rotation=-Rotation.from_euler("z", -170, degrees=True).as_quat())
    assert abs(np.degrees(yaw_of(buffer.state_at(START + 10 * MS).base_to_world))) == pytest.approx(180)


def test_history_holds_where_base_link_was_two_to_half_a_second_ago() -> None:
    drive = Circle(speed=10.0, acceleration=1.0, curvature=0.05)
    buffer = OdometryBuffer()
    drive.add_to(buffer, 0, 3000)
    state = buffer.state_at(START + 3000 * MS)
    x0, y0, yaw0 = drive.pose(3.0)
    for row, ago in zip(state.history, (2.0, 1.5, 1.0, 0.5), strict=True):
        x, y, yaw = drive.pose(3.0 - ago)
        ahead = np.array([np.cos(yaw0), np.sin(yaw0)]) @ [x - x0, y - y0]
        left = np.array([-np.sin(yaw0), np.cos(yaw0)]) @ [x - x0, y - y0]
        assert row == pytest.approx([ahead, left, yaw - yaw0], abs=1e-3)
    assert state.history_observed == 4


@pytest.mark.parametrize(("since_ms", "observed"), [(100, 0), (500, 1), (1000, 2), (1700, 3), (2000, 4)])
def test_missing_history_continues_backwards_by_constant_displacement(since_ms: int, observed: int) -> None:
    buffer = OdometryBuffer()
    Circle(speed=6.0, curvature=0.0).add_to(buffer, 0, since_ms)
    state = buffer.state_at(START + since_ms * MS)
    assert state.history_observed == observed
    assert state.history == pytest.approx(np.array([[-12, 0, 0], [-9, 0, 0], [-6, 0, 0], [-3, 0, 0]]), abs=1e-6)


def test_a_hole_in_the_past_ends_the_observed_history() -> None:
    buffer = OdometryBuffer()
    drive = Circle(speed=6.0, curvature=0.0)
    drive.add_to(buffer, 0, 1200)
    drive.add_to(buffer, 1800, 3000)
    assert buffer.state_at(START + 3000 * MS).history_observed == 2


def test_acceleration_is_the_slope_of_velocity_with_the_centripetal_part() -> None:
    buffer = OdometryBuffer()
    Circle(speed=5.0, acceleration=1.5, curvature=0.02).add_to(buffer, 0, 1000)
    acceleration = buffer.state_at(START + 1000 * MS).acceleration
    assert acceleration == pytest.approx([1.5, 6.5**2 * 0.02, 0.0], abs=1e-6)


def test_acceleration_smooths_the_noise_of_velocity() -> None:
    buffer = OdometryBuffer()
    draw = np.random.default_rng(0)
    for milliseconds in range(0, 1001, 10):
        sample(buffer, milliseconds, speed=5.0 + float(draw.normal(0, 0.02)))
    assert abs(buffer.state_at(START + 1000 * MS).acceleration[0]) < 0.2


def test_acceleration_is_zero_while_too_little_is_known() -> None:
    buffer = OdometryBuffer()
    for milliseconds in range(4):
        sample(buffer, milliseconds * 10, speed=float(milliseconds))
    assert buffer.state_at(START + 30 * MS).acceleration[0] == 0.0


def test_imu_samples_replace_the_slope_and_lose_gravity_as_the_odometry_tilts() -> None:
    buffer = OdometryBuffer()
    pitch = Rotation.from_euler("y", -10, degrees=True)  # nose up
    for milliseconds in range(0, 201, 10):
        sample(buffer, milliseconds, rotation=pitch.as_quat(), speed=5.0)
        force = np.array([1.2, 0.3, 0.0]) + pitch.inv().apply([0.0, 0.0, GRAVITY])
        stamp = START + milliseconds * MS
        assert buffer.add_imu(stamp, linear_acceleration=force, angular_velocity=(0, 0, 0)) is None
    assert buffer.state_at(START + 200 * MS).acceleration == pytest.approx([1.2, 0.3, 0.0], abs=1e-9)


def test_an_imu_that_stops_gives_way_to_the_slope() -> None:
    buffer = OdometryBuffer()
    buffer.add_imu(START, linear_acceleration=(9.0, 0.0, GRAVITY), angular_velocity=(0.0, 0.0, 0.0))
    Circle(curvature=0.0).add_to(buffer, 0, 500)
    assert buffer.state_at(START + 500 * MS).acceleration[0] == pytest.approx(0.0, abs=1e-9)


def test_imu_samples_that_are_not_finite_or_go_back_are_refused() -> None:
    buffer = OdometryBuffer()
    good = {"linear_acceleration": (0.0, 0.0, GRAVITY), "angular_velocity": (0.0, 0.0, 0.0)}
    bad = buffer.add_imu(START, linear_acceleration=(np.nan, 0.0, 0.0), angular_velocity=(0.0, 0.0, 0.0))
    assert reason_of(bad) is Refusal.IMU_NOT_FINITE
    assert buffer.add_imu(START, **good) is None
    assert reason_of(buffer.add_imu(START - 10 * MS, **good)) is Refusal.IMU_STAMP_BACKWARDS
    assert buffer.add_imu(START - 10 * SECOND, **good) is None


def test_a_stamp_after_the_newest_sample_is_extrapolated_for_twenty_milliseconds_and_no_more() -> None:
    buffer = OdometryBuffer()
    Circle(speed=10.0, curvature=0.0).add_to(buffer, 0, 1000)
    assert buffer.state_at(START + 1020 * MS).base_to_world[0, 3] == pytest.approx(10.2)
    with pytest.raises(ObservationError, match=r"0\.021 s away; the limit is 0\.02 s") as caught:
        buffer.state_at(START + 1021 * MS)
    assert caught.value.reason is Refusal.ODOMETRY_STALE


def test_stamps_without_odometry_are_refused_with_the_reason() -> None:
    buffer = OdometryBuffer()
    with pytest.raises(ObservationError, match="no odometry") as caught:
        buffer.state_at(START)
    assert caught.value.reason is Refusal.ODOMETRY_MISSING
    sample(buffer, 0)
    with pytest.raises(ObservationError, match=r"begins 1\.000 s after") as caught:
        buffer.state_at(START - SECOND)
    assert caught.value.reason is Refusal.ODOMETRY_MISSING
    sample(buffer, 500)
    with pytest.raises(ObservationError, match=r"0\.250 s away") as caught:
        buffer.state_at(START + 250 * MS)
    assert caught.value.reason is Refusal.ODOMETRY_STALE


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"position": (np.nan, 0, 0)}, Refusal.ODOMETRY_NOT_FINITE, "not finite: nan"),
        ({"speed": np.inf}, Refusal.ODOMETRY_NOT_FINITE, "not finite"),
        ({"rotation": (0, 0, 0, 0)}, Refusal.ODOMETRY_QUATERNION, "length 0.0000"),
        ({"rotation": (0, 0, 0, 1.1)}, Refusal.ODOMETRY_QUATERNION, "length 1.1000"),
        ({"frame": "map"}, Refusal.ODOMETRY_FRAME, "the frame is 'map'; it must be 'odom'"),
        ({"frame": ""}, Refusal.ODOMETRY_FRAME, "the frame is ''"),
        ({"child": "imu"}, Refusal.ODOMETRY_FRAME, "child frame is 'imu'; it must be 'base_link'"),
        ({"position": (30, 0, 0)}, Refusal.ODOMETRY_JUMP, "jumped by 30.0 m in 0.010 s"),
        ({"speed": 80.0}, Refusal.ODOMETRY_JUMP, "80.0 m/s is above the limit of 70.0"),
        ({"milliseconds": 1000}, Refusal.ODOMETRY_DUPLICATE_STAMP, "two samples"),
        ({"milliseconds": 900}, Refusal.ODOMETRY_STAMP_BACKWARDS, "0.100 s before"),
    ],
)
def test_bad_samples_are_dropped_with_a_reason_and_good_ones_still_taken(
    changes: dict, reason: Refusal, words: str
) -> None:
    buffer = OdometryBuffer()
    Circle(speed=0.0).add_to(buffer, 0, 1000)
    refused = sample(buffer, **{"milliseconds": 1010, **changes})
    assert refused is not None
    assert refused.reason is reason
    assert words in refused.message
    assert len(buffer) == 101
    assert sample(buffer, 1010) is None
    assert buffer.state_at(START + 1010 * MS).velocity[0] == 0.0


def test_the_frame_is_the_first_seen_or_the_configured_one() -> None:
    buffer = OdometryBuffer()
    assert sample(buffer, 0, frame="map") is None
    assert reason_of(sample(buffer, 10, frame="odom")) is Refusal.ODOMETRY_FRAME
    configured = OdometryBuffer(OdometrySettings(world_frame="odom"))
    assert reason_of(sample(configured, 0, frame="map")) is Refusal.ODOMETRY_FRAME


@pytest.mark.parametrize("jump_ms", [-60_000, -1000, 10_000])
def test_a_clock_jump_empties_the_buffer_and_begins_with_the_new_sample(jump_ms: int) -> None:
    buffer = OdometryBuffer()
    Circle().add_to(buffer, 0, 1000)
    refused = sample(buffer, 1000 + jump_ms, position=(500.0, 0.0, 0.0))
    assert reason_of(refused) is Refusal.CLOCK_JUMP
    assert len(buffer) == 1
    assert sample(buffer, 1010 + jump_ms, position=(500.0, 0.0, 0.0)) is None


def test_odometry_that_stays_elsewhere_is_taken_as_a_new_track_after_some_samples() -> None:
    buffer = OdometryBuffer()
    Circle(speed=0.0).add_to(buffer, 0, 1000)
    reasons = [reason_of(sample(buffer, 1010 + 10 * index, position=(500.0, 0.0, 0.0))) for index in range(13)]
    assert reasons == [Refusal.ODOMETRY_JUMP] * 10 + [Refusal.ODOMETRY_RESTARTED] + [None] * 2
    assert len(buffer) == 3


@pytest.mark.parametrize("samples", [40, 400], ids=["shorter than a gap", "longer than a gap"])
def test_positions_that_jump_about_never_become_a_track(samples: int) -> None:
    buffer = OdometryBuffer()
    Circle(speed=0.0).add_to(buffer, 0, 1000)
    reasons = [
        reason_of(sample(buffer, 1010 + 10 * index, position=(500.0 * (index + 1), 0, 0))) for index in range(samples)
    ]
    assert set(reasons) == {Refusal.ODOMETRY_JUMP}
    assert buffer.newest_stamp_ns == START + 1000 * MS


def test_a_track_from_before_a_long_time_of_jumps_is_taken_up_as_a_new_one() -> None:
    buffer = OdometryBuffer()
    Circle(speed=0.0).add_to(buffer, 0, 1000)
    for index in range(400):
        sample(buffer, 1010 + 10 * index, position=(500.0 * (index + 1), 0, 0))
    reasons = [reason_of(sample(buffer, 5010 + 10 * index)) for index in range(13)]
    assert reasons == [Refusal.ODOMETRY_JUMP] * 10 + [Refusal.ODOMETRY_RESTARTED] + [None] * 2
    assert len(buffer) == 3


@pytest.mark.parametrize("milliseconds", [1500, 60_000])
def test_a_clock_that_jumps_while_positions_do_begins_a_new_track(milliseconds: int) -> None:
    buffer = OdometryBuffer()
    Circle(speed=0.0).add_to(buffer, 0, 1000)
    for index in range(400):
        sample(buffer, 1010 + 10 * index, position=(500.0 * (index + 1), 0, 0))
    assert reason_of(sample(buffer, milliseconds)) is Refusal.CLOCK_JUMP
    assert len(buffer) == 1


def test_five_seconds_are_kept_and_what_lies_before_is_gone() -> None:
    buffer = OdometryBuffer()
    Circle().add_to(buffer, 0, 12_000)
    assert len(buffer) == 501
    with pytest.raises(ObservationError):
        buffer.state_at(START + 6990 * MS)


def test_states_stay_right_when_the_block_of_memory_wraps_around() -> None:
    buffer = OdometryBuffer()
    for index in range(2 * CAPACITY + 1500):
        assert sample(buffer, index, position=(index / 1000, 0.0, 0.0), speed=1.0) is None
    last_ms = 2 * CAPACITY + 1499
    assert len(buffer) == 5001
    for back in (0, 0.5, 1500, 4000):
        state = buffer.state_at(START + round((last_ms - back) * MS))
        assert state.base_to_world[0, 3] == pytest.approx((last_ms - back) / 1000)


def test_clear_forgets_samples_and_frame() -> None:
    buffer = OdometryBuffer()
    sample(buffer, 0, frame="map")
    buffer.clear()
    assert (len(buffer), buffer.newest_stamp_ns, buffer.world_frame) == (0, None, None)
    assert sample(buffer, 0, frame="odom") is None


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_speed_mps is 0"):
        OdometrySettings(max_speed_mps=0.0)
    with pytest.raises(ValueError, match="extrapolation_s is nan"):
        OdometrySettings(extrapolation_s=float("nan"))


def test_a_tilted_pose_survives_the_way_through_the_buffer() -> None:
    buffer = OdometryBuffer()
    tilted = Rotation.from_euler("xyz", [0.1, -0.2, 2.0])
    sample(buffer, 0, position=(1.0, 2.0, 3.0), rotation=tilted.as_quat())
    pose = buffer.state_at(START).base_to_world
    assert pose[:3, 3].tolist() == [1.0, 2.0, 3.0]
    assert abs(quaternion(pose) @ tilted.as_quat()) == pytest.approx(1)
