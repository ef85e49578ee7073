"""The repository as a ROS package: commented interfaces, declared dependencies, files that parse, the licence."""

import ast
import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
PACKAGE = "opendrivevla_ros"
INTERFACES = sorted(path for kind in ("msg", "srv", "action") for path in REPOSITORY.glob(f"{kind}/*.{kind}"))
CONFIGURATION = sorted(
    path
    for folder in ("launch", "config", "rviz")
    for path in (REPOSITORY / folder).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
)

# Names in package.xml that differ from the imported module's, and modules that are used only where they are found.
DECLARED_NAMES = {  # where a module's differs from its own
    "cv2": "python3-opencv",
    "yaml": "python3-yaml",
    "tf2_ros": "tf2_ros_py",
    "scipy": "python3-scipy",
    "nuscenes": "nuscenes_devkit",
    "PIL": "pillow",
}
OPTIONAL_MODULES = {"ray", "torchvision", "triton"}

# SHA-256 of the terms of the Apache License 2.0 up to their end, with every run of white space as one space.
APACHE_TERMS = "d5e4c8942091934e8f11f49efe6055366918b8034549dbfffc2e71a2c4f5de32"


def uncommented(text: str) -> list[str]:
    """Declarations of an interface file that no comment explains.

    A comment stands behind its declaration or on the line above it; the file's first line is about the whole. A
    constant may instead be explained by the field of its section that follows it and takes it as a value.
    """
    found: list[str] = []
    waiting: list[str] = []
    above = ""
    for number, line in enumerate([*text.splitlines(), "---"]):
        declaration, _, comment = (part.strip() for part in line.partition("#"))
        if declaration == "---":
            found, waiting = found + waiting, []
        elif declaration:
            explained = bool(comment or above)
            is_constant = re.fullmatch(r"\S+\s+[A-Z][A-Z0-9_]*\s*=.*", declaration) is not None
            if not explained:
                (waiting if is_constant else found).append(declaration)
            elif not is_constant:
                kind = declaration.split()[0]
                waiting = [constant for constant in waiting if constant.split()[0] != kind]
        above = comment if not declaration and number > 0 else ""
    return found


def test_every_field_of_every_interface_has_a_comment():
    assert len(INTERFACES) >= 13
    missing = {path.name: names for path in INTERFACES if (names := uncommented(path.read_text(encoding="utf-8")))}
    assert missing == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A thing.\nbool ready", ["bool ready"]),
        ("# A thing.\n# whether it runs\nbool ready", []),
        ("bool ready  # whether it runs\nbool done", ["bool done"]),
        ("uint8 LOW=0\nuint8 HIGH=1\nuint8 level  # one of the above", []),
        ("uint8 LOW=0\nuint8 level", ["uint8 level", "uint8 LOW=0"]),
        ("uint8 LOW=0\n---\nuint8 level  # one of the above", ["uint8 LOW=0"]),
        ("uint8 LOW=0\nstring name  # who", ["uint8 LOW=0"]),
    ],
)
def test_fields_without_a_comment_are_found(text, expected):
    assert uncommented(text) == expected


def manifest_names(*tags: str) -> set[str]:
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    return {str(element.text).strip() for tag in tags for element in root.iter(tag)}


def imported_modules(path: Path) -> set[str]:
    """Top-level names that a Python file imports from outside, the standard library and this package left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGE}


def undeclared(paths: list[Path], declared: set[str]) -> dict[str, list[str]]:
    """Imported modules that are neither declared nor optional, by file."""
    found = {}
    for path in paths:
        needed = {DECLARED_NAMES.get(name, name) for name in imported_modules(path) - OPTIONAL_MODULES}
        if missing := sorted(needed - declared):
            found[path.as_posix()] = missing
    return found


def pip_names() -> set[str]:
    files = [REPOSITORY / "requirements" / name for name in ("runtime.txt", "training.txt")]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return {match.group().replace("-", "_") for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}


def test_the_manifest_is_a_format_three_package_of_the_same_version_as_the_module():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    initial = (REPOSITORY / "src" / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', initial, re.MULTILINE)
    assert (root.tag, root.get("format"), root.findtext("name")) == ("package", "3", PACKAGE)
    assert version is not None
    assert root.findtext("version") == version.group(1)
    assert root.findtext("license") == "Apache-2.0"


def test_every_imported_package_is_declared():
    declared = manifest_names("depend", "exec_depend") | pip_names()
    sources = sorted((REPOSITORY / "src").rglob("*.py"))
    assert (REPOSITORY / "src" / PACKAGE / "ros" / "conversions.py") in sources
    assert undeclared(sources, declared) == {}


def test_an_import_that_is_not_declared_is_found(tmp_path):
    path = tmp_path / "node.py"
    path.write_text("import os\nimport rclpy\ndef run():\n    from tf2_ros import Buffer\n    import triton\n")
    assert undeclared([path], {"rclpy", "tf2_ros_py"}) == {}
    assert undeclared([path], {"tf2_ros_py"}) == {path.as_posix(): ["rclpy"]}
    assert undeclared([path], {"rclpy", "tf2_ros"}) == {path.as_posix(): ["tf2_ros_py"]}


def test_packages_of_the_launch_files_are_dependencies_at_run_time():
    declared = manifest_names("depend", "exec_depend")
    launch_files = sorted((REPOSITORY / "launch").glob("*.py"))
    assert launch_files
    assert undeclared(launch_files, declared) == {}
    assert {name for path in launch_files for name in started_packages(path)} - {PACKAGE} <= declared


def started_packages(path: Path) -> Iterator[str]:
    """The literal `package=` arguments of a launch file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "package" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def test_packages_of_the_interfaces_are_dependencies_of_manifest_and_build():
    used = set()
    for path in INTERFACES:
        used |= set(re.findall(r"^(\w+)/\w+", path.read_text(encoding="utf-8"), re.MULTILINE))
    cmake = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    dependencies = re.search(r"rosidl_generate_interfaces\(.*?DEPENDENCIES(.*?)\)", cmake, re.DOTALL)
    assert dependencies is not None
    assert used <= manifest_names("depend")
    assert used <= set(dependencies.group(1).split())
    assert [
        str(path.relative_to(REPOSITORY)) for path in INTERFACES if f"  {path.parent.name}/{path.name}" not in cmake
    ] == []


@pytest.mark.parametrize("path", CONFIGURATION, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_each_launch_and_configuration_file_parses(path):
    text = path.read_text(encoding="utf-8")
    parsers = {
        ".py": ast.parse,
        ".xml": ElementTree.fromstring,
        ".json": json.loads,
        ".yaml": yaml.safe_load,
        ".rviz": yaml.safe_load,
    }
    parsed = parsers[path.suffix](text)
    assert parsed is not None


def test_launch_config_and_rviz_all_hold_files():
    assert {path.relative_to(REPOSITORY).parts[0] for path in CONFIGURATION} == {"launch", "config", "rviz"}


def test_the_licence_is_the_whole_apache_licence():
    text = " ".join((REPOSITORY / "LICENSE").read_text(encoding="utf-8").split()).replace("https:", "http:")
    terms, end, appendix = text.partition("END OF TERMS AND CONDITIONS")
    assert hashlib.sha256(terms.encode()).hexdigest() == APACHE_TERMS
    assert end
    assert "APPENDIX: How to apply the Apache License" in appendix
