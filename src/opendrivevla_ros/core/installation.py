"""Where the files that come with the package lie."""

from pathlib import Path


def install_file(relative: str) -> Path:
    """A file that comes with the package ("config/rig/nuscenes.yaml"), in the source tree or below an install prefix.

    Raises FileNotFoundError.
    """
    for folder in Path(__file__).absolute().parents:
        for candidate in (folder / relative, folder / "share" / "opendrivevla_ros" / relative):
            if candidate.exists():
                return candidate
    raise FileNotFoundError(f"{relative} did not come with this installation; run from the source tree or reinstall")
