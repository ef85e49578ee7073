"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Examples may take long on a loaded machine, and the same ones are tried in every run.
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        message = f"this test needs {folder.name}/ in a folder `shared` beside the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Reference outputs of the published network."""
    return _shared("golden")


@pytest.fixture(scope="session")
def keyframe_folder() -> Path:
    """A real nuScenes keyframe: six images and frame.json."""
    return _shared("data") / "nuscenes_keyframe"
