"""Known vulnerabilities of container networks, replayed: as plugins run today, with ours, and under the runner."""

from cnisandbox.laboratory.replays.replay import CASES, run

__all__ = ["CASES", "run"]
