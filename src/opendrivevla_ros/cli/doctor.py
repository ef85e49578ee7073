"""`odv doctor`: what is right and wrong with this machine and the running system, and what to do about it."""

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from opendrivevla_ros.cli.console import console
from opendrivevla_ros.cli.replay import DEFAULT_RIG
from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_topics import match_inputs, read_topic_map
from opendrivevla_ros.datasets.bags import BagError
from opendrivevla_ros.ros.command_node import require_messages, require_ros, ros_node
from opendrivevla_ros.ros.live_topics import Finding, discovered_topics, judge, listen
from opendrivevla_ros.sensing.calibration import CalibrationError, load_rig, require_fit

PYTHON_VERSIONS = ((3, 10), (3, 13))
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "torch", "torchao", "transformers", "safetensors", "rosbags")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
RAW_ROUND_BYTES = 6 * 1600 * 900 * 3  # six raw pictures, which a shared-memory segment must hold at once
DISCOVERY_S = 6.0  # at most; a participant announces itself every 3 s
COLORS = {"ok": "green", "note": "yellow", "broken": "red"}


def machine_findings() -> list[Finding]:
    """Interpreter, Python packages, ROS, accelerator and DDS of this machine."""
    return [_interpreter(), *_packages(), _ros(), _messages(), _accelerator(), _dds(), _shared_memory()]


def rig_findings(path: Path | None) -> tuple[list[Finding], CameraRig | None]:
    """The calibration file, and the rig in it when it is fit for use."""
    try:
        chosen = path or install_file(DEFAULT_RIG)
        rig = load_rig(chosen)
        require_fit(rig)
    except (CalibrationError, OSError) as error:
        return [Finding("rig file", "broken", str(error), "mend the file, or name another with --rig")], None
    if path is None:
        found = f"{chosen.name}, the example of nuScenes' vehicles"
        return [Finding("rig file", "note", found, "give your vehicle's with --rig")], None
    return [Finding("rig file", "ok", f"{path}: {len(rig.cameras)} cameras")], rig


def topic_findings(seconds: float, topic_map: Path | None, rig: CameraRig | None) -> list[Finding]:
    """The live topics of this ROS domain, listened to for so many seconds."""
    with ros_node("odv_doctor") as node:
        topics = discovered_topics(node, DISCOVERY_S)
        try:
            named = read_topic_map(topic_map) if topic_map else None
            inputs, missing = match_inputs(topics, "the running system", named)
        except BagError as error:
            return [Finding("topics", "broken", str(error))]
        if not inputs.by_input:
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            remedy = "start the drivers or `odv play BAG`; same ROS_DOMAIN_ID and DDS profile?"
            return [Finding("topics", "note", f"no camera and no odometry in ROS domain {domain}", remedy)]
        return judge(listen(node, inputs, seconds), missing, rig)


def _interpreter() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    lowest, highest = PYTHON_VERSIONS
    if lowest <= sys.version_info[:2] <= highest:
        return Finding("Python", "ok", f"{version} at {sys.executable}")
    names = " to ".join(".".join(map(str, bound)) for bound in PYTHON_VERSIONS)
    return Finding("Python", "broken", version, f"use Python {names}")


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            module = {"opencv-python-headless": "cv2"}.get(name, name)
            if importlib.util.find_spec(module) is not None:
                findings.append(Finding(name, "ok", "there, not from pip"))
                continue
            findings.append(Finding(name, "broken", "not installed", "run `make setup`, or pip install ."))
    return findings


def _ros() -> Finding:
    try:
        require_ros()
    except ImportError as error:
        if os.environ.get("ROS_DISTRO"):
            remedy = "it is sourced, but for another Python; use the one it was built for"
            return Finding("ROS 2", "broken", f"{os.environ['ROS_DISTRO']}, but {error}", remedy)
        remedy = "for nodes, play and demo: source ROS 2, or `make setup` and `source scripts/env.sh`"
        return Finding("ROS 2", "note", "none: only replay and checkpoint work", remedy)
    distribution = os.environ.get("ROS_DISTRO", "from PyPI")
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return Finding("ROS 2", "ok", f"{distribution}, {middleware}, domain {domain}")


