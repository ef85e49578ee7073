"""The node's diagnostic tasks: one DiagnosticStatus each, from what the node knows, once a second."""

import os
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.msg import VlaStatus
from opendrivevla_ros.ros.health import Health, Phase
from opendrivevla_ros.ros.planner import Planner
from opendrivevla_ros.ros.qos import Endpoints
from opendrivevla_ros.sensing.assembler import CommandKeeper

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
Finding = tuple[bytes, str, dict[str, object]]


class Diagnostics:
    """Builds the array. Rates are those since the array before. planner: None until configured."""

    def __init__(self, node_name: str, health: Health, endpoints: Endpoints) -> None:
        self._node_name, self._health, self._endpoints = node_name, health, endpoints
        self.planner: Planner | None = None
        self._counted: dict[str, int] = {}
        self._counted_ns = time.monotonic_ns()
        self._rates: dict[str, float] = {}
        self._tasks: dict[str, Callable[[], Finding]] = {
            "model": self._model,
            "input_cameras": self._input_cameras,
            "input_odometry": self._input_odometry,
            "calibration": self._calibration,
            "sync": self._sync,
            "inference": self._inference,
            "plan": self._plan,
            "device": self._device,
        }

    def array(self, stamp: Header) -> DiagnosticArray:
        """All tasks now."""
        self._measure_rates()
        statuses = []
        for name, task in self._tasks.items():
            level, message, values = task()
            pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
            statuses.append(
                DiagnosticStatus(
                    level=level, name=f"{self._node_name}: {name}", message=message, hardware_id="", values=pairs
                )
            )
        return DiagnosticArray(header=stamp, status=statuses)

    def _measure_rates(self) -> None:
        now = time.monotonic_ns()
        elapsed = (now - self._counted_ns) / 1e9
        counts = {"plans": self._health.plans}
        if self.planner is not None:
            counts["odometry"] = self.planner.inputs.odometry_received
            counts |= {camera: self.planner.inputs.synchronizer.received[camera] for camera in CAMERA_NAMES}
        if elapsed > 0:
            self._rates = {key: max(0, n - self._counted.get(key, 0)) / elapsed for key, n in counts.items()}
        self._counted, self._counted_ns = counts, now

    def _model(self) -> Finding:
        health, info = self._health, self._health.info
        state, _ = health.state()
        values: dict[str, object] = {"lifecycle": health.phase.value, "state": _state_name(state)}
        if info is not None:
            values |= {"model_id": info.model_id, "weights_hash": info.weights_hash, "trained": info.trained}
        if health.fault:
            return ERROR, health.fault, values
        if info is None:
            return STALE, f"no policy is loaded ({health.phase.value})", values
        if not info.trained:
            return WARN, f"{info.model_id} has random weights: its plans mean nothing", values
        return OK, info.model_id, values

    def _input_cameras(self) -> Finding:
        if self.planner is None:
            return STALE, "not configured", {}
        values: dict[str, object] = {}
        for camera in CAMERA_NAMES:
            values[f"{camera} rate [Hz]"] = f"{self._rates.get(camera, 0.0):.1f}"
            values[f"{camera} received"] = self.planner.inputs.synchronizer.received[camera]
        values |= self._dropped(CAMERA_NAMES)
        problems = self._qos_problems("image", "camera_info")
        for camera in CAMERA_NAMES:
            refused = self._health.recent(camera)
            if refused is not None:
                problems.append(refused.message)
        if self._health.phase is Phase.ACTIVE:
            silent = [camera for camera in CAMERA_NAMES if not self._rates.get(camera)]
            if silent:
                problems.append(f"no pictures of {', '.join(silent)}")
        return _judge(problems, "all cameras are live", values)

    def _input_odometry(self) -> Finding:
        if self.planner is None:
            return STALE, "not configured", {}
        values: dict[str, object] = {
            "rate [Hz]": f"{self._rates.get('odometry', 0.0):.1f}",
            "received": self.planner.inputs.odometry_received,
            "world_frame": self.planner.inputs.odometry.world_frame or "",
        }
        values |= self._dropped(("odometry", "imu"))
        problems = self._qos_problems("odometry", "imu")
        for source in ("odometry", "imu"):
            refused = self._health.recent(source)
            if refused is not None:
                problems.append(refused.message)
        if self.planner.inputs.imu_problem:
            problems.append(self.planner.inputs.imu_problem)
        if self._health.phase is Phase.ACTIVE and not self._rates.get("odometry"):
            problems.append("no odometry")
        return _judge(problems, "odometry is live", values)

    def _calibration(self) -> Finding:
        if self.planner is None:
            return (ERROR if self._health.fault else STALE), self._health.fault or "not configured", {}
        values = {camera: self.planner.inputs.monitor.problem(camera) or "fine" for camera in CAMERA_NAMES}
        problems = [text for text in values.values() if text != "fine"]
        return _judge(problems, "the rig is fit and camera_info agrees", dict(values), ERROR)

    def _sync(self) -> Finding:
        if self.planner is None:
            return STALE, "not configured", {}
        synchronizer = self.planner.inputs.synchronizer
        values: dict[str, object] = {
            "formed": synchronizer.formed,
            "camera skew [ms]": f"{self._health.skew_s * 1e3:.1f}",
        }
        for (reason, source), count in sorted(synchronizer.counters.items(), key=lambda item: -item[1]):
            values[f"{reason.value} {source}"] = count
        values["resets"] = self._health.resets
        problems = [self._health.not_ready] if self._health.not_ready else []
        return _judge(problems, f"{synchronizer.formed} sets formed", values)

    def _inference(self) -> Finding:
        if self.planner is None:
            return STALE, "not configured", {}
        health = self._health
        values: dict[str, object] = {
            "busy": self.planner.inference.is_busy,
            "replaced by newer": self.planner.inference.replaced,
        }
        values |= {f"{stage} [ms]": f"{seconds * 1e3:.1f}" for stage, seconds in health.stage_times.items()}
        values |= {f"{kind} tokens": count for kind, count in health.token_counts.items()}
        if health.reasoning is not None:
            probability = health.reasoning.slow_probability
            values |= {
                "requested thinking": health.reasoning.requested_mode.name,
                "actual thinking": health.reasoning.actual_mode.name,
                "slow probability": "none: it does not think" if probability is None else f"{probability:.3f}",
            }
        objection = health.info.objection(self.planner.thinking_mode) if health.info is not None else ""
        fine = f"{1e3 * sum(health.stage_times.values()):.0f} ms for the last attempt"
        return _judge([objection] if objection else [], fine, values)

    def _plan(self) -> Finding:
        health = self._health
        state, reason = health.state()
        values: dict[str, object] = {
            "state": _state_name(state),
            "rate [Hz]": f"{self._rates.get('plans', 0.0):.1f}",
            "plans": health.plans,
            "refusals": health.refusals,
            "failed checks": ", ".join(health.last_checks),
            "degraded": ", ".join(health.degraded),
        }
        if self.planner is not None:
            values["command"] = _command_text(self.planner.inputs.command)
        if health.ages_s:
            values["age p50 [ms]"] = f"{1e3 * float(np.median(health.ages_s)):.0f}"
        problems = self._qos_problems("output", "command")
        command = health.recent("command")
        if command is not None:
            problems.append(command.message)
        if state == VlaStatus.FAULT:
            return ERROR, reason, values
        if health.last_reason:
            problems.insert(0, health.last_reason)
        problems += health.degraded
        return _judge(problems, _state_name(state).lower(), values)

    def _device(self) -> Finding:
        device = self._health.info.device if self._health.info is not None else "none"
        values: dict[str, object] = {"device": device, "processors": os.cpu_count()}
        values["load average (1 min)"] = f"{os.getloadavg()[0]:.2f}"
        torch = sys.modules.get("torch")
        if torch is not None and device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(device)
            values["accelerator"] = torch.cuda.get_device_name(device)
            values["memory free [MiB]"] = free >> 20
            values["memory total [MiB]"] = total >> 20
            if free < 0.05 * total:
                return WARN, f"only {free >> 20} MiB of {total >> 20} MiB accelerator memory are free", values
        return OK, device, values

    def _dropped(self, sources: tuple[str, ...]) -> dict[str, object]:
        assert self.planner is not None
        counts: Mapping[tuple[str, str], int] = self.planner.inputs.dropped
        return {f"{source} {reason}": n for (source, reason), n in sorted(counts.items()) if source in sources}

    def _qos_problems(self, *parts: str) -> list[str]:
        return [text for topic, text in self._endpoints.incompatible.items() if any(part in topic for part in parts)]


def _command_text(keeper: CommandKeeper) -> str:
    now = time.monotonic_ns()
    command = keeper.at(now)
    stale = ", the last one is stale" if keeper.is_stale(now) else ""
    return f"{command.command.name}{' (assumed' + stale + ')' if command.is_default else ''}"


def _judge(problems: list[str], fine: str, values: dict[str, object], level: bytes = WARN) -> Finding:
    return (level, "; ".join(problems), values) if problems else (OK, fine, values)


def _state_name(state: int) -> str:
    names = ("UNCONFIGURED", "LOADING", "INACTIVE", "WAITING", "PLANNING", "DEGRADED", "FAULT")
    return next(name for name in names if getattr(VlaStatus, name) == state)
