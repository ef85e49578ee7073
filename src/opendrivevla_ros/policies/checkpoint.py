"""A checkpoint folder: config.json, model.safetensors with its SHA-256, tokenizer files, README.md (the card).

Reading is strict: what is missing, left over, of another shape, truncated or changed since it was written is refused
with a CheckpointError. Weights are safetensors only, which hold no code.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.strict_json import from_plain, to_plain

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CHECKSUM = "model.safetensors.sha256"  # as `sha256sum` writes it, so that `sha256sum --check` reads it
CARD = "README.md"

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)

SAFETENSORS_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write a checkpoint or a tokenizer in, which takes the place of `folder` at the end.

    Whatever happens before that, what is in `folder` stays, and nothing of the new one is left. Raises CheckpointError
    where the disk is full.
    """
    folder = folder.resolve()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror or error}); free disk space and run the same command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes a tokenizer's files. Raises OSError where they cannot be written."""
    try:
        tokenizer.save_pretrained(str(folder))
    except OSError:
        raise
    except Exception as error:  # what writes tokenizer.json has no type of its own for that
        raise OSError(str(error)) from error


def require(folder: Path, *names: str) -> None:
    """Raises CheckpointError unless the folder and these files in it exist."""
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint folder {folder} does not exist")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"checkpoint folder {folder} lacks {', '.join(missing)}")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or CheckpointError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error


def save_config(policy: str, config: Any, path: Path) -> None:
    """Writes config.json, with the key "policy" first so that a reader knows what the folder holds."""
    path.write_text(json.dumps({"policy": policy, **to_plain(config)}, indent=2) + "\n")


def parse_config(policy: str, kind: type[Config], data: Any) -> Config:
    """The configuration from the content of a config.json. Raises ValueError naming the key that is wrong."""
    if not isinstance(data, dict) or data.get("policy") != policy:
        found = data.get("policy") if isinstance(data, dict) else data
        raise ValueError(f'config.policy must be "{policy}", not {found!r}')
    return from_plain(kind, {key: value for key, value in data.items() if key != "policy"})


def load_config(folder: Path, parse: Callable[[Any], Config]) -> Config:
    """The configuration of a checkpoint folder. parse: as `parse_config`. Raises CheckpointError."""
    require(folder, CONFIG)
    path = folder / CONFIG
    content = read_json(path)
    try:
        return parse(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def empty_network(make: Callable[[], Network]) -> Network:
    """A network's keys and shapes, without memory for its weights (on the meta device). Raises CheckpointError."""
    try:
        with torch.device("meta"):
            return make().eval()
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise CheckpointError(f"the configuration describes no network: {error}") from error


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def verified_hash(folder: Path) -> str:
    """The SHA-256 of the folder's weights, which must be the one that was written with them."""
    require(folder, WEIGHTS, CHECKSUM)
    expected = (folder / CHECKSUM).read_text().split()[:1]
    found = sha256(folder / WEIGHTS)
    if expected != [found]:
        raise CheckpointError(
            f"{folder / WEIGHTS} has SHA-256 {found}, but {CHECKSUM} says {' '.join(expected) or 'nothing'}:"
            " the file is truncated or was changed; fetch or import it again"
        )
    return found


def shapes(path: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of every tensor in a safetensors file, from its header alone."""
    dtypes = {name: dtype for dtype, name in SAFETENSORS_NAMES.items()}
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return {name: (dtypes[part.get_dtype()], tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{path} holds a tensor of type {error.args[0]}, which is not supported") from error


def load_strictly(module: nn.Module, folder: Path) -> None:
    """Gives `module` (which may be on the meta device) the folder's weights: exactly its keys and shapes.

    Of entries that share their storage, such as a tied head, the file holds the first alone.
    """
    path = folder / WEIGHTS
    check_keys(expected_shapes(module), {name: shape for name, (_, shape) in shapes(path).items()}, str(path))
    module.load_state_dict(load_file(path), strict=False, assign=True)  # checked above; tied entries are not stored


def expected_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every entry that a file must have: of entries that share their storage, the first."""
    seen: set[int] = set()
    result = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            result[name] = tuple(tensor.shape)
    return result


def check_keys(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises CheckpointError for the first kind of difference: missing, unexpected, then of another shape."""
    if missing := sorted(set(expected) - set(found)):
        raise CheckpointError(f"{where} lacks {_some(missing)}, which the configuration needs")
    if unexpected := sorted(set(found) - set(expected)):
        raise CheckpointError(f"{where} holds {_some(unexpected)}, for which the configuration has no place")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{where}: {name} has shape {list(found[name])}, but the configuration needs {list(shape)}"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} entries ({', '.join(names[:3])}{more})" if len(names) > 1 else f"the entry {names[0]}"


def save_weights(folder: Path, module: nn.Module) -> str:
    """Writes a module's weights and their checksum; returns the SHA-256."""
    state = module.state_dict()
    entries = {name: (state[name].dtype, shape) for name, shape in expected_shapes(module).items()}
    return write_weights(folder, entries, lambda name: state[name])


def write_weights(
    folder: Path,
    entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensor_of: Callable[[str], Tensor],
    on_written: Callable[[int], None] = lambda size: None,
) -> str:
    """Writes model.safetensors and its checksum, with one tensor at a time in memory; returns the hash.

    The format: eight bytes of header length, a JSON header with dtype, shape and offsets, then the data.
    on_written: told the bytes of each tensor as it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in entries.items():
        size = dtype.itemsize * int(torch.Size(shape).numel())
        header[name] = {
            "dtype": SAFETENSORS_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with (folder / WEIGHTS).open("wb") as file:
        for chunk in (len(text).to_bytes(8, "little"), text):
            file.write(chunk)
            digest.update(chunk)
        for name, (dtype, shape) in entries.items():
            tensor = tensor_of(name).detach().to(device="cpu", dtype=dtype).contiguous()
            if tuple(tensor.shape) != shape:
                raise CheckpointError(f"{name} has shape {list(tensor.shape)}, but its header said {list(shape)}")
            data = tensor.reshape(-1).view(torch.uint8).numpy().data
            file.write(data)
            digest.update(data)
            on_written(len(data))
    (folder / CHECKSUM).write_text(f"{digest.hexdigest()}  {WEIGHTS}\n")
    return digest.hexdigest()


def copy_files(source: Path, folder: Path, names: Iterable[str]) -> list[str]:
    """Copies those of `names` that exist; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    present = [name for name in names if (source / name).is_file()]
    for name in present:
        shutil.copyfile(source / name, folder / name)
    return present
