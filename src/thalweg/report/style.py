"""The report page's own style sheet and script."""

STYLE = """
:root { --paper: #f6f7f9; --card: #ffffff; --ink: #20252b; --soft: #5b6470; --line: #e1e5ea; --accent: #1f6aa8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --card: #1c2026; --ink: #dde2e8; --soft: #9aa4b0; --line: #323943; --accent: #6db3ec; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
header, section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 20px 24px;
  margin-bottom: 16px; }
h1 { margin: 0; font-size: 26px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 8px; font-size: 18px; }
p { margin: 8px 0; overflow-wrap: anywhere; }
.kind { margin: 0 0 2px; color: var(--soft); font-size: 13px; }
.verdict { font-size: 17px; font-weight: 600; margin: 12px 0 16px; }
.note { color: var(--soft); font-size: 14px; margin: 0 0 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 0 0 16px; }
.tiles div { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 2px 0 0; font-size: 20px; font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.tiles .words dd { font-size: 14px; font-weight: 500; line-height: 1.45; }
.tiles p { margin: 2px 0 0; color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
.long { max-height: 640px; overflow: auto; }
.long .wide { overflow: visible; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; position: sticky; top: 0; background: var(--card);
  white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.long td, table.num td { white-space: nowrap; }
table.num td, table.num thead th:not(:first-child) { text-align: right; }
tr.changed td { font-weight: 700; }
.long tr.error td { white-space: normal; color: var(--soft); font-size: 13px; }
pre { overflow: auto; max-height: 480px; font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  margin: 8px 0; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media (max-width: 640px) { main { padding: 10px 8px 40px; } header, section { padding: 14px 12px; } }
@media print { section { break-inside: avoid; } .long, pre { max-height: none; } }
"""

SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => figures.templates[dark.matches ? "dark" : "light"];
for (const [key, figure] of Object.entries(figures.drawn)) {
  Plotly.newPlot("figure-" + key, figure.data, {...figure.layout, template: theme()},
    {responsive: true, displayModeBar: false});
}
dark.addEventListener("change", () => {
  for (const key of Object.keys(figures.drawn)) Plotly.relayout("figure-" + key, {template: theme()});
});
"""