def _messages() -> Finding:
    try:
        require_messages()
    except ImportError as error:
        if importlib.util.find_spec("rclpy") is None:
            return Finding("own messages", "note", "not built; bags do without")
        return Finding("own messages", "broken", str(error), "colcon build, then source its setup or scripts/env.sh")
    return Finding("own messages", "ok", "built")


def _accelerator() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return Finding("GPU", "broken", f"torch does not load ({error})", "run `make setup`")
    if not torch.cuda.is_available():
        return Finding("GPU", "note", "none", "models run on the CPU; the small ones keep up")
    properties = torch.cuda.get_device_properties(0)
    return Finding("GPU", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _dds() -> Finding:
    if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        middleware = os.environ["RMW_IMPLEMENTATION"]
        return Finding(
            "DDS profile", "note", f"{middleware} has settings of its own", "the profiles here are Fast DDS'"
        )
    path = next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), None)
    if path is None:
        remedy = f"export {PROFILE_VARIABLES[1]}=.../config/dds/vehicle.xml; raw pictures are lost without"
        return Finding("DDS profile", "note", "Fast DDS defaults", remedy)
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return Finding(
            "DDS profile", "broken", f"{path}: {error}", f"set {PROFILE_VARIABLES[1]} to a profile that is there"
        )
    segment = max(
        (int(element.text or 0) for element in root.iter() if element.tag.endswith("segment_size")), default=0
    )
    addresses = [element.text for element in root.iter() if element.tag.endswith("address")]
    reach = "this machine only" if addresses and set(addresses) == {"127.0.0.1"} else "all interfaces"
    found = f"{Path(path).name}: {segment / 2**20:.0f} MiB of shared memory, {reach}"
    if segment < 2 * RAW_ROUND_BYTES:
        remedy = f"raw pictures need segment_size {2 * RAW_ROUND_BYTES} or more, as in config/dds/vehicle.xml"
        return Finding("DDS profile", "note", found, remedy)
    return Finding("DDS profile", "ok", found)


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError as error:
        return Finding("shared memory", "note", str(error), "DDS falls back to UDP, which loses raw pictures")
    found = f"{free / 2**20:.0f} MiB free in /dev/shm"
    if free < 2**28:
        return Finding("shared memory", "note", found, "256 MiB are wanted; in a container: --shm-size=1g")
    return Finding("shared memory", "ok", found)


def doctor(
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to listen to live topics; 0: do not.")] = 3.0,
    rig: Annotated[Path | None, typer.Option(help="Calibration file of the vehicle.")] = None,
    topics: Annotated[Path | None, typer.Option(help="Topic map; default: topics are found by type and name.")] = None,
) -> None:
    """Check interpreter, ROS, GPU, DDS, live topics and calibration; exit 1 if something is broken."""
    findings = machine_findings()
    calibration, camera_rig = rig_findings(rig)
    findings += calibration
    ready = all(finding.state == "ok" for finding in findings if finding.name in ("ROS 2", "own messages"))
    if seconds and ready:
        with console.status("listening to live topics"):
            findings += topic_findings(seconds, topics, camera_rig)
    table = Table(box=box.SIMPLE)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        color = COLORS[finding.state]
        table.add_row(f"[{color}]{finding.state}[/{color}]", finding.name, finding.found, finding.remedy)
    console.print(table)
    broken = [finding.name for finding in findings if finding.state == "broken"]
    if broken:
        console.print(f"[red]broken:[/red] {', '.join(broken)}", soft_wrap=True)
        raise typer.Exit(1)
    console.print("[green]nothing is broken[/green]")
