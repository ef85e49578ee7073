"""The import rules of the package: rooms stand on floors, and imports go down only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "opendrivevla_ros"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE

FLOORS = (
    ("core",),
    ("sensing", "perception", "language", "safety", "world"),
    ("policies", "datasets"),
    ("training", "evaluation"),
    ("ros", "cli"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_TORCH = ("core", "sensing")
NOT_FOR_DRIVING = {f"{PACKAGE}.{room}" for room in ("world", "datasets", "training", "evaluation", "cli")}
GENERATED = (f"{PACKAGE}.msg", f"{PACKAGE}.srv", f"{PACKAGE}.action")
ROS_MODULES = ("rclpy", "message_filters", "tf2_ros", "cv_bridge", "std_srvs", "builtin_interfaces", *GENERATED)


@dataclass(frozen=True)
class Import:
    """One imported name in a file, at its top or inside a function."""

    module: str
    line: int


def imports_of(path: Path, package: str) -> Iterator[Import]:
    """Every import in a file of `package` (dotted), with relative ones resolved and literal `import_module` calls."""

    def visit(node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield Import(str(node.args[0].value), node.lineno)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))


def is_ros(module: str) -> bool:
    top = module.split(".")[0]
    return top.endswith("_msgs") or any(module == name or module.startswith(f"{name}.") for name in ROS_MODULES)


def objection(room: str, imported: Import) -> str | None:
    """Why `room` (empty: the package's own __init__) may not import this, or None."""
    parts = imported.module.split(".")
    if is_ros(imported.module):
        return None if room == "ros" else "only ros may import ROS modules"
    if parts[0] == "torch" and room in WITHOUT_TORCH:
        return f"{room} imports no torch"
    if parts[0] != PACKAGE or len(parts) < 2 or parts[1] not in FLOOR_OF or parts[1] == room:
        return None
    target = parts[1]
    if room == "":
        return "the package itself imports none of its rooms"
    if target == "ros" and room == "cli":
        return None
    if FLOOR_OF[target] >= FLOOR_OF[room]:
        return f"{room} (floor {FLOOR_OF[room]}) may not import {target} (floor {FLOOR_OF[target]}): imports go down"
    return None


def violations(source: Path) -> list[str]:
    """Every broken import rule below `source`, a folder named like the package."""
    found = []
    for path in sorted(source.rglob("*.py")):
        place = path.relative_to(source)
        room = place.parts[0] if len(place.parts) > 1 else ""
        if room and room not in FLOOR_OF:
            found.append(f"{place}: {room} is none of the rooms {sorted(FLOOR_OF)}")
            continue
        for imported in imports_of(path, ".".join([PACKAGE, *place.parts[:-1]])):
            if reason := objection(room, imported):
                found.append(f"{place}:{imported.line}: imports {imported.module}; {reason}")
    return found


def test_imports_between_rooms_go_down_only():
    assert violations(SOURCE) == []
    assert len(list(SOURCE.rglob("*.py"))) > 10


ALLOWED = {
    "language/prompt.py": "from opendrivevla_ros.core.ego import EgoState\nfrom . import grammar\nimport torch",
    "policies/registry.py": "import opendrivevla_ros.language.prompt\nfrom opendrivevla_ros.policies import presets",
    "evaluation/comfort.py": "from opendrivevla_ros.datasets import bags\nimport opendrivevla_ros",
    "ros/vla_node.py": "import rclpy\nfrom opendrivevla_ros.msg import Reasoning\nfrom geometry_msgs.msg import Pose",
    "cli/play.py": "from opendrivevla_ros.ros import bag_player\nfrom opendrivevla_ros.world import state",
    "core/deep/inner.py": "from .. import geometry\nfrom ..ego import EgoState",
}
FORBIDDEN = {
    "core/plan.py": "from opendrivevla_ros.policies import registry",
    "core/relative.py": "from ..language import prompt",
    "core/__init__.py": "import torch",
    "sensing/images.py": "def decode():\n    import torch.nn",
    "sensing/odometry.py": "import rclpy",
    "language/sibling.py": "from opendrivevla_ros.perception.config import AGENT_CLASSES",
    "perception/from_package.py": "from opendrivevla_ros import language",
    "policies/lazy.py": "def load():\n    from opendrivevla_ros.evaluation import open_loop",
    "policies/by_name.py": "import importlib\nimportlib.import_module('opendrivevla_ros.training.loop')",
    "datasets/bags.py": "from sensor_msgs.msg import Image",
    "evaluation/messages.py": "from opendrivevla_ros.msg import Reasoning",
    "training/loop.py": "from opendrivevla_ros.evaluation import open_loop",
    "ros/bridge.py": "def run():\n    from opendrivevla_ros.cli import play",
    "cli/doctor.py": "def check():\n    import rclpy",
    "cli/demo.py": "from rclpy.node import Node",
    "attic/old.py": "",
    "__init__.py": "from opendrivevla_ros.core import plan",
}


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_tree_that_keeps_the_import_rules_passes_the_check(tmp_path):
    for name, text in ALLOWED.items():
        write(tmp_path, name, text)
    assert violations(tmp_path) == []


@pytest.mark.parametrize("name", FORBIDDEN)
def test_each_forbidden_import_is_reported_alone(tmp_path, name):
    for other, text in ALLOWED.items():
        write(tmp_path, other, text)
    write(tmp_path, name, FORBIDDEN[name])
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:")


def loaded_by(program: str) -> set[str]:
    """Names of all modules that are loaded after `program` ran in a fresh interpreter."""
    script = f"import sys\nsys.path.insert(0, {str(SOURCE.parent)!r})\n{program}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_core_and_sensing_load_neither_torch_nor_rclpy():
    modules = [
        ".".join([PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts])
        for room in WITHOUT_TORCH
        for path in sorted((SOURCE / room).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert f"{PACKAGE}.core.plan" in modules
    loaded = loaded_by("\n".join(f"import {module}" for module in modules))
    assert set(modules) <= loaded
    assert loaded.isdisjoint({"torch", "rclpy"})


def test_a_baseline_policy_loads_nothing_that_driving_does_not_need():
    loaded = loaded_by(
        f"from {PACKAGE}.policies.registry import load_policy\n"
        "assert load_policy('constant_velocity').info.model_id == 'constant_velocity'"
    )
    assert f"{PACKAGE}.policies.registry" in loaded
    assert loaded.isdisjoint(NOT_FOR_DRIVING | {f"{PACKAGE}.ros", "torch", "transformers", "rclpy"})


def test_the_command_line_loads_no_ros_before_it_needs_it():
    loaded = loaded_by(f"import {PACKAGE}.cli.main")
    assert f"{PACKAGE}.cli.main" in loaded
    assert [module for module in loaded if is_ros(module)] == []  # not even messages: `odv doctor` says they lack


def test_the_inference_node_loads_nothing_that_driving_does_not_need():
    loaded = loaded_by(f"import {PACKAGE}.ros.vla_node")
    assert f"{PACKAGE}.ros.vla_node" in loaded
    assert loaded.isdisjoint(NOT_FOR_DRIVING)
