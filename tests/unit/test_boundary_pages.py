"""Pages that are fetched: put together, and few of them, because a heap has no gaps."""

import mmap
import subprocess
import sys
from array import array

import pytest

from cnisandbox.boundary.pages import Pages, merged

PAGE = mmap.PAGESIZE
OBJECTS = range(48, 480, 16)  # of these Python's own allocator has pools
PIECES = range(600, 1000, 16)  # more than that, less than what goes to the top of the heap
ROUNDS = 8


def pages(*written: int, read: tuple[int, ...] = ()) -> Pages:
    """Numbers of pages, and how many follow."""
    return Pages(*(array("Q", (number * PAGE for number in ranges)) for ranges in (written, read)))


def test_what_several_use_is_fetched_once() -> None:
    parts = [pages(10, 2, 20, 1), pages(0, 1, 11, 2, 21, 1, read=(40, 1))]
    assert merged(parts) == pages(0, 1, 10, 3, 20, 2, read=(40, 1))


def test_what_is_in_another_is_fetched_with_it() -> None:
    assert merged([pages(0, 9), pages(1, 1)]) == pages(0, 9)


def test_of_one_alone_nothing_changes() -> None:
    alone = pages(0, 1, 2, 1, read=(9, 1))
    assert merged([alone]) == alone


@pytest.mark.parametrize(("sizes", "begun"), [(OBJECTS, len(OBJECTS)), (PIECES, 10)])
def test_without_gaps_things_lie_side_by_side(sizes: range, begun: int) -> None:
    with_gaps, without = _pages_of_new_things(sizes, ""), _pages_of_new_things(sizes, "fill_gaps()")
    assert without <= ROUNDS * sum(sizes) // PAGE + begun < with_gaps


def _pages_of_new_things(sizes: range, first: str) -> int:
    """In a process of its own: here other tests have left gaps, and things in them."""
    program = f"""
from cnisandbox.boundary.pages import fill_gaps
things = [[bytes(size) for size in {list(sizes)}] for _ in range(25 * {ROUNDS})]
del things[::25]
{first}
new = [bytes(size) for _ in range({ROUNDS}) for size in {list(sizes)}]
print(len({{id(thing) // {PAGE} for thing in new}}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    return int(done.stdout)


def test_pages_of_files_are_let_go_of_and_found_again() -> None:
    """But not those that were written to, without which no library works: relocations, and variables."""
    program = """
from cnisandbox.boundary.pages import let_go_of_files

def of_files():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile:"))

before = of_files()
let_go_of_files()
print(before, of_files())
import decimal, hashlib, json
json.dumps([1.5, str(decimal.Decimal(2).sqrt()), hashlib.sha256(b"").hexdigest()])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    before, after = map(int, done.stdout.split())
    assert after < before * 0.8
