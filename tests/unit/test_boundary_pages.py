"""Few pages are used, because a heap has no gaps."""

import mmap

from cnisandbox.boundary.pages import fill_gaps

PAGE = mmap.PAGESIZE


def test_without_gaps_things_lie_side_by_side() -> None:
    sizes = range(600, 1000, 16)  # more than Python's own allocator has, less than what goes to the top of the heap
    things = [bytes(size) for _ in range(200) for size in sizes]
    kept = things[::2]
    del things
    fill_gaps()
    new = [bytes(size) for size in sizes]
    assert len({id(thing) // PAGE for thing in new}) <= sum(sizes) // PAGE + 4
    assert len(kept) == 100 * len(sizes)
