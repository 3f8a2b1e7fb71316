"""What ``timbre-ray data prepare`` lets one choose. Standard library only, so that the command line's help starts at once."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    clip_s: float = 10.24
    """Longest clip, in seconds: AudioLDM2's window; the miniature's is 2.56."""
    min_s: float | None = None
    """Shortest clip and shortest solo part, in seconds; None: half a clip (shorter ones would be mostly padding)."""
    solo_filter: bool = True
    """Keep only the parts in which Basic Pitch hears one voice."""
    max_ratio: float = 1.4
    """Solo: the notes' durations sum up to at most this many times the time in which any sounds (1: never two at once)."""
    silence_db: float = 40.0
    """Silent: this many dB below the song's loud moments, or below -60 dBFS."""
    max_silence: float = 0.5
    """Largest share of a clip that may be silent."""
    max_clipped: float = 1e-4
    """Largest share of a clip's samples that may be cut off at full scale."""
    max_similarity: float = 0.95
    """Clips whose log-mel spectrograms have a larger cosine are the same one twice."""
    held_out: float = 0.25
    """Share of the songs that is held out for scoring, rounded up; at least one song stays to train on."""
    seed: int = 0
    """Draws the held-out songs."""

    def __post_init__(self) -> None:
        if not 1 <= self.clip_s <= 60:
            raise ValueError(f"--clip-seconds {self.clip_s:g}: must lie between 1 and 60")
        if not 0.4 <= self.shortest_s <= self.clip_s:  # loudness is measured over blocks of 0.4 s
            raise ValueError(f"--min-seconds {self.shortest_s:g}: must lie between 0.4 and --clip-seconds {self.clip_s:g}")
        if not self.max_ratio >= 1:
            raise ValueError(f"--max-ratio {self.max_ratio:g}: must be at least 1, which one voice alone has")
        if not self.silence_db > 0:
            raise ValueError(f"--silence-db {self.silence_db:g}: must be above 0; it counts down from the song's loud moments")
        for option in ("max_silence", "max_clipped", "max_similarity"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"--{option.replace('_', '-')} {getattr(self, option):g}: must lie between 0 and 1")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held-out {self.held_out:g}: must be at least 0 and below 1, a share of the songs")

    @property
    def solo_window_s(self) -> float:
        """Part of a song whose ratio is judged at once: a clip, but at least 4 s. Over less, one ringing string decides."""
        return max(self.clip_s, 4.0)

    @property
    def shortest_s(self) -> float:
        return self.clip_s / 2 if self.min_s is None else self.min_s
