"""The page and its figures: self-contained, readable by everybody, the same each time, and harmless."""

import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cnisandbox.errors import CniError
from cnisandbox.laboratory.report import figures, forms, page
from cnisandbox.laboratory.report.figures import board
from cnisandbox.laboratory.report.page import style
from tests.unit.report_documents import document, hostile

ROOT = Path(__file__).parents[2]
VOID = {"meta", "br"}
HOSTILE = "</title></style></svg><script>alert(1)</script>\" onload='x' href=//example.org \033[31m\u202e$x^2$ &amp;"


class Elements(HTMLParser):
    """What a page consists of; it has to be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def rendered() -> str:
    return page.render(document(), figures.draw(document()))


@pytest.fixture(scope="module")
def html() -> str:
    return rendered()


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


def test_there_is_nothing_from_elsewhere_and_nothing_that_runs(html: str, elements: Elements) -> None:
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "base", "form"}
    for _, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "xlink:href", "xmlns"}
            assert name != "href" or str(value).startswith("#")
    assert "://" not in html
    assert not re.search(r"@import|url\((?!#)", html)


def test_every_reference_leads_to_exactly_one_element(html: str, elements: Elements) -> None:
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [str(each.get(name)) for _, each in elements.found for name in ("aria-labelledby",) if name in each]
    named += [str(each["href"])[1:] for _, each in elements.found if "href" in each]
    named += re.findall(r"url\(#([^)]+)\)", html)
    assert set(named) <= set(ids)


def test_whoever_cannot_see_a_figure_has_its_text_and_a_table(elements: Elements) -> None:
    drawings = elements.of("svg")
    assert len(drawings) == 5
    assert all(each["role"] == "img" and each["aria-labelledby"] for each in drawings)
    assert len(elements.of("figcaption")) == len(drawings)
    assert "Attempts that worked: root 4, netadmin 3, hardened 2, mediated 0, runner 0." in elements.text
    assert "bridge runner: 0 held, 0 exercised, needed: none, untrusted: 0 B" in elements.text
    assert "hardened: 6.0 times the duration, 2 attempts work, 0 change something outside" in elements.text
    assert all("scope" in each for each in elements.of("th"))
    assert len(elements.of("caption")) == len(elements.of("table"))


def test_headings_follow_each_other_and_landmarks_are_there(elements: Elements) -> None:
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [tag for tag, _ in elements.found if tag in {"header", "nav", "main", "footer"}] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    assert elements.of("html") == [{"lang": "en"}]


def test_what_was_measured_is_on_the_page(elements: Elements) -> None:
    for text in (
        "6.18.0 x86_64, 2 processors",
        "a" * 64,
        "1" * 64,
        "CONFIG_SECCOMP_FILTER",
        "containernetworking-plugins 1.1.1",
        "cnisandbox audit report --out blast",
        "macvlan at runner: no parent link",
        "what happens in the kernel on nobody's behalf",
        "root: link vethx of the host is gone",
        "CVE-2021-20206",
        "/var/lib/cni/networks/bridge/10.1.2.3",
    ):
        assert text in elements.text


def test_texts_of_others_stay_texts() -> None:
    made = hostile(HOSTILE)
    whole = page.render(made, figures.draw(made))
    elements = Elements(whole)
    assert not elements.of("script")
    assert {attribute for _, each in elements.found for attribute in each if attribute.startswith("on")} == set()
    assert whole.replace("\n", "").isprintable()
    assert "$x^2$" in elements.text


def test_an_empty_document_makes_a_page() -> None:
    made = document()
    made["vectors"]["list"], made["matrix"]["cells"], made["matrix"]["columns"] = [], {}, []
    made["plugins"], made["replays"], made["gaps"] = [], [], []
    assert "Blast radius" in Elements(page.render(made, figures.draw(made))).text


def test_the_same_document_makes_the_same_bytes() -> None:
    code = (
        "import hashlib; from tests.unit.test_report_page import rendered;"
        "print(hashlib.sha256(rendered().encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "TZ": zone, "HOME": "/nonexistent", "PATH": "/usr/bin"},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(digests) == 1


def test_every_colour_of_a_figure_is_one_of_the_page(html: str) -> None:
    assert set(re.findall(r"var\(--([a-z-]+)\)", html)) <= set(style.LIGHT) == set(style.DARK)
    drawings = html[html.index("<body>") :]
    assert re.findall(r"#[0-9a-f]{6}\b", drawings) == []
    assert set(board.VARIABLES.values()) <= set(style.LIGHT)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.2, relative luminance)."""
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_can_be_read_in_the_light_and_in_the_dark(colours: dict[str, str]) -> None:
    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("page", "card")]
    pairs += [("on-strong", ground) for ground in style.ON_STRONG] + [("on-pale", ground) for ground in style.ON_PALE]
    poor = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CniError, match="draw figures: matplotlib cannot be loaded") as raised:
        figures.require()
    assert raised.value.details == "pip install 'cnisandbox[laboratory]'"


def test_every_form_is_written(tmp_path: Path) -> None:
    files = forms.render(document(), figures.draw(document()))
    named = ["audit-exposure.csv", "audit.csv", "audit.html", "audit.json", "audit.md", "audit.txt"]
    assert sorted(name for name in files if not name.startswith("figure-")) == named
    assert all(content.startswith("<svg ") for name, content in files.items() if name.startswith("figure-"))
    assert "figure-matrix.svg" in files
    forms.make_directory(f"{tmp_path}/new/below")
    assert [Path(each).name for each in forms.write(f"{tmp_path}/new/below", files)] == list(files)
    assert {each.name: each.read_text() for each in (tmp_path / "new/below").iterdir()} == files


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "audit.json").symlink_to("kept")
    forms.write(str(tmp_path), {"audit.json": "new"})
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "audit.json").read_text() == "new"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit.json", "kept"]


@pytest.mark.parametrize("path", ["/proc/no", "/dev/null", "/sys", "a\0b", ""])
def test_where_nothing_can_be_written_is_said_before_anything_is_measured(path: str) -> None:
    with pytest.raises(CniError, match="write report to"):
        forms.make_directory(path)
