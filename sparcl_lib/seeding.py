"""One seed for every generator that training draws from, and the states of all of them."""

from numbers import Integral
from typing import TYPE_CHECKING, Any

from sparcl_lib.errors import UserError, shown

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and PyTorch; `threads` pins PyTorch's CPU threads.

    Sums are taken in another order with another number of threads, so losses agree to about three
    decimals only: pin the threads where numbers are to be compared. Raises UserError, and seeds
    nothing, for a seed that is no whole number of 0 to 2**32 - 1 and for less than one thread.
    """
    if not _is_whole(seed, 0, 2**32 - 1):
        raise UserError(f"seed is {shown(seed)}: give a whole number from 0 to 2**32 - 1")
    if threads is not None and not _is_whole(threads, 1, 2**31 - 1):
        raise UserError(f"threads is {shown(threads)}: give how many, as in 1 or 2, or None")
    from lightning_fabric import seed_everything as seed_all

    seed_all(seed, workers=True, verbose=False)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high


def random_state(device: "torch.device") -> dict[str, Any]:
    """Where the generators of Python, NumPy, PyTorch and `device` stand, as plain data."""
    import random

    import numpy as np
    import torch

    state: Any = np.random.get_state(legacy=False)
    numbers = {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}}
    on_cpu = device.type == "cpu"
    return {
        "python": random.getstate(),
        "numpy": numbers,
        "torch": torch.get_rng_state(),
        "device": None if on_cpu else torch.get_device_module(device).get_rng_state(),
    }


def set_random_state(state: dict[str, Any], device: "torch.device") -> None:
    """Bring the generators to where `random_state` found them; that of a device of another kind
    than then is left alone."""
    import random

    import numpy as np
    import torch

    numbers = state["numpy"]
    key = np.array(numbers["state"]["key"], dtype=np.uint32)
    random.setstate(state["python"])
    np.random.set_state({**numbers, "state": {**numbers["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and state["device"] is not None:
        torch.get_device_module(device).set_rng_state(state["device"])
