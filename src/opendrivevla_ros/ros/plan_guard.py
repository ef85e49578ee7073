"""plan_guard: candidate plans in, the only plan that a vehicle may follow out. A lifecycle node and its process.

All that it decides is `safety.guard`'s; here messages become its words, and its decisions messages.
"""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.msg import DetectedAgentArray, GuardStatus, MapElementArray, PlannedTrajectory, VlaStatus
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import header, nanoseconds, path_message, trajectory_message
from opendrivevla_ros.ros.guard_parameters import GUARD_TABLE, guard_contradictions, guard_settings
from opendrivevla_ros.ros.incidents import Incident, Incidents
from opendrivevla_ros.ros.parameters import ConfigurationError, Parameters
from opendrivevla_ros.ros.received import add_odometry, agents_of, map_elements_of, trajectory_of
from opendrivevla_ros.ros.spinning import running, spin
from opendrivevla_ros.safety.guard import Decision, Guard, PlacedTrajectory, Scene
from opendrivevla_ros.safety.heartbeat import Heartbeat, findings
from opendrivevla_ros.safety.supervisor import SENT, Source, State, Transition
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import ObservationError

DIAGNOSTICS_S, WARN_PERIOD_S, GAP_S = 1.0, 5.0, 2.0
LEVELS = {
    State.DISARMED: DiagnosticStatus.OK,
    State.NOMINAL: DiagnosticStatus.OK,
    State.DEGRADED: DiagnosticStatus.WARN,
    State.FALLBACK: DiagnosticStatus.ERROR,
    State.TAKEOVER: DiagnosticStatus.ERROR,
}


