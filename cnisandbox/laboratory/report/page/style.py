"""How the page looks: its colours in the light and in the dark, and the style sheet around them.

Privilege: none.
"""

LIGHT = {
    "page": "#fbfbf9",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5b636d",
    "rule": "#d5d9de",
    "accent": "#2f5f94",
    "series": "#3b6ea5",
    "works": "#c23b4f",
    "outside": "#7a0c16",
    "refuses": "#cfe6dd",
    "nothing": "#dfe9f5",
    "not-here": "#ececea",
    "unknown": "#f6e7a9",
    "on-strong": "#ffffff",
    "on-pale": "#123a2d",
}
DARK = {
    "page": "#14171b",
    "card": "#1b1f25",
    "ink": "#e7eaee",
    "muted": "#a2abb6",
    "rule": "#3a414b",
    "accent": "#8fbdf0",
    "series": "#3f74ad",
    "works": "#a5425a",
    "outside": "#e0212f",
    "refuses": "#1d3d33",
    "nothing": "#223349",
    "not-here": "#2b2f35",
    "unknown": "#4f4416",
    "on-strong": "#ffffff",
    "on-pale": "#cdebdf",
}
ON_STRONG = ("works", "outside", "series")
ON_PALE = ("refuses", "nothing", "not-here", "unknown")


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


_COLOURS = f"""\
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT)} }} }}
"""
_FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif'
# Of a figure that stands alone.
FIGURE_STYLE = f"{_COLOURS}svg {{ background: var(--page); font: 16px {_FONT}; }}"
STYLE = (
    f"{_COLOURS}body {{ font: 16px/1.55 {_FONT}; }}\n"
    """\
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--page); color: var(--ink);
}
main, header, footer { max-width: 72rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 3rem; }
h1 { font-size: 2.4rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 0.5rem; }
h2 { font-size: 1.5rem; letter-spacing: -0.01em; margin: 3.5rem 0 0.5rem; padding-top: 1.25rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1.08rem; margin: 2rem 0 0.5rem; }
p { max-width: 46rem; margin: 0.5rem 0 1rem; }
.lede { font-size: 1.15rem; color: var(--muted); }
.muted, figcaption, caption, .facts dt { color: var(--muted); }
a { color: var(--accent); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: 0.5rem 1rem; }
code { font: 0.88em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; margin: 1.5rem 0 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1.25rem; margin: 1.25rem 0; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: 1rem; padding: 0;
  margin: 1.5rem 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; padding: 1rem 1.1rem; }
.tiles .name { display: block; font-weight: 650; }
.tiles .number { display: block; font-size: 2.3rem; font-weight: 700; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles .note { display: block; font-size: 0.86rem; color: var(--muted); line-height: 1.4; }
figure { margin: 1.25rem 0 2rem; background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem;
  padding: 1.25rem; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 44rem; height: auto;
  font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
figcaption { font-size: 0.88rem; margin-top: 0.9rem; max-width: 60rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0 1.5rem; }
table { border-collapse: collapse; font-size: 0.88rem; line-height: 1.4; width: 100%; }
caption { text-align: left; padding-bottom: 0.4rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.6rem; border-bottom: 1px solid var(--rule); }
thead th { white-space: nowrap; border-bottom: 2px solid var(--rule); }
tbody th { font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total th, tr.total td { font-weight: 650; }
.cell { white-space: nowrap; border-radius: 0.25rem; padding: 0.05rem 0.45rem; display: inline-block; }
.works, .outside, .series { color: var(--on-strong); }
.refuses, .nothing, .not-here, .unknown { color: var(--on-pale); }
"""
    + "".join(f".{name} {{ background: var(--{name}); }}\n" for name in (*ON_STRONG, *ON_PALE))
    + """\
details { margin: 0.75rem 0; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--muted); font-size: 0.88rem; padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 40rem) { .facts { grid-template-columns: 1fr; } .facts dd { margin-bottom: 0.5rem; } }
@media print { figure, .tiles li { break-inside: avoid; } nav, .skip { display: none; } }
"""
)
