"""Files that are whole or not there."""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """The content at `path`, in place of what was there, or nothing changed. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # temporary files are for their owner alone
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
