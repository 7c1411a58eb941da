"""What a CUDA graph does, without a GPU: operations are recorded as they run, and repeated on the tensors they used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten: Any = torch.ops.aten
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.lift_fresh.default}
"""Operations that wait for the device, or copy what the host has to it: `.item()`, `x[mask]`, `torch.tensor`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation as it ran."""

    operation: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]
    outputs: Sequence[Any]

    def repeat(self) -> None:
        """Run it again into the memory that it used."""
        returns = self.operation._schema.returns
        if returns and all(each.alias_info is not None and not each.alias_info.is_write for each in returns):
            return  # a view of memory is what it was
        for old, new in zip(self.outputs, listed(self.operation(*self.args, **self.kwargs)), strict=True):
            if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                old.copy_(new)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that run in its context; all they make stays alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        assert func not in WAITING, f"{func} cannot be captured"
        out = func(*args, **(kwargs or {}))
        self.calls.append(Call(operation=func, args=args, kwargs=kwargs or {}, outputs=listed(out)))
        return out

    def trace(self) -> list[tuple[str, ...]]:
        """Every operation with its numbers, and the tensors by address, or by who made them."""
        made: dict[int, str] = {}

        def named(value: Any) -> str:
            if isinstance(value, Tensor):
                place = made.get(value.untyped_storage().data_ptr(), str(value.data_ptr()))
                return f"{place} {tuple(value.shape)} {value.stride()} {value.dtype}"
            return str([named(each) for each in value]) if isinstance(value, (list, tuple)) else repr(value)

        found = []
        for i, call in enumerate(self.calls):
            given = [named(value) for value in (*call.args, *call.kwargs.values())]
            found.append((str(call.operation), *given))
            used = {t.untyped_storage().data_ptr() for t in tensors(call.args) + tensors(list(call.kwargs.values()))}
            for output in tensors(call.outputs):
                if (place := output.untyped_storage().data_ptr()) not in used:
                    made.setdefault(place, f"call {i}")
        return found


class Recorded:
    """Operations that are recorded in the first call, and repeated in all others."""

    def __init__(self, operations: Callable[[], None]) -> None:
        self._operations = operations
        self._calls: Sequence[Call] = ()

    def __call__(self) -> None:
        if not self._calls:
            with Recorder() as recorder:
                self._operations()
            self._calls = recorder.calls
            return
        for call in self._calls:
            call.repeat()


def listed(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        found += tensors(value) if isinstance(value, (list, tuple)) else [value] if isinstance(value, Tensor) else []
    return found
