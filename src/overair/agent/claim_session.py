"""A connection under a claim, for the few requests that make a device (wire reference §9.1); with paho."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from overair.agent.backoff import Backoff
from overair.agent.claim_provisioning import ProvisioningRefused, ProvisioningUnreachable
from overair.agent.tls import tls_context

KEEP_ALIVE_S: Final = 60
ATTEMPT_S: Final = 10.0
RETRY_BASE_S: Final = 1.0
RETRY_CAP_S: Final = 10.0
TIMEOUT_S: Final = 60.0


class _State(Enum):
    WAITING = "waiting for the server's word"
    OPEN = "open"
    REFUSED = "refused"
    LOST = "lost"


class ClaimSession:
    """Implements ``claim_provisioning.Session``. Use it in a ``with`` statement.

    Connecting is tried for ``timeout_s``, with waits that grow, and so is each request. A server that can't show who it is gets
    nothing and isn't asked again.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: str,
        certificate_file: Path,
        private_key_file: Path,
        ca_file: Path,
        monotonic: Callable[[], float],
        chance: Random,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._host, self._port = host, port
        self._monotonic = monotonic
        self._timeout_s = timeout_s
        self._backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, chance=chance)
        self._changed = threading.Condition()
        self._state = _State.WAITING
        self._reason = ""
        self._granted: set[int] = set()
        self._denied: set[int] = set()
        self._answers: dict[str, bytes] = {}
        self._subscribed: set[str] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311, clean_session=True)
        self._client.connect_timeout = ATTEMPT_S
        context = tls_context(ca_file, certificate_file=certificate_file, private_key_file=private_key_file)
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        deadline = self._monotonic() + self._timeout_s
        failures = 0
        while not self._attempt(deadline):
            failures += 1
            wait_s = self._backoff.wait_s(failures)
            if self._monotonic() + wait_s >= deadline:
                raise ProvisioningUnreachable(f"{self._host}:{self._port} doesn't answer. Try again when it does.")
            threading.Event().wait(wait_s)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, topic: str, payload: bytes) -> tuple[bool, bytes]:
        """See ``claim_provisioning.Session``.

        Raises:
            ProvisioningRefused: the claim may not ask here.
            ProvisioningUnreachable: no answer came.
        """
        accepted, rejected = f"{topic}/accepted", f"{topic}/rejected"
        self._subscribe(accepted, rejected)
        self._answers.clear()
        self._client.publish(topic, payload, qos=1)
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._state is not _State.OPEN, self._timeout_s)
            answers = dict(self._answers)
        for answer, is_accepted in ((accepted, True), (rejected, False)):
            if answer in answers:
                return is_accepted, answers[answer]
        raise ProvisioningUnreachable(
            f"{self._host}:{self._port} gave no answer to {topic}. Either the claim's policy doesn't allow to publish there, "
            "or the server is busy; try again."
        )

    # ----------------------------------------------------------------------------------------------------------------------

    def _attempt(self, deadline: float) -> bool:
        self._state = _State.WAITING
        try:
            self._client.connect(self._host, self._port, keepalive=KEEP_ALIVE_S)
        except ssl.SSLCertVerificationError as error:
            raise ProvisioningRefused(
                f"Who answers at {self._host}:{self._port} isn't the server that was named: {error.verify_message}. "
                "Nothing was told to it."
            ) from None
        except OSError:
            return False
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._state is not _State.WAITING, max(0.0, deadline - self._monotonic()))
            state = self._state
        if state is _State.OPEN:
            return True
        self._client.loop_stop()
        if state is _State.REFUSED:
            raise ProvisioningRefused(f"{self._host}:{self._port} refused the claim: {self._reason}.")
        return False

    def _subscribe(self, *topics: str) -> None:
        new = [topic for topic in topics if topic not in self._subscribed]
        if not new:
            return
        _, number = self._client.subscribe([(topic, 1) for topic in new])
        with self._changed:
            self._changed.wait_for(
                lambda: number in self._granted or number in self._denied or self._state is not _State.OPEN,
                self._timeout_s,
            )
            if number in self._denied or self._state is not _State.OPEN:
                # AWS ends the connection of who asks for more than its policy allows, and so does Overair.
                raise ProvisioningRefused(
                    f"{self._host}:{self._port} doesn't let this claim subscribe to {' and '.join(new)}. Its policy must allow "
                    "that; is the template's name right? If the server was just being stopped, try again."
                )
            if number not in self._granted:
                raise ProvisioningUnreachable(f"{self._host}:{self._port} doesn't answer. Try again when it does.")
        self._subscribed.update(new)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._state, self._reason = (_State.REFUSED, str(reason)) if reason.is_failure else (_State.OPEN, "")
            self._changed.notify_all()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            if self._state is not _State.REFUSED:
                self._state = _State.LOST
            self._changed.notify_all()

    def _on_subscribe(self, client: Any, userdata: Any, number: int, reasons: Any, properties: Any) -> None:
        with self._changed:
            (self._denied if any(reason.is_failure for reason in reasons) else self._granted).add(number)
            self._changed.notify_all()

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        with self._changed:
            self._answers[message.topic] = message.payload
            self._changed.notify_all()
