from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overair.agent.agent import Agent
from overair.agent.states import TRANSITIONS, Event, State


def test_every_row_names_a_method_of_the_agent() -> None:
    for transition in TRANSITIONS.values():
        assert callable(getattr(Agent, f"_{transition.handler}"))


def test_every_event_and_every_state_occurs() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.STOPPED}


def test_every_state_is_reached_and_every_state_reaches_the_end() -> None:
    def reachable(start: State) -> set[State]:
        found, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for (state, _), transition in TRANSITIONS.items():
                if state is here and transition.next_state not in found:
                    found.add(transition.next_state)
                    todo.append(transition.next_state)
        return found

    assert reachable(State.READY) == set(State)
    assert all(State.STOPPED in reachable(state) for state in State)


def test_the_end_is_the_end() -> None:
    assert not [event for state, event in TRANSITIONS if state is State.STOPPED]


def test_a_job_document_during_a_download_never_goes_on_with_the_old_file() -> None:
    assert TRANSITIONS[State.WAITING_FOR_FILE_BLOCK, Event.RECEIVED_JOB_DOCUMENT].next_state is State.REQUESTING_JOB


def test_blocks_count_only_while_blocks_are_waited_for() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.RECEIVED_FILE_BLOCK} == {State.WAITING_FOR_FILE_BLOCK}


class TableWalk(RuleBasedStateMachine):
    """Any sequence of events, each handled as the table says."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.READY
        self.handled: list[str] = []

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        transition = TRANSITIONS.get((self.state, event))
        if transition is not None:
            self.handled.append(transition.handler)
            self.state = transition.next_state

    @invariant()
    def a_file_is_closed_only_after_it_was_created(self) -> None:
        for index, handler in enumerate(self.handled):
            if handler in ("close_file", "take_block", "request_blocks"):
                assert "create_file" in self.handled[:index]

    @invariant()
    def nothing_happens_before_the_start_but_leaving(self) -> None:
        assert not self.handled or self.handled[0] in ("start", "shut_down")

    @invariant()
    def while_suspended_only_resuming_leaving_and_going_back_happen(self) -> None:
        for before, after in pairwise(self.handled):
            if before == "suspend":
                assert after in ("resume", "shut_down", "self_test_overdue")


TestTableWalk = TableWalk.TestCase
TestTableWalk.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