class PlanGuard(LifecycleNode):
    """The guard on ROS. It is disarmed until ~/arm says otherwise."""

    def __init__(self, **options: Any) -> None:
        super().__init__("plan_guard", **options)
        self._guard: Guard | None = None  # while it is active
        self._configuration = Parameters(
            self,
            lambda: self._guard is not None,
            table=GUARD_TABLE,
            contradictions=guard_contradictions,
            listed_in="config/guard.param.yaml",
            on_change=self._on_change,
        )
        self._odometry = self._new_odometry()
        self._candidate: PlannedTrajectory | None = None  # the newest, as it came
        self._agents: DetectedAgentArray | None = None
        self._map_elements: MapElementArray | None = None
        self._heartbeat: Heartbeat | None = None
        self._heartbeat_at = 0.0  # steady clock, seconds
        self._refused = ""  # why the newest odometry or plan was not taken
        self._decision: Decision | None = None
        self._incidents = Incidents(self._warn)

        outputs = qos.Endpoints(self)
        self._trajectory = outputs.publisher(PlannedTrajectory, "~/output/trajectory", qos.reliable(1))
        self._path = outputs.publisher(PathMessage, "~/output/path", qos.reliable(1))
        self._status = outputs.publisher(GuardStatus, "~/output/status", qos.latched())
        self._diagnostics = outputs.publisher(DiagnosticArray, "/diagnostics", qos.reliable(10))
        self._inputs = qos.Endpoints(self, outputs.incompatible)

        self._snapshots = self.create_client(Trigger, "~/save_snapshot")  # vla_node's
        self.create_service(SetBool, "~/arm", self._on_arm)
        self.create_service(Trigger, "~/reset", self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # it works on when the clock of a bag stands still
        self.create_timer(1.0 / self._configuration["rate"], self._cycle, clock=steady)
        self.create_timer(DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        if self._configuration["autostart"]:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        gap = Duration(seconds=GAP_S)
        threshold = JumpThreshold(min_forward=gap, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._on_clock_jump)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._deactivate)

    def _transition(self, name: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Runs one transition; rclpy would swallow an exception."""
        try:
            work()
        except Exception as error:
            origin = "" if isinstance(error, ConfigurationError) else f"\n{traceback.format_exc()}"
            self._refused = f"{name} failed: {error}"
            self.get_logger().error(f"{self._refused}{origin}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        problems = self._configuration.problems()
        if problems:
            raise ConfigurationError("; ".join(problems))

    def _activate(self) -> None:
        self._guard = Guard(guard_settings(self._configuration.values))
        self._forget()
        add = self._inputs.subscription
        add(Odometry, "~/input/odometry", qos.best_effort(100), self._on_odometry)
        add(PlannedTrajectory, "~/input/trajectory", qos.best_effort(1), self._on_trajectory)
        add(DetectedAgentArray, "~/input/agents", qos.best_effort(1), self._on_agents)
        add(MapElementArray, "~/input/map_elements", qos.best_effort(1), self._on_map_elements)
        add(VlaStatus, "~/input/vla_status", qos.best_effort(1), self._on_vla_status)
        problems = self._configuration.unknown_qos_overrides()  # known once all endpoints are made
        if problems:
            self._deactivate()
            raise ConfigurationError("; ".join(problems))
        self.get_logger().info("active and disarmed; `~/arm` arms it")

    def _deactivate(self) -> None:
        self._guard = self._decision = None
        self._inputs.destroy()

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # What comes in

    def _on_odometry(self, message: Odometry) -> None:
        refused = add_odometry(self._odometry, message)
        if refused is not None:
            self._warn(refused.message)
            if refused.reason.clears_state:
                self._forget(keep_odometry=True)

    def _on_trajectory(self, message: PlannedTrajectory) -> None:
        ego = self._ego_at(message, "a plan")
        if ego is None or self._guard is None:
            return
        try:
            trajectory = trajectory_of(message, ego.base_to_world, ego.speed)
        except ValueError as error:
            self._warn(f"a plan that is none: {error}")
            self._guard.refuse(self._refused)
            return
        self._candidate = message
        self._guard.take(PlacedTrajectory(trajectory, ego, message.confidence))

    def _on_agents(self, message: DetectedAgentArray) -> None:
        self._agents = message
        self._see()

    def _on_map_elements(self, message: MapElementArray) -> None:
        self._map_elements = message
        self._see()

    def _see(self) -> None:
        """The newest of either, at the road users' stamp; the road stands still, and is where it was."""
        newest = self._agents or self._map_elements
        ego = self._ego_at(newest, "what is around")
        if ego is None or self._guard is None:
            return
        try:
            agents = () if self._agents is None else agents_of(self._agents, ego.base_to_world)
        except ValueError as error:
            self._warn(f"road users that are none: {error}")
            return
        elements = () if self._map_elements is None else map_elements_of(self._map_elements, ego.base_to_world)
        self._guard.see(Scene(ego, agents, elements))

    def _on_vla_status(self, message: VlaStatus) -> None:
        plans = message.state in (VlaStatus.PLANNING, VlaStatus.DEGRADED)
        reason = "" if message.state == VlaStatus.PLANNING else message.reason
        self._heartbeat = Heartbeat(plans, reason, message.trained)
        self._heartbeat_at = time.monotonic()

    def _ego_at(self, message: Any, what: str) -> EgoState | None:
        """The vehicle's motion at a message's stamp; None, with a warning, where that is not known."""
        frame, wanted = message.header.frame_id, self._configuration["odometry.world_frame"]
        if frame != wanted:
            self._warn(f"{what} in frame {frame!r}; the odometry's is {wanted!r}")
            return None
        try:
            return self._odometry.state_at(nanoseconds(message.header.stamp))
        except ObservationError as error:
            self._warn(f"{what} whose stamp has no odometry: {error.refused.message}")
            return None

    def _warn(self, text: str) -> None:
        self._refused = text
        self.get_logger().warning(text, throttle_duration_sec=WARN_PERIOD_S)

    # What goes out

    def _cycle(self) -> None:
        guard = self._guard
        if guard is None:
            reasons = [self._refused or "not active; configure and activate it"]
            self._send_status(State.DISARMED, reasons)
            return
        now_ns = self.get_clock().now().nanoseconds
        ego: EgoState | None = None
        blind: tuple[str, ...] = ()
        try:
            ego = self._odometry.state_at(now_ns)
        except ObservationError as error:
            blind = (error.refused.message,)
        silent_s = time.monotonic() - self._heartbeat_at
        model = findings(self._heartbeat, silent_s, self._configuration["heartbeat_timeout"])
        self._decision = guard.cycle(now_ns, ego, blind=blind, faults=model.faults, degraded=model.degraded)
        if self._decision.transition is not None:
            self._tell(self._decision.transition)
            self._report(now_ns, self._decision, self._decision.transition)
        self._send(self._decision)
        self._send_status(self._decision.state, list(self._decision.reasons))

    def _report(self, now_ns: int, decision: Decision, transition: Transition) -> None:
        """Leaves an incident where a stop has taken the place of plans."""
        guard, parameters = self._guard, self._configuration.values
        if guard is None or SENT[transition.after] is not Source.STOP or SENT[transition.before] is Source.STOP:
            return
        odometry = self._odometry.samples()
        incident = Incident(
            now_ns, transition, decision.checks, guard.newest, decision.stop, guard.scene, odometry, parameters
        )
        folder = self._incidents.report(incident)
        if folder is None or not self._snapshots.service_is_ready():
            return

        def take(future: Future) -> None:
            answer = future.result()
            if answer is not None and answer.success and Path(answer.message).is_dir():
                self._incidents.add_snapshot(folder, Path(answer.message), parameters["incidents.megabytes"])

        self._snapshots.call_async(Trigger.Request()).add_done_callback(take)

    def _send(self, decision: Decision) -> None:
        if decision.forward is not None and self._candidate is not None:
            self._trajectory.publish(self._candidate)  # as it came: a plan is never stamped anew
            self._path.publish(path_message(_plan(decision.forward), decision.forward.ego))
        elif decision.stop is not None and self._configuration["fallback"] == "stop":
            plan, ego = _plan(decision.stop), decision.stop.ego
            message = trajectory_message(plan, ego)
            message.source = PlannedTrajectory.FALLBACK
            self._trajectory.publish(message)
            self._path.publish(path_message(plan, ego))

    def _send_status(self, state: State, reasons: list[str]) -> None:
        stamp = header(self.get_clock().now().nanoseconds, "")
        self._status.publish(GuardStatus(header=stamp, state=state.value, reasons=reasons))

    def _tell(self, transition: Transition) -> None:
        reasons = "; ".join(transition.reasons) or "all is well"
        text = f"{transition.before.name} to {transition.after.name}: {reasons}"
        if transition.after is State.NOMINAL:  # two calls: rclpy takes one severity a line
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)

    def _publish_diagnostics(self) -> None:
        decision = self._decision
        state = State.DISARMED if decision is None else decision.state
        reasons = (self._refused,) if decision is None else decision.reasons
        checks = () if decision is None else decision.checks
        values = [KeyValue(key=check.name, value=f"{check.value:g} of {check.limit:g}") for check in checks]
        values += [KeyValue(key="last refused", value=self._refused)]
        status = DiagnosticStatus(
            level=LEVELS[state],
            name=f"{self.get_name()}: guard",
            message=f"{state.name} {'; '.join(reasons)}".strip(),
            values=values,
        )
        stamp = header(self.get_clock().now().nanoseconds, "")
        self._diagnostics.publish(DiagnosticArray(header=stamp, status=[status]))

    # Services, parameters, clock

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._guard is None:
            response.success, response.message = False, "the guard is not active; configure and activate it first"
            return response
        if not request.data:
            transition = self._guard.supervisor.disarm("told to by ~/arm")
            response.success = self._guard.supervisor.state is State.DISARMED
            response.message = "disarmed" if response.success else "a take-over was asked for: ~/reset ends it"
        else:
            outcome = self._guard.supervisor.arm()
            transition = outcome if isinstance(outcome, Transition) else None
            response.success = transition is not None
            response.message = "armed" if isinstance(outcome, Transition) else outcome
        if transition is not None:
            self._tell(transition)
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._guard is not None:
            transition = self._guard.supervisor.reset() or self._guard.supervisor.disarm("told to by ~/reset")
            if transition is not None:
                self._tell(transition)
            self._forget()
        response.success, response.message = True, "disarmed; plans and odometry were dropped"
        return response

    def _on_change(self, name: str) -> None:
        if self._guard is None:
            return
        transition = self._guard.supervisor.disarm(f"parameter {name} was changed")
        self._guard.settings = guard_settings(self._configuration.values)
        if transition is not None:
            self._tell(transition)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._warn(f"the clock jumped by {jump.delta.nanoseconds / 1e9:+.1f} s")
        self._forget()

    def _forget(self, *, keep_odometry: bool = False) -> None:
        if not keep_odometry:
            self._odometry = self._new_odometry()
        self._candidate = self._agents = self._map_elements = None
        if self._guard is not None:
            self._guard.forget()

    def _new_odometry(self) -> OdometryBuffer:
        parameters = self._configuration
        return OdometryBuffer(
            OdometrySettings(
                world_frame=parameters["odometry.world_frame"],
                base_frame=parameters["base_frame"],
                extrapolation_s=parameters["odometry.timeout"],
                max_gap_s=parameters["odometry.timeout"],
                max_speed_mps=parameters["odometry.max_speed"],
                gap_limit_s=GAP_S,
                horizon_s=parameters["incidents.odometry"],
            )
        )


def _plan(what: PlacedTrajectory) -> Plan:
    return Plan(what.ego.stamp_ns, what.trajectory, confidence=0.0)


def main() -> None:
    """Runs the node until it is interrupted; Ctrl-C ends it with exit code 0."""
    with running():
        spin(PlanGuard())


if __name__ == "__main__":
    main()
