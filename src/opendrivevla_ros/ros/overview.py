"""One picture of everything: six cameras with the plan, a bird's-eye view beside them, words below. No rclpy."""

import textwrap

import cv2
import numpy as np

from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.ros.birds_eye import BACKGROUND, WHITE, BirdsEyeView
from opendrivevla_ros.ros.camera_view import FONT, CameraView, Color, Image
from opendrivevla_ros.ros.palette import Footprint

LAYOUT = (("cam_front_left", "cam_front", "cam_front_right"), ("cam_back_left", "cam_back", "cam_back_right"))
CELL = (480, 270)
GAP = 4
STRIP_HEIGHT = 140
BIRDS_EYE_WIDTH = 540
SOFT: Color = (190, 180, 172)
WARNING: Color = (80, 150, 255)
LINE_LENGTH = 128


def render_overview(
    observation: Observation, plan: Plan | None, *, status: str = "", footprint: Footprint | None = None
) -> Image:
    """Six cameras and a bird's-eye view, uint8 BGR [688, 1992, 3].

    plan: None where none came; `status` then says why. status: one line about the planner, for example its name.
    """
    footprint = footprint or Footprint()
    rows = [_beside([_camera(observation, name, plan, footprint) for name in row]) for row in LAYOUT]
    cameras = _below(rows)
    strip = _text_strip(observation, plan, status, cameras.shape[1])
    left = _below([cameras, strip])
    birds_eye = BirdsEyeView((BIRDS_EYE_WIDTH, left.shape[0])).draw(plan, footprint)
    return _beside([left, birds_eye])


def _camera(observation: Observation, name: str, plan: Plan | None, footprint: Footprint) -> Image:
    frame = next((frame for frame in observation.frames if frame.camera == name), None)
    if frame is None:
        return np.full((CELL[1], CELL[0], 3), BACKGROUND, dtype=np.uint8)
    view = CameraView(frame, observation.rig[name], CELL)
    if plan is not None:
        view.draw_plan(plan.trajectory, footprint)
        view.draw_agents(plan.agents)
    view.draw_name(*_label(frame))
    return view.image


def _label(frame: CameraFrame) -> tuple[str, Color]:
    name = frame.camera.removeprefix("cam_").replace("_", " ")
    if frame.blank:
        return f"{name}: no picture", WARNING
    return (f"{name}: held", WARNING) if frame.held else (name, WHITE)


def _text_strip(observation: Observation, plan: Plan | None, status: str, width: int) -> Image:
    strip = np.full((STRIP_HEIGHT, width, 3), BACKGROUND, dtype=np.uint8)
    stamp = f"t0 {observation.stamp_ns / 1e9:.3f} s"
    command = observation.command.command.name.replace("_", " ").lower()
    if observation.command.is_default:
        command += " (assumed)"
    facts = [stamp, f"{observation.ego.speed:.1f} m/s", f"command: {command}"]
    words, color = status, WARNING
    if plan is not None:
        facts += [
            f"confidence {plan.confidence:.2f}",
            f"{len(plan.agents)} agents",
            f"{len(plan.map_elements)} map elements",
            f"{1e3 * sum(plan.stage_times.values()):.0f} ms",
        ]
        mode = plan.reasoning.actual_mode.name.lower()
        facts.append(f"thinking: {mode}")
        words, color = plan.reasoning.text, WHITE
    lines = [("   |   ".join(facts), SOFT)]
    if plan is not None and status:
        lines.append((status, SOFT))
    if observation.degraded:
        lines.append((f"degraded: {', '.join(observation.degraded)}", WARNING))
    room = (STRIP_HEIGHT - 20) // 24 - len(lines)
    lines += [(line, color) for line in textwrap.wrap(words, LINE_LENGTH, max_lines=room, placeholder=" ...")]
    for row, (line, tint) in enumerate(lines):
        text = line.encode("ascii", "replace").decode()  # cv2's fonts have no other letters
        cv2.putText(strip, text, (14, 28 + 24 * row), FONT, 0.5, tint, 1, cv2.LINE_AA)
    return strip


def _beside(pictures: list[Image]) -> Image:
    height = pictures[0].shape[0]
    gap = np.full((height, GAP, 3), BACKGROUND, dtype=np.uint8)
    joined = [pictures[0]]
    for picture in pictures[1:]:
        joined += [gap, picture]
    return np.hstack(joined)


def _below(pictures: list[Image]) -> Image:
    gap = np.full((GAP, pictures[0].shape[1], 3), BACKGROUND, dtype=np.uint8)
    joined = [pictures[0]]
    for picture in pictures[1:]:
        joined += [gap, picture]
    return np.vstack(joined)
