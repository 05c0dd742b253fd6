"""The figures of an audit document. What a colour says is said by a letter, a shape or a text as well.

Privilege: none.
"""

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.figures import board, capabilities, matrix, price, timeline
from cnisandbox.laboratory.report.figures.board import Figure
from cnisandbox.laboratory.report.schema import Document
from cnisandbox.laboratory.report.wording import columns_of


def draw(document: Document) -> list[Figure]:
    """Draw every figure for which the document has something.

    Raises:
        CniError: matplotlib is not installed.
    """
    with board.library():
        figures = [matrix.draw(document)] if document["vectors"]["list"] and columns_of(document) else []
        figures += [timeline.draw(name, exposures) for name, exposures in tally.by_name(document).items()]
        figures += [capabilities.draw(document)] if tally.measured(document) else []
        latency = price.draw(document)
        return figures + ([latency] if latency else [])


def require() -> None:
    """See to it that figures can be drawn.

    Raises:
        CniError: matplotlib is not installed.
    """
    with board.library():
        pass
