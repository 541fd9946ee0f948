"""Tells a reader that has gone deaf from a camera that has stopped, and says what to try next.

How a reader goes deaf, as seen with Cyclone DDS: of a reliable publisher's messages, a best-effort
reader keeps up to sixteen that lack a fragment, waiting for a retransmission that it never asks
for. Where so many images in a row were torn, every newer one is thrown away, for as long as the
publisher is known. A new best-effort reader inherits the jam; a reliable one clears it, because
its acknowledgements are answered with what is still to be had; a new participant knows of none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

SILENCE_S = 0.8  # without an image, while camera_info comes
PULSES = 5  # messages of camera_info that must have come in the silence
PATIENCE_S = 1.5  # for a remedy to work, doubled after each round of them
LONGEST_PATIENCE_S = 60.0


class Remedy(Enum):
    """What to make anew, in the order in which it is tried."""

    SUBSCRIPTION = 'subscription'
    PARTICIPANT = 'participant'


class DeafReader:
    """Watches one large topic; `pulse` is a small one of the same source that still arrives."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        remedies: tuple[Remedy, ...] = tuple(Remedy),
    ) -> None:
        self._clock = clock
        self._remedies = remedies
        self.made_anew = dict.fromkeys(Remedy, 0)
        self.heard()

    def begin(self) -> None:
        """Listening starts; what was tried before still counts."""
        self._heard_at_s = self._clock()
        self._pulses = 0

    def heard(self) -> None:
        """A message arrived: whatever was wrong is over."""
        self.begin()
        self._tries = 0
        self._next_try_s = 0.0

    def pulse(self) -> None:
        self._pulses += 1

    @property
    def deaf(self) -> bool:
        """Whether the source lives and nothing of it is heard; to be asked with a publisher."""
        return self._pulses >= PULSES and self._clock() - self._heard_at_s > SILENCE_S

    @property
    def tried(self) -> bool:
        """Whether a remedy is at work."""
        return self._tries > 0

    def next_remedy(self) -> Remedy | None:
        """What to make anew now, if anything; the caller does it."""
        now_s = self._clock()
        if not self.deaf or now_s < self._next_try_s:
            return None
        round_, step = divmod(self._tries, len(self._remedies))
        remedy = self._remedies[step]
        self._tries += 1
        self._next_try_s = now_s + min(PATIENCE_S * 2**round_, LONGEST_PATIENCE_S)
        self.made_anew[remedy] += 1
        return remedy
