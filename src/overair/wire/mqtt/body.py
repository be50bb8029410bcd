"""Reading one packet's body front to back: the fields that both versions of MQTT are made of."""

from __future__ import annotations

from overair.wire.mqtt.packets import MalformedPacket
from overair.wire.mqtt.reasons import Reason
from overair.wire.topics import is_valid_filter, is_valid_text


class Body:
    """A cursor over a packet's bytes. Every method raises ``MalformedPacket`` where the packet ends too soon."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._position = start
        self._end = end

    @property
    def is_empty(self) -> bool:
        return self._position >= self._end

    def take(self, size: int) -> bytes:
        start = self._position
        self._position = start + size
        if self._position > self._end:
            raise MalformedPacket("A packet ends in the middle of a field.")
        return self._data[start : self._position]

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self._end - self._position)

    def part(self, size: int) -> Body:
        """The next bytes as a body of their own."""
        start = self._position
        self._position = start + size
        if self._position > self._end:
            raise MalformedPacket("A packet ends in the middle of its properties.")
        return Body(self._data, start, self._position)

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def long_number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def variable_number(self) -> int:
        """One to four bytes of seven bits, in no more bytes than it needs (MQTT 5 section 1.5.5)."""
        number = shift = 0
        while True:
            digit = self.byte()
            number |= (digit & 127) << shift
            if not digit & 128:
                if shift and not digit:
                    raise MalformedPacket("A variable byte integer has more bytes than it needs (section 1.5.5).")
                return number
            shift += 7
            if shift == 28:
                raise MalformedPacket("A variable byte integer has more than four bytes (section 1.5.5).")

    def packet_id(self) -> int:
        number = self.number()
        if number == 0:
            raise MalformedPacket("A packet identifier must not be 0 (section 2.3.1).", reason=Reason.PROTOCOL_ERROR)
        return number

    def binary(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        return text_of(self.binary())

    def filter(self) -> str:
        """A topic filter whose wildcards fill whole levels."""
        name = self.text()
        if not is_valid_filter(name):
            raise MalformedPacket("A topic filter must not be empty and its wildcards must fill whole levels (section 4.7.1).")
        return name

    def end(self) -> None:
        if self._position != self._end:
            raise MalformedPacket("A packet is longer than its fields.")


def text_of(raw: bytes) -> str:
    """A string's characters.

    Raises:
        MalformedPacket: not UTF-8, or characters that MQTT doesn't allow.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("A string is not UTF-8 (section 1.5.3).") from None
    if not is_valid_text(text):
        raise MalformedPacket("A string holds a control character, a surrogate or a non-character (section 1.5.3).")
    return text
