"""Installs the Python module alone, for machines without ROS: `pip install .` (colcon builds with CMakeLists.txt)."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).parent
FOLDERS = (
    "msg",
    "srv",
    "action",
    "config",
    "config/rig",
    "config/topics",
    "config/dds",
    "checkpoints/small",
    "checkpoints/ego_state",
)
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "src/opendrivevla_ros/__init__.py").read_text())


def requirements(name: str) -> list[str]:
    lines = (HERE / f"requirements/{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="opendrivevla_ros",
    version=VERSION.group(1),
    description="Vision-language-action driving models on ROS 2",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "src"},
    packages=find_namespace_packages("src"),
    # where colcon installs them too: bags need the message definitions, nodes their configuration and a policy
    data_files=[
        (f"share/opendrivevla_ros/{folder}", [str(path) for path in sorted(Path(folder).iterdir()) if path.is_file()])
        for folder in FOLDERS
    ],
    install_requires=requirements("runtime"),
    extras_require={"training": requirements("training"), "ray": ["ray>=2.40"]},
    entry_points={"console_scripts": ["odv = opendrivevla_ros.cli.main:main"]},
)
