"""Where the time of our cold ADD goes: imports by module, and the phases of a call as strace sees them."""

from collections.abc import Callable


def print_profile(bin_dir: str, run: Callable[[list[str]], None]) -> None:
    """Print it."""
