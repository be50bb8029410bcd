"""What may happen next: the agent's one transition table (wire reference §7.2).

Each row names the method of ``Agent`` that does the work and the state that follows if it doesn't choose to stay. A pair that
isn't in the table changes nothing: a late timer or a repeated message is normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class State(Enum):
    """Where the agent stands."""

    STOPPED = auto()
    READY = auto()
    REQUESTING_JOB = auto()
    WAITING_FOR_JOB = auto()
    CREATING_FILE = auto()
    REQUESTING_FILE_BLOCK = auto()
    WAITING_FOR_FILE_BLOCK = auto()
    SUSPENDED = auto()


class Event(Enum):
    """What the agent reacts to."""

    START = auto()
    CONNECTED = auto()
    REQUEST_JOB_DOCUMENT = auto()
    REQUEST_TIMER = auto()
    RECEIVED_JOB_DOCUMENT = auto()
    START_SELF_TEST = auto()
    CREATE_FILE = auto()
    REQUEST_FILE_BLOCK = auto()
    RECEIVED_FILE_BLOCK = auto()
    STREAM_REFUSED = auto()
    CLOSE_FILE = auto()
    SELF_TEST_TIMER = auto()
    DEFERRAL_TIMER = auto()
    SUSPEND = auto()
    RESUME = auto()
    USER_ABORT = auto()
    SHUTDOWN = auto()


@dataclass(frozen=True, slots=True)
class Transition:
    """Call ``handler``; unless it stays, go to ``next_state``."""

    handler: str
    next_state: State


_S, _E, _T = State, Event, Transition
_RUNNING: Final = frozenset(State) - {State.READY, State.SUSPENDED, State.STOPPED}

TRANSITIONS: Final[dict[tuple[State, Event], Transition]] = {
    (_S.READY, _E.START): _T("start", _S.REQUESTING_JOB),
    (_S.REQUESTING_JOB, _E.CONNECTED): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.REQUESTING_JOB, _E.REQUEST_JOB_DOCUMENT): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.REQUESTING_JOB, _E.REQUEST_TIMER): _T("request_job", _S.WAITING_FOR_JOB),
    # A job waits for us only if we ask: after a lost connection, and after a request that nobody answered.
    (_S.WAITING_FOR_JOB, _E.CONNECTED): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_JOB, _E.REQUEST_JOB_DOCUMENT): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_JOB, _E.REQUEST_TIMER): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_JOB, _E.RECEIVED_JOB_DOCUMENT): _T("process_job", _S.CREATING_FILE),
    # An update that was put off is offered again by asking for it: it may have been withdrawn meanwhile.
    (_S.WAITING_FOR_JOB, _E.DEFERRAL_TIMER): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_JOB, _E.RESUME): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.CREATING_FILE, _E.START_SELF_TEST): _T("run_self_test", _S.WAITING_FOR_JOB),
    (_S.CREATING_FILE, _E.CREATE_FILE): _T("create_file", _S.REQUESTING_FILE_BLOCK),
    (_S.CREATING_FILE, _E.REQUEST_TIMER): _T("create_file", _S.REQUESTING_FILE_BLOCK),
    (_S.REQUESTING_FILE_BLOCK, _E.REQUEST_FILE_BLOCK): _T("request_blocks", _S.WAITING_FOR_FILE_BLOCK),
    (_S.REQUESTING_FILE_BLOCK, _E.REQUEST_TIMER): _T("request_blocks", _S.WAITING_FOR_FILE_BLOCK),
    (_S.REQUESTING_FILE_BLOCK, _E.CLOSE_FILE): _T("close_file", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_FILE_BLOCK, _E.RECEIVED_FILE_BLOCK): _T("take_block", _S.WAITING_FOR_FILE_BLOCK),
    (_S.WAITING_FOR_FILE_BLOCK, _E.REQUEST_FILE_BLOCK): _T("request_blocks", _S.WAITING_FOR_FILE_BLOCK),
    (_S.WAITING_FOR_FILE_BLOCK, _E.REQUEST_TIMER): _T("request_blocks", _S.WAITING_FOR_FILE_BLOCK),
    (_S.WAITING_FOR_FILE_BLOCK, _E.STREAM_REFUSED): _T("stream_refused", _S.WAITING_FOR_JOB),
    # The work may have been withdrawn while we were away: ask. The same job goes on where it stood.
    (_S.WAITING_FOR_FILE_BLOCK, _E.CONNECTED): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_FILE_BLOCK, _E.REQUEST_JOB_DOCUMENT): _T("request_job", _S.WAITING_FOR_JOB),
    (_S.WAITING_FOR_FILE_BLOCK, _E.RECEIVED_JOB_DOCUMENT): _T("job_changed", _S.REQUESTING_JOB),
    (_S.WAITING_FOR_FILE_BLOCK, _E.CLOSE_FILE): _T("close_file", _S.WAITING_FOR_JOB),
    (_S.SUSPENDED, _E.RESUME): _T("resume", _S.REQUESTING_JOB),
    **{(state, _E.SELF_TEST_TIMER): _T("self_test_overdue", state) for state in _RUNNING | {_S.SUSPENDED}},
    **{(state, _E.SUSPEND): _T("suspend", _S.SUSPENDED) for state in _RUNNING},
    **{(state, _E.USER_ABORT): _T("user_abort", _S.WAITING_FOR_JOB) for state in _RUNNING},
    **{(state, _E.SHUTDOWN): _T("shut_down", _S.STOPPED) for state in _S if state is not _S.STOPPED},
}
"""(state, event) → what to do. STOPPED has no row: it is the end."""
