"""Makes ROS 2 from PyPI build interfaces: points its exported CMake files at this interpreter and this numpy.

The wheels name the include folders of the machine that built them (/opt/python/cpXY-cpXY/...).
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

PYTHON_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
NUMPY_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/(?:_core|core)/include")


def mend(share: Path) -> int:
    """Rewrites every `*.cmake` under `share` that needs it; returns how many did."""
    mended = 0
    for path in share.rglob("*.cmake"):
        text = path.read_text()
        better = NUMPY_INCLUDE.sub(numpy.get_include(), text)
        better = PYTHON_INCLUDE.sub(sysconfig.get_path("include"), better)
        if better != text:
            path.write_text(better)
            mended += 1
    return mended


if __name__ == "__main__":
    print(f"pointed {mend(Path(sys.prefix) / 'share')} CMake files at {sys.executable}")
