"""world_node: the driving world as a vehicle. Cameras, odometry and the clock out, plans in, which it follows.

World time goes on with wall time, so that a plan that is late is late as on a vehicle. Where the machine cannot keep
up, time goes slower; no step is left out.
"""

import sys
import time
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from opendrivevla_ros.msg import PlannedTrajectory
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.parameters import ConfigurationError
from opendrivevla_ros.ros.spinning import running
from opendrivevla_ros.ros.world_drive import TICK_NS, State, WorldDrive
from opendrivevla_ros.ros.world_outputs import WorldOutputs
from opendrivevla_ros.ros.world_parameters import read_world_parameters
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.rig import nuscenes_rig

EPOCH_NS = 1_700_000_000_000_000_000  # the stamp of the start; 0 would mean that there is no time yet
POLL_S = 0.05
REMIND_S, COMMAND_NS = 5.0, 1_000_000_000
MOST_BEHIND_S = 0.2  # what time may lag behind the wall clock and still catch up
WARN_PERIOD_S = 2.0


class WorldNode(Node):
    """One drive: `advance` lets it go on, `ended` says that it is over. Raises ConfigurationError."""

    def __init__(self, **options: Any) -> None:
        super().__init__("world_node", **options)
        values = read_world_parameters(self)
        scenario = make_scenario(values["family"], values["seed"])
        self._drive = WorldDrive(
            scenario,
            lead_in_s=values["lead_in"],
            plan_timeout_s=values["plan_timeout"],
            time_limit_s=values["duration"],
        )
        rig = nuscenes_rig(values["image_width"], values["image_width"] * 9 // 16)
        self._outputs = WorldOutputs(self, self._drive, rig, epoch_ns=EPOCH_NS)
        self._readers = values["readers"]
        self._factor = values["real_time_factor"]
        self._picture_period_ns = round(1e9 / values["camera_rate"])
        self._next_picture_ns = self._next_command_ns = 0
        self._began: float | None = None  # steady clock at which world time was 0, moved on where time went slower
        self._reminded = -REMIND_S
        self._last_command: object = None
        self.ended = False
        self._plans = qos.Endpoints(self).subscription(
            PlannedTrajectory, "~/input/trajectory", qos.reliable(1), self._on_plan
        )
        self.get_logger().info(f"{scenario.family} {scenario.seed}: {scenario.goal_s - scenario.start_s:.0f} m")

    def close(self) -> None:
        """Gives everything back."""
        self._outputs.close()

    def _on_plan(self, message: PlannedTrajectory) -> None:
        if self._began is None:
            return  # of another drive
        if not self._drive.follow(message, EPOCH_NS):
            text = f"refused {self._drive.refusal}"
            self.get_logger().warning(text, throttle_duration_sec=WARN_PERIOD_S)

    def advance(self) -> float:
        """Lets one tick pass if it is due; returns for how long, in seconds, there is nothing to do but to listen."""
        if self._began is None:
            if not self._is_heard():
                return POLL_S
            self._began = time.monotonic()
            self._publish()
        due = self._began + (self._drive.time_ns + TICK_NS) * 1e-9 / self._factor
        early = due - time.monotonic()
        if early > 0:
            return early
        self._began += max(0.0, -early - MOST_BEHIND_S)
        self._drive.tick()
        self._publish()
        if self._drive.state.is_end:
            self._end()
        return 0.0

    def _is_heard(self) -> bool:
        """Whether enough readers are there, and somebody who plans; else time stands still, and it says why."""
        lacking = self._outputs.lacking(self._readers)
        if self._readers and not self._plans.get_publisher_count():
            lacking.append(self._plans.topic_name)
        if lacking and time.monotonic() - self._reminded >= REMIND_S:
            self._reminded = time.monotonic()
            shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            reason = f"waiting for the other side of {shown}"
            self.get_logger().info(reason)
            self._outputs.publish_status(waiting_for=reason)
        return not lacking

    def _publish(self) -> None:
        """All that is to be said now: the clock first, so that nothing comes from the future."""
        drive, outputs = self._drive, self._outputs
        outputs.publish_clock()
        outputs.publish_odometry()
        if not drive.at_step:
            return
        if drive.world.command is not self._last_command or drive.time_ns >= self._next_command_ns:
            self._last_command, self._next_command_ns = drive.world.command, drive.time_ns + COMMAND_NS
            outputs.publish_command()
        if drive.time_ns >= self._next_picture_ns:
            self._next_picture_ns += self._picture_period_ns
            outputs.publish_pictures()
        outputs.publish_truth()
        outputs.publish_status()

    def _end(self) -> None:
        drive = self._drive
        how = {
            State.ARRIVED: "arrived",
            State.COLLIDED: f"collided with a {drive.collision}",
            State.OUT_OF_TIME: "the time is over",
        }
        text = f"{how[drive.state]} after {drive.time_ns * 1e-9:.1f} s, {drive.completion:.0%} of the route"
        self.get_logger().info(f"{text}, {drive.plans} plans")
        self.ended = True


def main() -> None:
    """Runs one drive to its end; Ctrl-C ends it before, with exit code 0. Parameters that are wrong: exit code 1."""
    problem = ""
    with running():
        try:
            node = WorldNode()
        except ConfigurationError as error:
            problem = str(error)
        else:
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            while rclpy.ok() and not node.ended:
                executor.spin_once(timeout_sec=node.advance())
            if node.ended:
                node.close()
    if problem:
        sys.exit(f"world_node: {problem}")


if __name__ == "__main__":
    main()
