// The style of a report: system fonts, one palette for eyes of all kinds
// (Okabe and Ito, darkened or lightened until each colour stands out from the
// page), light, dark and on paper.
#ifndef FLASHELM_CLI_HTML_STYLE_H_
#define FLASHELM_CLI_HTML_STYLE_H_

namespace flashelm::cli {

inline constexpr char kHtmlStyle[] = R"css(:root{color-scheme:light dark;
--bg:#fff;--panel:#f7f8fa;--ink:#1b1f24;--soft:#57606a;--rule:#d9dee4;
--grid:#e8ebef;--accent:#0067a5;--bad:#b3340b;
--c0:#0072b2;--c1:#c65102;--c2:#00805e;--c3:#a8427f;--c4:#8a6a00;--c5:#2b7fb8;
--p0:#0072b2;--p1:#e69f00;--p2:#009e73;--p3:#9aa3ad;--p4:#fff}
@media screen and (prefers-color-scheme:dark){:root{
--bg:#14171b;--panel:#1c2026;--ink:#e6e9ed;--soft:#9da7b1;--rule:#363d46;
--grid:#272d34;--accent:#6cb9f0;--bad:#ff9a76;
--c0:#56b4e9;--c1:#f08a4b;--c2:#2fc79a;--c3:#e094bd;--c4:#e6b800;--c5:#9ecbff;
--p0:#3d94cc;--p1:#e69f00;--p2:#2fb48a;--p3:#77818c;--p4:#14171b}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
.skip{position:absolute;left:-999px;top:0;padding:.6em 1em;background:var(--bg);
z-index:1}
.skip:focus{left:0}
header,main,footer{max-width:900px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3em;letter-spacing:-.01em}
h2{font-size:1.35rem;line-height:1.3;margin:2.6em 0 .5em;padding-top:.8em;
border-top:1px solid var(--rule)}
h3{font-size:1.05rem;margin:2em 0 .4em}
p{margin:.5em 0;max-width:70ch}
.sub,figcaption,.note-text{color:var(--soft)}
a{color:var(--accent)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{
outline:2px solid var(--accent);outline-offset:2px}
nav ul{list-style:none;margin:1.4em 0 0;padding:0;display:flex;flex-wrap:wrap;
gap:.3em 1.3em}
.facts{list-style:none;margin:1.6em 0 0;padding:0;display:grid;gap:14px;
grid-template-columns:repeat(auto-fit,minmax(250px,1fr))}
.facts li{background:var(--panel);border-radius:8px;padding:14px 18px}
.facts b{display:block;font-size:1.5rem;line-height:1.3;font-weight:600}
.facts span{color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
figure{margin:1em 0 1.6em;break-inside:avoid}
.scroll{overflow-x:auto}
svg{display:block;width:100%;min-width:600px;height:auto;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
.defs{position:absolute;width:0;height:0;min-width:0}
figcaption{font-size:.9rem;margin-top:.4em;max-width:78ch}
details{margin-top:.5em}
summary{cursor:pointer;color:var(--accent);width:fit-content}
table{border-collapse:collapse;font-size:.84rem;line-height:1.4;margin:.6em 0;
font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.4em}
th,td{padding:.32em .8em .32em 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--rule)}
thead th{white-space:nowrap;font-weight:600}
tbody th{font-weight:500;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td{max-width:60ch;overflow-wrap:anywhere}
pre{background:var(--panel);border-radius:8px;padding:14px 18px;overflow-x:auto;
font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
white-space:pre-wrap;overflow-wrap:anywhere}
.csv{font-size:.9rem}
footer{color:var(--soft);font-size:.85rem;padding-top:3em;padding-bottom:3em}
text{fill:var(--ink)}
.tick,.note{fill:var(--soft)}.note{font-style:italic}.axis{fill:var(--soft)}
.heading{font-weight:600;font-size:13px}
.heading,.note,.value{paint-order:stroke;stroke:var(--bg);stroke-width:5px;
stroke-linejoin:round}
.grid{stroke:var(--grid)}.frame{stroke:var(--soft)}
.reference{stroke:var(--soft);stroke-dasharray:1 3}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}
.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.line{fill:none;stroke:currentColor;stroke-width:2}
.error{stroke:currentColor;stroke-width:1.3}
.mark{fill:currentColor;stroke:var(--bg);stroke-width:1}
.hollow{fill:var(--bg);stroke:currentColor;stroke-width:2}
.bound{fill:none;stroke:var(--ink);stroke-width:1.6;stroke-dasharray:7 3 1.5 3}
.failed{stroke:var(--bad);stroke-width:2.2;fill:none}
.part{stroke:var(--bg);stroke-width:1}
.p0{fill:var(--p0)}.p1{fill:var(--p1)}.p2{fill:var(--p2)}.p3{fill:var(--p3)}
.p4{fill:var(--p4);stroke:var(--soft)}
.q1{fill:url(#q1)}.q2{fill:url(#q2)}.q3{fill:url(#q3)}.q4{fill:url(#q4)}
.ink{stroke:#000;stroke-opacity:.45;stroke-width:1.4}
.dot{fill:#000;fill-opacity:.5}
.limit{stroke:var(--ink);stroke-width:3}

.sample{fill:var(--bg);stroke:var(--ink);stroke-width:1.1;transform-box:fill-box}
.whisker{stroke:var(--soft);stroke-width:1.3}
.box{fill:var(--p0);fill-opacity:.35;stroke:var(--p0)}
.median{stroke:var(--ink);stroke-width:2.6}
.percentile{color:var(--c1)}
.cell{fill:var(--p0);stroke:var(--grid);stroke-width:.6}
.unknown{fill:url(#q4);stroke:var(--grid);stroke-width:.6}
@media (max-width:640px){header,main,footer{padding-left:16px;
padding-right:16px}h1{font-size:1.5rem}}
@page{margin:16mm}
@media print{body{font-size:11pt}nav,.csv,.skip,summary{display:none}
header,main,footer{max-width:none;padding:0}h2,h3{break-after:avoid}
h2{margin-top:1.4em}.scroll{overflow:visible}svg{min-width:0;max-width:17cm;
print-color-adjust:exact;-webkit-print-color-adjust:exact}
tr{break-inside:avoid}table{font-size:7.5pt}
th,td{white-space:normal!important;padding-right:.5em}}
)css";

// Patterns over the colours of bars: hatched, dotted, lined, crossed.
inline constexpr char kHtmlPatterns[] =
    R"svg(<svg class="defs" aria-hidden="true"><defs>
<pattern id="q1" width="6" height="6" patternUnits="userSpaceOnUse"
 patternTransform="rotate(45)"><path class="ink" d="M1 0V6"/></pattern>
<pattern id="q2" width="6" height="6" patternUnits="userSpaceOnUse"><circle
 class="dot" cx="2" cy="2" r="1.2"/></pattern>
<pattern id="q3" width="5" height="5" patternUnits="userSpaceOnUse"><path
 class="ink" d="M0 2H5"/></pattern>
<pattern id="q4" width="6" height="6" patternUnits="userSpaceOnUse"
 patternTransform="rotate(-45)"><path class="grid" d="M1 0V6"/></pattern>
</defs></svg>
)svg";

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_HTML_STYLE_H_
