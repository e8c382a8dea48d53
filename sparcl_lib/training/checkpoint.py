"""A checkpoint as a file: written with a checksum, verified before anything is made of it.

torch.load checks neither: one flipped bit gives another network, silently.
"""

import hashlib
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import torch
from torch import Tensor

from sparcl_lib.errors import UserError, shown
from sparcl_lib.models import BACKBONES, NetworkSpec, build_segmenter
from sparcl_lib.plain import build
from sparcl_lib.stops import stops_come_out
from sparcl_lib.training.content import content_from_plain

_MARK = b"sparcl-sha256:"
_TRAILER = len(_MARK) + 64
_NO_COMMENT = re.compile(rb"PK\x05\x06.{16}\0\0\Z", re.DOTALL)
"""How an archive of version 0.3 and before ends."""
_KEYS = ("config", "step", "model", "bank", "seconds")
_LARGE = ("model", "bank", "mechanisms", "optimizer", "rng")
_MOST_CLASSES, _MOST_CHANNELS = 256, 4096


class CheckpointProblem(ValueError):
    """What is wrong with a checkpoint, in words that go on after its path."""


def write_checkpoint(state: Mapping[str, Any], file: Path) -> None:
    """torch's archive, and at its end, as its comment, the checksum of all that stands before.

    Raises OSError, for a full disk too, which torch tells in words of its own.
    """
    with file.open("w+b") as stream:
        with stops_come_out():
            try:
                torch.save(dict(state), stream)
            except RuntimeError as error:
                raise _cause(error) from error
        stream.seek(-2, 2)
        stream.write(struct.pack("<H", _TRAILER))  # how long the comment is
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0, 2)
        stream.write(_MARK + digest.encode())


def _cause(error: BaseException) -> OSError:
    """What the system said, which torch's error hides."""
    cause: BaseException | None = error
    seen: list[BaseException] = []  # a stop and what it broke may be each other's cause
    while cause is not None and not isinstance(cause, OSError) and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0])


def read_checkpoint(file: Path, step: int) -> dict[str, Any]:
    """The state of a step, on the CPU. Raises CheckpointProblem.

    Verified are the checksum (the archive's own ones in files of version 0.3 and before), the
    step, and that network and prototypes are those that it describes, all their numbers finite.
    Nothing in it is run.
    """
    return _read(file, partial(verify_state, step=step))


