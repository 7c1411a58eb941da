"""The sampler beside the coordinator: the same jobs in the same order, and nobody waits for them."""

import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from search.asking import Asking
from search.contract import Value
from search.sampling import Sampling
from search.state import State, Trial
from tests.running import coordinate, fake_study
from tests.studies import definition


class Recorded(Sampling):
    """A sampler that waits for `go` at each ask, and writes down what it is given to do."""

    def __init__(self, sampler: str = "tpe") -> None:
        super().__init__(definition(sampler=sampler), State())
        self.go, self.jobs = threading.Event(), list[str]()

    def ask(self, number: int, in_training: Collection[Trial] = ()) -> dict[str, Value]:
        assert self.go.wait(10)
        self.jobs.append(f"ask {number} in {threading.current_thread() is threading.main_thread()}")
        return super().ask(number, in_training)

    def tell(self, trial: Trial) -> None:
        self.jobs.append("tell")
        if trial.number < 0:
            raise ValueError("no such trial")


def trial(number: int) -> Trial:
    return Trial(number=number, raw={}, hyperparameters={}, baseline=False, asked_at=0.0)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_jobs_are_done_in_their_order_while_the_caller_goes_on(sampler: str) -> None:
    sampling = Recorded(sampler)
    asking = Asking(sampling, aside=True)
    first = asking.ask(0)
    asking.tell(trial(0))
    second = asking.ask(1)
    assert not first.done()
    sampling.go.set()
    assert second.result(10).keys() == first.result(10).keys() == definition().space.keys()
    assert sampling.jobs == ["ask 0 in False", "tell", "ask 1 in False"]
    asking.close()


def test_samplers_that_depend_on_when_they_were_told_work_at_once() -> None:
    sampling = Recorded("qmc")
    sampling.go.set()
    assert Asking(sampling, aside=True).ask(0).done()
    assert sampling.jobs == ["ask 0 in True"]


def test_what_a_job_raises_reaches_the_caller() -> None:
    asking = Asking(Recorded(), aside=True)
    with pytest.raises(ValueError, match="no such trial"):  # noqa: PT012 - at the latest with one of these jobs
        asking.tell(trial(-1))
        for _ in range(1000):
            time.sleep(0.001)
            asking.tell(trial(0))
    asking.close()


def test_asked_aside_and_at_once_trials_are_the_same() -> None:
    aside, at_once = (Asking(Sampling(definition(), State()), aside=aside) for aside in (True, False))
    assert [aside.ask(n).result(10) for n in range(12)] == [at_once.ask(n).result() for n in range(12)]
    aside.close()


def test_study_asks_exactly_its_trials_whoever_is_faster(tmp_path: Path) -> None:
    state = coordinate(fake_study(n_trials=30), tmp_path)
    assert len(state.trials) == len(state.finished) == 30
