"""vla_node: six cameras and odometry in, candidate plans out. A lifecycle node; the model works in a thread."""

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.msg import PlanStatus, VlaStatus
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.asking import AskServer
from opendrivevla_ros.ros.conversions import header
from opendrivevla_ros.ros.diagnostics import Diagnostics
from opendrivevla_ros.ros.health import Health, Phase
from opendrivevla_ros.ros.inference import Inference
from opendrivevla_ros.ros.loading import LoadingAborted, load_in_thread
from opendrivevla_ros.ros.parameters import ConfigurationError, Parameters
from opendrivevla_ros.ros.planner import Planner
from opendrivevla_ros.ros.rig_source import load_checked_rig
from opendrivevla_ros.ros.snapshot import save_snapshot
from opendrivevla_ros.ros.spinning import running, spin
from opendrivevla_ros.sensing.calibration import CalibrationError
from opendrivevla_ros.srv import SetThinkingMode

HANG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
HEARTBEAT_S, DIAGNOSTICS_S, POLL_S, REMINDER_S = 0.1, 1.0, 0.03, 10.0


REFUSALS = (ConfigurationError, CalibrationError, CheckpointError)


class VlaNode(LifecycleNode):
    """The whole interface of the planner. All ROS work is in the executor's thread; see `Inference` for the other."""

    def __init__(self, **options: Any) -> None:
        super().__init__("vla_node", **options)
        self._health = Health()
        self._configuration = Parameters(self, self._is_configured, on_change=self._on_parameter)
        self._planner: Planner | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._inbox_guard = self.create_guard_condition(self._empty_inbox)

        always = qos.Endpoints(self)  # there from the first moment, so that a failed configure can be seen
        self._status = always.publisher(VlaStatus, "~/output/status", qos.latched())
        self._plan_status = always.publisher(PlanStatus, "~/output/plan_status", qos.reliable(10))
        self._diagnostics_publisher = always.publisher(DiagnosticArray, "/diagnostics", qos.reliable(10))
        self._endpoints = qos.Endpoints(self, always.incompatible)  # those that configure makes
        self._diagnostics = Diagnostics(self.get_name(), self._health, always)

        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/save_snapshot", self._on_save_snapshot)
        self.create_service(SetThinkingMode, "~/set_thinking_mode", self._on_set_thinking_mode)
        self._ask = AskServer(self, self._answering)

        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused bag must not silence these
        self.create_timer(HEARTBEAT_S, self._beat, clock=steady)
        self.create_timer(DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        self.create_timer(POLL_S, self._poll, clock=steady)
        self.create_timer(REMINDER_S, self._remind, clock=steady)
        if self._configuration["autostart"]:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)
        gap = Duration(seconds=self._configuration["sync.gap_limit"])
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
        return self._transition("clean up", self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._clean_up)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("recover", self._clean_up)

    def _transition(self, name: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Runs one transition. rclpy would swallow an exception: it is logged, kept as the fault, and FAILURE."""
        try:
            work()
        except LoadingAborted:
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self._health.fault = self._health.fault or f"{name} failed: {error}"
            # a refusal says all there is to say; anything else is a defect, and needs its traceback
            origin = "" if isinstance(error, REFUSALS) else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"{name} failed: {error}{origin}")
            self._beat()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._health.fault = ""
        self._health.phase = Phase.LOADING
        try:
            self._build()
            self._health.phase = Phase.INACTIVE
        finally:
            if self._health.phase is not Phase.INACTIVE:
                self._clean_up()
        self._beat()

    def _build(self) -> None:
        parameters = self._configuration
        problems = parameters.problems()
        if problems:
            raise ConfigurationError("; ".join(problems))
        rig = load_checked_rig(self, parameters, self._keep_alive)
        policy = load_in_thread(
            parameters["policy"],
            device=parameters["device"],
            precision=parameters["precision"],
            seed=parameters["seed"],
            cameras=parameters["camera_count"] or None,
            keep_alive=self._keep_alive,
            is_ending=lambda: not self.context.ok(),
        )
        planner = Planner(
            self,
            self._endpoints,
            parameters,
            self._health,
            rig=rig,
            policy=policy,
            plan_status=self._plan_status,
            post=self._post,
            on_answer=self._ask.on_answer,
        )
        self._planner = planner
        problems = parameters.unknown_qos_overrides()
        if problems:
            raise ConfigurationError("; ".join(problems))
        self._health.info = policy.info
        self._health.plan_timeout_s = parameters["plan_timeout"]
        self._diagnostics.planner = planner
        self.get_logger().info(f"ready on {policy.info.device}: {planner.banner}")
        self._warn_of_thinking()

    def _activate(self) -> None:
        assert self._planner is not None
        self._planner.forget_everything()
        self._health.activated()
        self._health.phase = Phase.ACTIVE

    def _deactivate(self) -> None:
        self._health.phase = Phase.INACTIVE
        if self._planner is not None:
            self._planner.forget_everything()

    def _clean_up(self) -> None:
        self._health.phase = Phase.UNCONFIGURED
        self._health.info = None
        if self._planner is not None:
            self._planner.stop()
        self._planner = self._diagnostics.planner = None
        self._endpoints.destroy()

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _on_parameter(self, name: str) -> None:
        if name == "thinking_mode":
            self._warn_of_thinking()

    def _warn_of_thinking(self) -> None:
        """Says so where the policy cannot think as it is asked to."""
        if objection := self._objection():
            self.get_logger().warning(objection)

    def _objection(self) -> str:
        info = self._health.info
        return "" if info is None else info.objection(self._thinking_mode)

    @property
    def _thinking_mode(self) -> ThinkingMode:
        return ThinkingMode[self._configuration["thinking_mode"].upper()]

    def _is_configured(self) -> bool:
        return self._health.phase is not Phase.UNCONFIGURED

    def stop(self) -> bool:
        """Ends the threads as far as they can be ended; False when a model or its loading is still at work."""
        stopped = self._planner is None or self._planner.stop()
        return stopped and not any(thread.name == "loading" for thread in threading.enumerate())

    # Between the threads

    def _post(self, function: Callable[[], None]) -> None:
        """Has a function called in the executor's thread; may be called from any."""
        self._inbox.append(function)
        self._inbox_guard.trigger()

    def _empty_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _answering(self) -> Inference | None:
        """Who answers questions now."""
        if self._planner is None or self._health.phase is not Phase.ACTIVE:
            return None
        return self._planner.inference

    def _poll(self) -> None:
        if self._planner is not None:
            self._planner.inputs.poll()
            self._watch(self._planner.inference.busy_s)

    def _watch(self, busy_s: float) -> None:
        """Ends the process where the model hangs: a thread inside its C++ cannot be ended alone."""
        limit_s = self._configuration["hang_timeout"]
        if not limit_s or busy_s <= limit_s:
            return
        self._health.broken = f"the model has been at work for {busy_s:.1f} s, the limit is {limit_s:.1f} s"
        self.get_logger().fatal(f"{self._health.broken}: the process ends, to be started anew")
        self._beat()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(HANG_EXIT_CODE)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        has_begun = self._health.phase is Phase.ACTIVE and not self._health.not_ready  # the first /clock is no jump
        if self._planner is not None and has_begun:
            self._planner.clock_jumped(jump.delta.nanoseconds / 1e9)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._planner is not None:
            self._planner.forget_everything()
        self._health.activated()
        response.success, response.message = True, "memory, buffers and counters were dropped"
        return response

    def _on_set_thinking_mode(
        self, request: SetThinkingMode.Request, response: SetThinkingMode.Response
    ) -> SetThinkingMode.Response:
        try:
            mode = ThinkingMode(request.mode)
        except ValueError:
            known = ", ".join(f"{mode.value} {mode.name}" for mode in ThinkingMode)
            response.success, response.message = False, f"thinking mode {request.mode} is not one of {known}"
            return response
        self.set_parameters([Parameter("thinking_mode", value=mode.name.lower())])
        response.success, response.message = True, self._objection()
        return response

    def _on_save_snapshot(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        attempt = self._planner.last_attempt if self._planner is not None else None
        if attempt is None:
            response.success, response.message = False, "there was no attempt to plan yet; wait for a frame set"
            return response
        folder = Path(self._configuration["snapshot_folder"]).expanduser().resolve()
        try:
            response.message = str(save_snapshot(folder, attempt, self._configuration.values))
            response.success = True
        except OSError as error:
            response.success, response.message = False, f"{error}; set snapshot_folder to a folder that can be written"
        return response

    # Heartbeat and diagnostics

    def _beat(self) -> None:
        health = self._health
        state, reason = health.state()
        info = health.info
        self._status.publish(
            VlaStatus(
                header=header(self.get_clock().now().nanoseconds, ""),
                state=state,
                reason=reason,
                model_id=info.model_id if info is not None else str(self._configuration["policy"]),
                weights_hash=info.weights_hash if info is not None else "",
                trained=info is not None and info.trained,
                thinking_mode=self._thinking_mode.value,
                plans=health.plans,
                refusals=health.refusals,
            )
        )

    def _keep_alive(self) -> None:
        """While configure holds the executor's thread: what its timers would do."""
        self._beat()
        if int(time.monotonic() / DIAGNOSTICS_S) != int((time.monotonic() - HEARTBEAT_S) / DIAGNOSTICS_S):
            self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        self._diagnostics_publisher.publish(self._diagnostics.array(header(self.get_clock().now().nanoseconds, "")))

    def _remind(self) -> None:
        if self._health.phase is Phase.UNCONFIGURED:
            why = self._health.fault or "waiting for configure, for example `ros2 lifecycle set vla_node configure`"
            self.get_logger().warning(f"not configured: {why}")


def main() -> None:
    """Runs the node until it is interrupted; Ctrl-C, also while loading or planning, ends it with exit code 0."""
    node: VlaNode | None = None
    stopped = True
    with running():
        try:
            node = VlaNode()
            spin(node)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            stopped = node is None or node.stop()
    if not stopped:
        # A thread inside the model's C++ cannot be interrupted, and the interpreter's end would crash it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
