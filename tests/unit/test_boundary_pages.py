"""Pages that are fetched: put together, and few of them, because a heap has no gaps."""

import mmap

from cnisandbox.boundary.pages import Pages, fill_gaps, merged

PAGE = mmap.PAGESIZE


def test_what_several_use_is_fetched_once() -> None:
    first = Pages([(10 * PAGE, 2 * PAGE), (20 * PAGE, PAGE)], [])
    second = Pages([(0, PAGE), (11 * PAGE, 2 * PAGE), (21 * PAGE, PAGE)], [(40 * PAGE, PAGE)])
    assert merged([first, second]) == Pages(
        [(0, PAGE), (10 * PAGE, 3 * PAGE), (20 * PAGE, 2 * PAGE)], [(40 * PAGE, PAGE)]
    )


def test_what_is_in_another_is_fetched_with_it() -> None:
    assert merged([Pages([(0, 9 * PAGE)], []), Pages([(PAGE, PAGE)], [])]) == Pages([(0, 9 * PAGE)], [])


def test_of_one_alone_nothing_changes() -> None:
    pages = Pages([(0, PAGE), (2 * PAGE, PAGE)], [(9 * PAGE, PAGE)])
    assert merged([pages]) == pages


def test_without_gaps_things_lie_side_by_side() -> None:
    sizes = range(600, 1000, 16)  # more than Python's own allocator has, less than what goes to the top of the heap
    things = [bytes(size) for _ in range(200) for size in sizes]
    kept = things[::2]
    del things
    fill_gaps()
    new = [bytes(size) for size in sizes]
    assert len({id(thing) // PAGE for thing in new}) <= sum(sizes) // PAGE + 4
    assert len(kept) == 100 * len(sizes)