def record_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a step without networks, prototypes and random state."""
    return {key: value for key, value in state.items() if key not in _LARGE}


def read_progress(file: Path, step: int) -> dict[str, Any]:
    """The state of a step that is not finished, as `read_checkpoint`; of what is in it only the
    step is verified. Raises CheckpointProblem."""

    def verify(state: object) -> None:
        if not isinstance(state, dict) or state.get("step") != step or "iteration" not in state:
            raise CheckpointProblem(f"it is no begun step {step}")

    return _read(file, verify)


def _read(file: Path, verify: Callable[[object], None]) -> dict[str, Any]:
    try:
        with stops_come_out():  # else the file would be called damaged
            _verify_bytes(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
            verify(state)
    except CheckpointProblem:
        raise
    except Exception as error:  # unpickling a damaged file can raise anything
        raise CheckpointProblem(_why_unread(error)) from error
    checked: dict[str, Any] = state
    return checked


def _verify_bytes(file: Path) -> None:
    """Raise CheckpointProblem unless every byte is as it was written."""
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TRAILER))
        trailer = stream.read()
        if trailer.startswith(_MARK):
            if _digest(stream, size - _TRAILER) != trailer[len(_MARK) :].decode("ascii", "replace"):
                raise CheckpointProblem("it is damaged, its checksum is another one")
            return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = not _NO_COMMENT.search(trailer) or archive.testzip() is not None
    except zipfile.BadZipFile as error:
        raise CheckpointProblem("it is damaged, or no checkpoint") from error
    if damaged:
        raise CheckpointProblem("it is damaged, a checksum in it is another one")


def _digest(stream: IO[bytes], size: int) -> str:
    """sha256 of the first `size` bytes."""
    digest = hashlib.sha256()
    stream.seek(0)
    while size > 0:
        block = stream.read(min(size, 1 << 20))
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _why_unread(error: Exception) -> str:
    found = re.search(r"unsupported (?:global: )?(?:global|class) ([\w.]+)", str(error), re.I)
    if found:
        return f"it holds {found[1]}, which is no plain data and could run code: it was not loaded"
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or "it is damaged, or no checkpoint"


def verify_state(state: object, step: int) -> None:
    """Raise CheckpointProblem unless this is the state of a step, whole and in itself right."""
    if not isinstance(state, dict):
        raise CheckpointProblem(f"it holds {shown(type(state).__name__)}, no state of a step")
    if state and all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointProblem("it holds weights alone, not the state of a step")
    for key in _KEYS:
        if key not in state:
            raise CheckpointProblem(f"it has no {key!r}, so it is no state of a step")
    if not isinstance(state["step"], int) or state["step"] != step:
        raise CheckpointProblem(f"it is the checkpoint of step {shown(state['step'])}")
    _verify_record(state)
    try:
        spec = network_spec(state)
        if spec.backbone not in BACKBONES or not BACKBONES[spec.backbone].of_library:
            return  # a user's may not be defined here, or be edited since: no damage of the file
        wanted, features = _shapes(spec)
        channels = sum(spec.classes)
        bank = {"sums": (channels, features), "counts": (channels,)}
        _verify_tensors("model", state["model"], wanted)
        _verify_tensors("bank", state["bank"], bank)
        if "confusion" in state:  # else it was not evaluated yet
            square = {"confusion": (channels, channels)}
            _verify_tensors("", {"confusion": state["confusion"]}, square)
            if state["confusion"].is_floating_point() or (state["confusion"] < 0).any():
                raise CheckpointProblem("confusion holds no counts")
    except (AttributeError, KeyError, TypeError, UserError) as error:
        raise CheckpointProblem(f"it describes no network ({error})") from error


def _verify_record(state: Mapping[str, Any]) -> None:
    """Raise CheckpointProblem for a record of something else than what training writes down."""
    config, seconds = state["config"], state["seconds"]
    if not isinstance(config, dict) or not isinstance(config.get("setup"), str):
        raise CheckpointProblem("its 'config' is none of a run")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise CheckpointProblem(f"its 'seconds' are {shown(seconds)}")
    for key in ("images", "evaluated"):
        listed = state.get(key, {})
        named = isinstance(listed, dict) and all(isinstance(x, str) for x in listed.values())
        if not named or not all(isinstance(name, str) for name in listed):
            raise CheckpointProblem(f"its {key!r} are no names of images")
    for key in ("content", "mechanisms", "terms"):
        if not isinstance(state.get(key, {}), dict):
            raise CheckpointProblem(f"its {key!r} is {shown(state[key])}")
    try:
        if "content" in state and state["step"] >= len(content_from_plain(state["content"]).steps):
            raise CheckpointProblem("its 'content' does not know its step")
    except (TypeError, UserError) as error:
        raise CheckpointProblem(f"its 'content' is none of a run ({error})") from error


def _verify_tensors(
    group: str, tensors: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    for name in dict.fromkeys([*wanted, *tensors]):
        key, value = f"{group}.{name}".lstrip("."), tensors.get(name)
        if name not in wanted or not isinstance(value, Tensor):
            missing = "is missing" if name in wanted else "is none of its network's"
            raise CheckpointProblem(f"{key} {missing}")
        if tuple(value.shape) != wanted[name]:
            raise CheckpointProblem(
                f"{key} has the shape {tuple(value.shape)}, not {wanted[name]} as described"
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointProblem(f"{key} holds NaN or infinity")


@cache
def _shapes(spec: NetworkSpec) -> tuple[Mapping[str, tuple[int, ...]], int]:
    """Name -> shape of all that a network has, and the channels of its features. No memory, and
    torch's generator stays as it was."""
    few = len(spec.classes) <= _MOST_CLASSES and all(0 < n <= _MOST_CLASSES for n in spec.classes)
    if not few or not 0 < spec.head_channels <= _MOST_CHANNELS:
        raise UserError(f"{spec.classes} classes on {spec.head_channels} channels")
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build_segmenter(spec)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return MappingProxyType(shapes), network.backbone.dim


def network_spec(checkpoint: Mapping[str, Any]) -> NetworkSpec:
    """What the network of a checkpoint is; version 0.2 wrote it down as settings of the run."""
    if "network" in checkpoint:
        found: NetworkSpec = build(NetworkSpec, checkpoint["network"])
        return found
    model, method = checkpoint["config"]["model"], checkpoint["config"]["method"]
    return NetworkSpec(
        model["backbone"],
        tuple(checkpoint["num_classes"]),
        output_stride=model["output_stride"],
        head=model["head"],
        head_channels=model["head_channels"],
        unknown=method.get("unknown", 0) > 0,
        head_per_step=method.get("own_heads", False),
    )
