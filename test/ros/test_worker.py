"""The slot of one: the newest wins, nothing queues, idle work fills the gaps."""

import threading

from opendrivevla_ros.ros.worker import NewestWinsWorker

TIMEOUT_S = 5.0


def test_of_all_items_that_come_during_work_only_the_newest_is_worked_on() -> None:
    started, go_on, done, seen = threading.Event(), threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        seen.append(item)
        started.set()
        go_on.wait(TIMEOUT_S)
        if item == 9:
            done.set()

    worker = NewestWinsWorker[int]("test", work)
    assert not worker.submit(0)
    assert started.wait(TIMEOUT_S)
    replaced = [worker.submit(item) for item in range(1, 10)]
    go_on.set()
    assert done.wait(TIMEOUT_S)
    assert seen == [0, 9]
    assert replaced == [False] + [True] * 8
    assert worker.stop(TIMEOUT_S)


def test_a_discarded_item_is_never_worked_on() -> None:
    started, go_on, seen = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        seen.append(item)
        started.set()
        go_on.wait(TIMEOUT_S)

    worker = NewestWinsWorker[int]("test", work)
    worker.submit(0)
    assert started.wait(TIMEOUT_S)
    worker.submit(1)
    worker.discard()
    go_on.set()
    assert worker.stop(TIMEOUT_S)
    assert seen == [0]


def test_idle_work_goes_on_between_items_until_there_is_none() -> None:
    order: list[str] = []
    done = threading.Event()
    worker: NewestWinsWorker[str]

    def idle() -> bool:
        order.append("idle")
        if order.count("idle") == 1:
            worker.submit("item")
        if order.count("idle") == 3:
            done.set()
            return False
        return True

    worker = NewestWinsWorker[str]("test", order.append, idle)
    worker.wake()
    assert done.wait(TIMEOUT_S)
    assert worker.stop(TIMEOUT_S)
    assert order == ["idle", "item", "idle", "idle"]


def test_stopping_reports_work_that_does_not_end_in_time() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(item: int) -> None:
        started.set()
        go_on.wait(TIMEOUT_S)

    worker = NewestWinsWorker[int]("test", work)
    worker.submit(0)
    assert started.wait(TIMEOUT_S)
    assert worker.is_busy
    assert not worker.stop(0.01)
    go_on.set()
    assert worker.stop(TIMEOUT_S)


def test_idle_work_is_not_starved_by_items_that_never_cease() -> None:
    worker: NewestWinsWorker[int]
    idled, items = threading.Event(), []

    def work(item: int) -> None:
        items.append(item)
        worker.submit(item + 1)

    def idle() -> bool:
        idled.set()
        return False

    worker = NewestWinsWorker[int]("test", work, idle)
    worker.submit(0)
    worker.wake()
    assert idled.wait(TIMEOUT_S)
    assert worker.stop(TIMEOUT_S)
    assert items
