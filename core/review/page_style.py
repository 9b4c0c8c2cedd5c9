"""How pages for reviewers look: light and dark, on a screen, on a telephone and on paper."""

STYLE = """\
:root {
  color-scheme: light dark;
  --ground: #fff; --panel: #f6f8fa; --text: #1f2328; --muted: #59636e; --line: #d1d9e0; --link: #0757ba;
  --critical: #a40e26; --critical-ground: #ffebe9; --high: #9a3c00; --high-ground: #fff1e5;
  --medium: #704800; --medium-ground: #fff8c5; --low: #0550ae; --low-ground: #ddf4ff;
  --good: #116329; --good-ground: #dafbe1; --none: #59636e; --none-ground: #eff2f5;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --panel: #151b23; --text: #f0f6fc; --muted: #9198a1; --line: #3d444d; --link: #79c0ff;
    --critical: #ffa198; --critical-ground: #490202; --high: #ffa657; --high-ground: #4a2303;
    --medium: #e3b341; --medium-ground: #3b2e04; --low: #79c0ff; --low-ground: #0c2d6b;
    --good: #56d364; --good-ground: #04260f; --none: #9198a1; --none-ground: #262c36;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 80rem; padding: 2.5rem 1.5rem 5rem; background: var(--ground); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.25; letter-spacing: -.01em; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.25rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0; font-size: 1.05rem; line-height: 1.4; }
p { margin: .5rem 0; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: 3px; }
code, pre { font: .87em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .5rem 0 0; padding: .75rem 1rem; background: var(--ground); border: 1px solid var(--line);
  border-radius: 6px;
  white-space: pre-wrap; tab-size: 4; }
.about { color: var(--muted); margin: 0 0 1.5rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; }
.tile { flex: 1 1 7rem; padding: .75rem 1rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 8px; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .87rem; }
.tile.critical b { color: var(--critical); } .tile.high b { color: var(--high); }
.tile.medium b { color: var(--medium); } .tile.low b { color: var(--low); } .tile.good b { color: var(--good); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { padding: .5rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--panel); color: var(--muted); font-weight: 600; font-size: .82rem; white-space: nowrap; }
tbody tr:hover { background: var(--panel); }
.tag { display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .8rem; font-weight: 600;
  line-height: 1.6;
  white-space: nowrap; color: var(--none); background: var(--none-ground); }
.tag.critical { color: var(--critical); background: var(--critical-ground); }
.tag.high { color: var(--high); background: var(--high-ground); }
.tag.medium { color: var(--medium); background: var(--medium-ground); }
.tag.low { color: var(--low); background: var(--low-ground); }
.tag.kernel { color: var(--good); background: var(--good-ground); }
.tag.kill, .tag.override { color: var(--text); background: none; box-shadow: inset 0 0 0 1px var(--muted); }
.card { margin: .9rem 0; padding: 1rem 1.25rem 1.1rem; background: var(--panel); border: 1px solid var(--line);
  border-left: 4px solid var(--none); border-radius: 8px; scroll-margin-top: 1rem; }
.card.critical { border-left-color: var(--critical); } .card.high { border-left-color: var(--high); }
.card.medium { border-left-color: var(--medium); } .card.low { border-left-color: var(--low); }
.card:target { box-shadow: 0 0 0 2px var(--link); }
.card .scroll { background: var(--ground); }
.head { display: flex; flex-wrap: wrap; align-items: baseline; gap: .35rem .6rem; }
.place { color: var(--muted); font-size: .87rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .3rem 1.25rem; margin: .75rem 0; }
dt { color: var(--muted); font-size: .9rem; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
td { overflow-wrap: break-word; }
td:has(> a), td > .tag { white-space: nowrap; }
.place, h1, h3, p { overflow-wrap: anywhere; }
h3 code { font-size: .95em; }
.wide { min-width: 12rem; }
details { margin-top: .6rem; }
dd details { margin: 0; }
summary { cursor: pointer; color: var(--muted); font-size: .9rem; }
.note { margin: .75rem 0; padding: .6rem 1rem; border: 1px solid var(--line); border-left: 4px solid var(--medium);
  border-radius: 6px; background: var(--medium-ground); color: var(--text); }
fieldset { display: flex; flex-wrap: wrap; gap: .4rem; margin: .6rem 0 0; padding: 0; border: 0; }
legend { float: left; width: 5.5rem; padding: .15rem 0; color: var(--muted); font-size: .9rem; }
fieldset label { padding: .1rem .75rem; border: 1px solid var(--line); border-radius: 1rem; font-size: .87rem;
  cursor: pointer; }
fieldset input { position: absolute; opacity: 0; pointer-events: none; }
fieldset label:has(:checked) { background: var(--text); color: var(--ground); border-color: var(--text); }
fieldset label:has(:focus-visible) { outline: 2px solid var(--link); outline-offset: 2px; }
footer { margin-top: 3rem; color: var(--muted); font-size: .87rem; }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } dl { grid-template-columns: 1fr; gap: 0;
  } dd { margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; --ground: #fff; --panel: #fff; --text: #000; --muted: #444; --line: #bbb;
  --link: #000; }
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  fieldset { display: none; }
  .card, tr, .tile { break-inside: avoid; }
  h2, h3, .head { break-after: avoid; }
  thead { display: table-header-group; }
  table { font-size: 8.5pt; }
  th, td { padding: .25rem .5rem; }
  .wide { min-width: 0; }
  .tag, .note, .tile b { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .scroll { overflow: visible; }
}
"""
