from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overair.agent.uptane.time_floor import BUILT_AT, SecureTime
from overair.basics.clock import Instant, SettableClock, WallClock

HOUR = 3_600_000
START = Instant(BUILT_AT + 100 * HOUR)


class Monotonic:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def secure_time(clock_at: int = START, floor: Instant = BUILT_AT) -> tuple[SecureTime, SettableClock, Monotonic]:
    clock, monotonic = SettableClock(Instant(clock_at)), Monotonic()
    return SecureTime(clock, floor=floor, monotonic=monotonic), clock, monotonic


def test_the_program_was_built_before_today() -> None:
    assert WallClock().now() > BUILT_AT


def test_a_clock_without_a_battery_begins_at_the_build() -> None:
    time, _, monotonic = secure_time(clock_at=0)
    assert time.now() == BUILT_AT
    monotonic.now_s = 60
    assert time.now() == BUILT_AT + 60_000, "without a clock it ages by the monotonic one"


def test_the_devices_own_clock_is_followed_and_never_remembered() -> None:
    time, clock, _ = secure_time()
    clock.set(Instant(START + 1000 * HOUR))
    assert time.now() == START + 1000 * HOUR
    clock.set(START)
    assert time.now() == START
    assert time.floor == BUILT_AT


def test_the_issue_of_a_certificate_is_a_fact_for_good() -> None:
    time, _, _ = secure_time(clock_at=0)
    time.learn(START)
    assert (time.now(), time.floor) == (START, START)


def test_what_the_gateway_says_counts_at_once_and_for_good_once_the_director_agrees() -> None:
    time, _, _ = secure_time(clock_at=0)
    time.hear(START, not_after=Instant(START + HOUR))
    assert (time.now(), time.floor) == (START, BUILT_AT)
    assert time.confirm(until=Instant(START + HOUR))
    assert time.floor == START
    assert not time.confirm(until=Instant(START + HOUR)), "nothing new was heard"


def test_a_gateway_that_lies_about_the_future_is_not_believed_beyond_the_root() -> None:
    time, _, _ = secure_time(clock_at=0)
    time.hear(Instant(START + 1000 * HOUR), not_after=Instant(START + HOUR))
    assert time.now() == BUILT_AT


def test_what_led_nowhere_is_forgotten() -> None:
    time, _, _ = secure_time(clock_at=0)
    time.hear(START, not_after=None)
    time.forget_heard()
    assert time.now() == BUILT_AT


def test_no_more_counts_for_good_than_the_director_signed() -> None:
    time, _, _ = secure_time(clock_at=0)
    time.hear(START, not_after=None)
    assert time.confirm(until=Instant(START - HOUR))
    assert time.floor == START - HOUR


@given(st.lists(st.tuples(st.sampled_from(["clock", "hear", "confirm", "forget", "tick"]), st.integers(-500, 500))))
def test_the_floor_never_sinks_and_the_time_never_lies_below_it(steps: list[tuple[str, int]]) -> None:
    time, clock, monotonic = secure_time()
    for kind, hours in steps:
        moment = Instant(START + hours * HOUR)
        floor = time.floor
        if kind == "clock":
            clock.set(moment)
        elif kind == "hear":
            time.hear(moment, not_after=None)
        elif kind == "confirm":
            time.confirm(until=moment)
        elif kind == "forget":
            time.forget_heard()
        else:
            monotonic.now_s += abs(hours)
        assert time.floor >= floor
        assert time.now() >= time.floor
