"""The look of a report: light and dark, from a phone to paper."""

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1d2329;--soft:#5c6670;--line:#dfe3e6;
--accent:#0b6e4f;--better:#d9f2e5;--note:#fff3cd;--note-ink:#5c4400;--note-line:#e5b93c;
--series-1:#0b7a5a;--series-2:#d9622b;--series-3:#3f6fb5;--series-4:#8a4fae;--series-5:#8a6d1f;--series-6:#6b7680;
--road:#f1f3f1;--map:#a9b4ae;--agent:#8c98a6;--agent-edge:#5a6673;--plan:#0b8f66;--reference:#d2491f}
@media (prefers-color-scheme:dark){:root{--ground:#14181b;--card:#1c2226;--ink:#e8ecee;--soft:#a2adb5;--line:#333c42;
--accent:#58d3a3;--better:#173f31;--note:#3b3110;--note-ink:#ffe9a8;--note-line:#a8862a;
--series-1:#4bd0a0;--series-2:#ff9a63;--series-3:#84b3f5;--series-4:#cf9bef;--series-5:#e2c46a;--series-6:#aab4bc;
--road:#101416;--map:#56635f;--agent:#5f6c79;--agent-edge:#9aa7b4;--plan:#4be0a9;--reference:#ff8a5c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif}
header,main,nav{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:32px}
h1{font-size:clamp(1.5rem,4vw,2.2rem);line-height:1.2;margin:.1em 0 .7em;overflow-wrap:anywhere}
h2{font-size:1.45rem;line-height:1.25;margin:0 0 .3em}
h3{font-size:1.15rem;margin:2.2em 0 .2em}
.over{color:var(--soft);margin:0}
a{color:var(--accent)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--card);padding:6px 12px;z-index:9}
.cards{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 20px}
.card h2{font-size:1.1rem}
dl{display:grid;grid-template-columns:minmax(7em,max-content) 1fr;gap:2px 16px;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
nav{position:sticky;top:0;z-index:5;background:var(--ground);margin-top:16px;border-bottom:1px solid var(--line)}
nav ul{display:flex;gap:4px 20px;list-style:none;margin:0;padding:10px 0;overflow-x:auto;white-space:nowrap}
nav a{text-decoration:none;font-weight:600}nav a:hover{text-decoration:underline}
.part{padding:36px 0 12px;scroll-margin-top:44px;border-bottom:1px solid var(--line)}
.part:last-child{border:0}
.lead{color:var(--soft);max-width:75ch;margin:0 0 1em}
.note{background:var(--note);color:var(--note-ink);border-left:4px solid var(--note-line);border-radius:4px;
padding:10px 14px;max-width:85ch}
.plots{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}
.plot{margin:0 0 8px;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;
max-width:720px}
.main{display:flex;flex-direction:column;gap:12px;margin:0 0 8px}
.main div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 18px}
.main dt{font-size:.9rem}.main dd{font-size:1.5rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.plot svg{display:block;width:100%;height:auto}
figcaption,caption{font-weight:600;text-align:left;margin-bottom:6px}
caption{white-space:nowrap;padding-bottom:6px;caption-side:top}
.scroll{overflow-x:auto;margin:20px 0;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
td,tbody th{white-space:nowrap}
th,td{padding:5px 14px 5px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;max-width:9.5em;border-bottom-width:2px}
th:first-child{text-align:left}tbody th{font-weight:500}
tbody tr:hover{background:color-mix(in srgb,var(--line) 35%,transparent)}
td:last-child,th:last-child{padding-right:4px}
.prose{white-space:normal;min-width:18em;text-align:left;padding-left:14px}
.better{background:var(--better);font-weight:700}
.moments{display:grid;gap:20px;grid-template-columns:1fr}
.key{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.9rem;color:var(--soft)}
.key span{display:inline-flex;align-items:center;gap:7px}
.k{display:inline-block;width:22px;height:0;border-top:3px solid}
.k.plan{border-color:var(--plan)}.k.reference{border-color:var(--reference);border-top-width:8px;opacity:.5}
.k.map{border-color:var(--map);border-top-width:2px}
.k.agent,.k.ego{height:11px;border:1.5px solid var(--agent-edge);background:var(--agent);border-radius:2px}
.k.ego{background:var(--card);border-color:var(--ink)}
article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;min-width:0}
article h4{margin:0 0 10px;font-size:1rem;font-weight:500;overflow-wrap:anywhere}
.metres{font-weight:700;font-size:1.15rem;margin-right:6px;color:var(--reference)}
.pictures{display:grid;gap:12px;grid-template-columns:minmax(0,1.35fr) minmax(0,1fr);align-items:start}
.pictures img,.pictures svg{display:block;width:100%;height:auto;border-radius:6px}
.nothing{color:var(--soft);
border:1px dashed var(--line);border-radius:6px;padding:30px 16px;margin:0;text-align:center}
.facts{margin:10px 0 0;font-size:.9rem;color:var(--soft)}
blockquote{margin:8px 0 0;padding:8px 12px;background:var(--ground);border-left:3px solid var(--plan);
border-radius:4px;font:.85rem/1.5 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
overflow-wrap:anywhere}
.run{margin:0;font-size:1rem}
.above{background:var(--road)}
.above polyline,.above path{fill:none;stroke-linejoin:round;stroke-linecap:round}
.above .map{stroke:var(--map);stroke-width:1.6}
.above .agent{fill:var(--agent);stroke:var(--agent-edge);stroke-width:1.4;fill-opacity:.75}
.above .heading{stroke:var(--agent-edge);stroke-width:1.4}
.above .ego{fill:var(--card);stroke:var(--ink);stroke-width:2}
.above .plan{stroke:var(--plan);stroke-width:2.8}.above .plan-dot{fill:var(--plan);stroke:var(--card)}
.above .reference{stroke:var(--reference);stroke-width:9;stroke-opacity:.4}
.above .reference-dot{fill:var(--card);stroke:var(--reference);stroke-width:2.2}
.above .gap{stroke:var(--ink);stroke-width:1.3}
.above text{font-size:14px;font-weight:600;fill:var(--ink);paint-order:stroke;stroke:var(--road);stroke-width:4px;
stroke-linejoin:round}
.above .scale{stroke:var(--ink);stroke-width:1.8}.above .scale-text{text-anchor:middle;font-size:13px}
.above .scale-back{fill:var(--road);fill-opacity:.85}
.two .pictures{grid-template-columns:1fr 1fr}.two .above text{font-size:20px}
@media (min-width:900px){.moments.two{grid-template-columns:1fr 1fr}}
@media (max-width:899px){.moments.two>.run,.moments.two>div:empty{display:none}}
@media (max-width:560px){.pictures,.two .pictures{grid-template-columns:1fr}
header,main,nav{padding-left:14px;padding-right:14px}}
@media print{:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--accent:#0b6e4f;--better:#d9f2e5;
--note:#fff3cd;--note-ink:#5c4400;--note-line:#e5b93c;--road:#f4f5f4;--map:#a9b4ae;--agent:#8c98a6;
--agent-edge:#5a6673;--plan:#0b8f66;--reference:#d2491f;--series-1:#0b7a5a;--series-2:#d9622b;--series-3:#3f6fb5;
--series-4:#8a4fae;--series-5:#8a6d1f;--series-6:#6b7680}
nav,.skip{display:none}body{font-size:11px}header,main{max-width:none;padding:0}
.scroll{overflow:visible}article,.plot,tr,.card{break-inside:avoid}.plot{max-width:420px}.main{flex-direction:row}
h2,h3,caption,thead{break-after:avoid}table{font-size:9px}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
""".strip()
