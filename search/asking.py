"""The sampler at work beside the coordinator: a report is answered at once, also while the next trial is being asked.

An ask takes Optuna's TPE 30 ms after 100 trials (tests/benchmarks/README.md), in which small networks train an epoch.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from search.contract import Value
from search.sampling import Sampling
from search.state import Trial

Result = TypeVar("Result")


class Asking:
    """A sampler whose jobs are done in the order they were given, by a thread of its own or at once."""

    def __init__(self, sampling: Sampling, *, aside: bool) -> None:
        """Nobody else may use the sampler from now on.

        Args:
            aside: in a thread; only for a sampler whose trials do not depend on when it was told of others.
        """
        self._sampling = sampling
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler") if aside and not sampling.replayed else None
        self._jobs: deque[Future[None]] = deque()

    @property
    def can_hold(self) -> bool:
        """As Sampling has it."""
        return self._sampling.can_hold

    def ask(self, number: int, in_training: Collection[Trial] = ()) -> Future[dict[str, Value]]:
        """Begin to ask for a trial, as Sampling has it; the future will hold the raw values."""
        return self._given(lambda: self._sampling.ask(number, in_training))

    def hold(self, number: int, values: Mapping[str, Value]) -> None:
        """As Sampling has it, before whatever is asked next."""
        self._later(lambda: self._sampling.hold(number, values))

    def tell(self, trial: Trial) -> None:
        """As Sampling has it, before whatever is asked next."""
        self._later(lambda: self._sampling.tell(trial))

    def close(self) -> None:
        """Finish what was begun."""
        if self._thread is not None:
            self._thread.shutdown()

    def _later(self, job: Callable[[], None]) -> None:
        self._jobs.append(self._given(job))
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft().result()  # what a job raises belongs to the coordinator

    def _given(self, job: Callable[[], Result]) -> Future[Result]:
        if self._thread is not None:
            return self._thread.submit(job)
        done: Future[Result] = Future()
        done.set_result(job())
        return done
