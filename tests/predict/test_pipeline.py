import gc
import signal
import threading
import time
import weakref

import pytest

from helpers import naive
from xenomask.errors import XenomaskError
from xenomask.predict.pipeline import DEPTH, DROPPED, Profile, Stage, StageTimes, run


def stages(batch=None):
    """Three steps whose outcome names each item's way, the middle one in batches of items of equal parity."""
    middle = (lambda x: [2 * v for v in x]) if batch else (lambda x: 2 * x)
    return [Stage("a", lambda x: x + 10), Stage("b", middle, batch, lambda x: x % 2), Stage("c", str)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_run__equals_a_loop(n, batch, depth):
    ticks = []
    found, profile = run(range(n), stages(batch), depth=depth, tick=lambda: ticks.append(threading.get_ident()))
    assert found == naive.through(range(n), [lambda x: x + 10, lambda x: 2 * x, str])
    assert ticks == [threading.get_ident()] * n  # a progress bar belongs to the caller's thread
    assert [s.items for s in profile.stages] == [n] * 3 and profile.items == n


def test_run__batches_hold_what_follows_each_other_and_is_alike():
    seen = []
    run([1, 3, 5, 7, 2, 1, 4, 6], [Stage("s", lambda x: seen.append(x) or x, 3, lambda x: x % 2)])
    assert seen == [[1, 3, 5], [7], [2], [1], [4, 6]]


@pytest.mark.parametrize("batch", [None, 2])
def test_run__a_dropped_item_goes_no_further_and_each_result_is_told_in_order(batch):
    told = []
    odd = Stage("odd", lambda i: i if i % 2 else DROPPED)
    ten = Stage("ten", (lambda group: [10 * i for i in group]) if batch else (lambda i: 10 * i), batch)
    results, profile = run(range(7), [odd, ten], tell=told.append)
    assert results == told == [10, 30, 50] and profile.items == 3


def test_run__stages_overlap():
    """Two stages that each wait for the other's next call: a loop would wait for ever."""
    meet = threading.Barrier(2)
    found, _ = run(range(6), [
        Stage("first", lambda i: i if i == 0 else (meet.wait(30), i)[1]),
        Stage("second", lambda i: i if i == 5 else (meet.wait(30), i)[1]),
    ])  # fmt: skip
    assert found == list(range(6))


class Thing:
    """Something whose life can be watched."""


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_run__memory_does_not_grow_with_the_number_of_items(slow):
    alive, most = weakref.WeakSet(), []

    def made(_):
        thing = Thing()
        alive.add(thing)
        return thing

    def step(number):
        def work(thing):
            most.append(len(alive))
            if number == slow:
                time.sleep(0.002)
            return thing

        return work

    def last(thing):
        most.append(len(alive))
        return None

    run(range(60), [Stage("make", made), *(Stage(f"{i}", step(i)) for i in range(3)), Stage("last", last)])
    # one in the hands of each of five stages, DEPTH in each of four queues; a hand may hold the next one already
    assert 2 <= max(most) <= 5 + 4 * DEPTH + 5
    gc.collect()
    assert not alive


def failing(at, error):
    def work(x):
        if x == at:
            raise error
        return x

    return work


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_run__an_error_stops_everything_behind_it_and_nothing_before(where, at):
    written, kept = [], [Stage(str(i), lambda x: x) for i in range(3)]
    kept[where] = Stage("bad", failing(at, XenomaskError("it is broken")))
    kept.append(Stage("write", lambda x: written.append(x)))
    with pytest.raises(XenomaskError, match=rf"^frame {at}: it is broken$"):
        run(range(20), kept, name=lambda x: f"frame {x}")
    assert written == list(range(at))
    assert not [t for t in threading.enumerate() if t.name.startswith("xenomask-stage")]


def test_run__of_two_errors_the_first_in_order_is_raised():
    late = threading.Event()

    def slow(x):
        if x == 2:
            late.wait(30)  # until the earlier stage has failed at a later item
            raise ValueError("second stage")
        return x

    def fails(x):
        if x == 4:
            late.set()
            raise XenomaskError("first stage")
        return x

    with pytest.raises(ValueError, match="second stage") as caught:
        run(range(9), [Stage("one", fails), Stage("two", slow)])
    assert caught.value.__notes__ == ["stage two, 2"]


def test_run__an_error_names_the_items_of_its_batch_and_no_path_twice():
    def fail(values):
        raise XenomaskError("photo 3 is damaged")

    with pytest.raises(XenomaskError, match="^photo 3 is damaged$"):
        run(["photo 3"], [Stage("s", fail, 2)])
    with pytest.raises(XenomaskError, match="^a, b: photo 3 is damaged$"):
        run(["a", "b", "c"], [Stage("s", fail, 2)])


def test_run__an_error_of_the_list_itself_is_raised():
    def items():
        yield 1
        raise OSError("the camera is gone")

    done = []
    with pytest.raises(OSError, match="the camera is gone"):
        run(items(), [Stage("a", lambda x: x), Stage("b", done.append)])
    assert done == [1]


def test_run__on_ctrl_c_the_item_at_hand_is_ended_and_nothing_more_begun():
    begun, ended = [], []

    def write(x):
        begun.append(x)
        if x == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.2)
        ended.append(x)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(range(1000), [Stage("a", lambda x: x), Stage("write", write)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == ended and 4 <= len(ended) < 1000
    assert not [t for t in threading.enumerate() if t.name.startswith("xenomask-stage")]


def test_profile__tells_the_slowest_stage_and_who_waited():
    _, profile = run(range(40), [
        Stage("quick", lambda x: x), Stage("slow", lambda x: (time.sleep(0.01), x)[1]), Stage("last", lambda x: x),
    ])  # fmt: skip
    quick, slow, last = profile.stages
    assert profile.slowest is slow and slow.busy >= 0.4 and 0.01 <= slow.first < slow.busy
    assert quick.blocked > 0.2 and last.waited > 0.2  # the one for room, the other for work
    assert 0.4 <= profile.wall and profile.share(slow) <= 1
    table = profile.table()
    assert table["slowest"] == "slow" and [s["name"] for s in table["stages"]] == ["quick", "slow", "last"]


def test_profile__verdict():
    def times(name, busy):
        return StageTimes(name, 1, busy, 0.0, 0.0, 0.0)

    full = Profile((times("decode", 1.0), times("network", 9.5)), 10.0)
    assert full.verdict() == "network is the slowest stage, busy 95.0 % of 10.00 s"
    half = Profile((times("decode", 1.0), times("network", 5.0)), 10.0)
    assert half.verdict().startswith("network is the slowest stage, busy 50.0 % of 10.00 s: in the rest it waited")
