"""The board that figures are drawn on: matplotlib as a pencil, SVG for the inside of a page as the result.

Colours are names of the page (CSS variables), so that a figure follows the page into the dark. The same strokes give
the same bytes.

Privilege: none.
"""

import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from cnisandbox.errors import CniError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


class Figure(NamedTuple):
    """One figure: its name in the page, the SVG element, its caption and what it shows in words (all plain text)."""

    name: str
    svg: str
    caption: str
    alternative: str


# Stand-ins for the page's colours; `_tidied` replaces each by the CSS variable.
INK, MUTED, RULE = "#111111", "#777777", "#cccccc"
OUTSIDE, WORKS, REFUSES, NOTHING, NOT_HERE, UNKNOWN = "#7a0c0c", "#d1495b", "#cfe6dd", "#e3ecf6", "#eeeeee", "#f6e7a9"
ON_STRONG, ON_PALE = "#fdfdfd", "#123a2d"
SERIES = "#3b6ea5"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    OUTSIDE: "outside",
    WORKS: "works",
    REFUSES: "refuses",
    NOTHING: "nothing",
    NOT_HERE: "not-here",
    UNKNOWN: "unknown",
    ON_STRONG: "on-strong",
    ON_PALE: "on-pale",
    SERIES: "series",
}
WIDTH = 720.0  # points; the page scales a figure to its own width
_POINTS_PER_INCH = 72
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def library() -> Iterator[None]:
    """Load matplotlib without a trace of it in anybody's home, and with settings that are ours alone.

    Raises:
        CniError: It is not installed.
    """
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that the font lacks: the reader's font may have it
        if "matplotlib.figure" not in sys.modules:
            _load(directory)
        import matplotlib  # noqa: PLC0415

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams["svg.fonttype"] = "none"
            matplotlib.rcParams["svg.hashsalt"] = "cnisandbox"
            matplotlib.rcParams["text.parse_math"] = False
            yield


def _load(directory: str) -> None:
    before = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = directory
    try:
        import matplotlib.backends.backend_svg  # noqa: PLC0415 - large, and only a report needs it
        import matplotlib.figure  # noqa: F401, PLC0415
    except ImportError as error:
        raise CniError(
            f"draw figures: matplotlib cannot be loaded: {error}", "pip install 'cnisandbox[laboratory]'"
        ) from error
    finally:
        if before is None:
            del os.environ["MPLCONFIGDIR"]
        else:
            os.environ["MPLCONFIGDIR"] = before


def board(height: float) -> "tuple[Drawing, Axes]":
    """Make a figure with one set of axes in points, the origin at the top left, nothing drawn around it."""
    from matplotlib.figure import Figure as Drawing  # noqa: PLC0415

    drawing = Drawing(figsize=(WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return drawing, axes


def box(axes: "Axes", x: float, y: float, width: float, height: float, colour: str, edge: str = "none") -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.6, clip_on=False))


def rule(axes: "Axes", x: Sequence[float], y: Sequence[float], colour: str = RULE) -> None:
    axes.plot(list(x), list(y), color=colour, linewidth=0.6, clip_on=False)


def write(
    axes: "Axes",
    x: float,
    y: float,
    text: str,
    colour: str = INK,
    size: float = 7.5,
    align: str = "left",
    rotation: float = 0,
    is_bold: bool = False,
) -> None:
    axes.text(
        x,
        y,
        text,
        color=colour,
        fontsize=size,
        ha=align,
        va="bottom" if rotation else "center_baseline",
        rotation=rotation,
        rotation_mode="anchor",
        fontweight="bold" if is_bold else "normal",
        clip_on=False,
    )


def finished(name: str, drawing: "Drawing", caption: str, alternative: str) -> Figure:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    drawing.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Figure(name, _tidied(buffer.getvalue(), name, alternative), caption, alternative)


def _tidied(svg: bytes, name: str, alternative: str) -> str:
    """Make an element for a page of matplotlib's file: its own ids, the page's colours and font, a text for those who
    cannot see it, and no address of any kind."""
    root = ElementTree.fromstring(svg)
    for element in list(root):
        if element.tag == f"{_SVG}metadata":
            root.remove(element)
    for parent in list(root.iter()):
        for element in list(parent):
            if element.tag == f"{_SVG}style":
                parent.remove(element)
    referred = set(re.findall(rb'(?:url\(#|xlink:href="#)([^")]+)', svg))
    numbers = {each.decode(): f"{name}-{number}" for number, each in enumerate(sorted(referred))}
    for element in root.iter():
        _tidy_attributes(element, numbers)
    width, height = root.attrib["viewBox"].split()[2:]
    body = "".join(_serialised(element) for element in root)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-text">'
        f'<title id="{name}-text">{escape(alternative)}</title>{body}</svg>'
    )


def _tidy_attributes(element: ElementTree.Element, numbers: dict[str, str]) -> None:
    attributes = dict(element.attrib)
    element.attrib.clear()
    for key, value in attributes.items():
        if key == "id":
            if value in numbers:
                element.set("id", numbers[value])
        elif key == _LINK:
            element.set("href", "#" + numbers[value.removeprefix("#")])
        elif key == "clip-path":
            element.set(key, re.sub(r"#([^)]+)", lambda found: "#" + numbers[found[1]], value))
        elif key == "style":
            element.set(key, _page_style(value))
        elif key == "d":
            element.set(key, " ".join(value.split()))
        elif not (key == "transform" and value.startswith("rotate(-0 ")):
            element.set(key, value)


def _page_style(style: str) -> str:
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var(--{variable})")
    return style


def _serialised(element: ElementTree.Element) -> str:
    """Write an element without namespaces, and without groups that say nothing."""
    tag = element.tag.removeprefix(_SVG)
    inner = escape((element.text or "").strip()) + "".join(_serialised(child) for child in element)
    if tag == "g" and not element.attrib:
        return inner
    attributes = "".join(f' {key}="{escape(value)}"' for key, value in element.attrib.items())
    return f"<{tag}{attributes}>{inner}</{tag}>" if inner else f"<{tag}{attributes}/>"


def text_colour(colour: str) -> str:
    return ON_STRONG if colour in {WORKS, OUTSIDE, SERIES} else ON_PALE
