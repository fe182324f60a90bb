"""When a silent member may be taken for dead, without comparing clocks."""

from __future__ import annotations

from collections.abc import Mapping


class BeatWatch:
    """Watches the heartbeats of the other members.

    A member is dead when its beat stood still for ``lease`` seconds of *our* clock, during all of which we looked at
    least every ``lease / 4``: whoever was stopped himself has seen nothing, and starts counting again. So does he whose
    own beats do not get through: somebody holds the file, and keeps the beats of the others back as well.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._looked = float("-inf")
        self._still_since: dict[bytes, tuple[int, float]] = {}

    def look(self, now: float, beats: Mapping[bytes, int], *, silent_for: float) -> Mapping[bytes, int]:
        """Notes the beats of the others as they are now; returns who is dead, and since which beat.

        Args:
            now: by our clock.
            beats: of the others.
            silent_for: seconds since a beat of ours got through, of which there is one every ``lease / 4``.
        """
        blind = now - self._looked > self._lease / 4 or silent_for > self._lease / 2
        self._looked = now
        seen = {}
        for member, beat in beats.items():
            known = self._still_since.get(member)
            seen[member] = (beat, now) if blind or known is None or known[0] != beat else known

        self._still_since = seen
        return {member: beat for member, (beat, since) in seen.items() if now - since >= self._lease}
