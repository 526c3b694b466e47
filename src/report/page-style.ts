import { customProperties } from './palette.js'
import { FONT_FAMILY } from './panel.js'

/** Of report.html: light and dark as the reader has it, for a desk, a phone and paper. */
export const PAGE_STYLE = `
:root{color-scheme:light dark;${customProperties('light')}}
@media (prefers-color-scheme:dark){:root{${customProperties('dark')}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{overflow-wrap:anywhere;margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 ${FONT_FAMILY}}
main{max-width:1000px;margin:0 auto;padding:24px 24px 64px}
h1,h2,h3{line-height:1.25}
h1{margin:0 0 4px;font-size:28px}
h2{margin:44px 0 12px;font-size:21px;padding-top:12px;border-top:1px solid var(--grid)}
h3{margin:28px 0 8px;font-size:17px}
p{margin:8px 0;max-width:75ch}
.times,.note,figcaption{color:var(--muted);font-size:14px}
.banner{margin:16px 0;padding:10px 14px;border:2px solid var(--anomaly);border-radius:4px;font-weight:700;max-width:none}
figure{margin:20px 0 28px}
figcaption{margin-top:2px}
svg{display:block;width:100%;height:auto}
svg.narrow{display:none}
.scroll{overflow-x:auto}
table{width:max-content;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
th,td{max-width:44ch}
th{color:var(--muted);font-weight:400;border-bottom-color:var(--muted)}
.number{text-align:right}
td.number{white-space:nowrap}
ol.transitions{list-style:none;margin:0;padding:0}
ol.transitions>li{margin:0 0 16px;padding-left:12px;border-left:4px solid var(--grid)}
ol.transitions>li.sev1{border-left-color:var(--sev1)}
ol.transitions>li.sev2{border-left-color:var(--sev2)}
ol.transitions p{margin:2px 0}
time{color:var(--muted);font-size:14px;margin-left:8px}
@media (max-width:760px){
main{padding:16px 12px 48px}
h1{font-size:23px}
svg.wide{display:none}
svg.narrow{display:block}
time{display:block;margin-left:0}
}
@media print{
:root{color-scheme:light;${customProperties('light')}}
body{font-size:11pt}
main{max-width:none;padding:0}
svg.wide{display:block}
svg.narrow{display:none}
figure,tr,li{break-inside:avoid}
h2,h3{break-after:avoid}
.scroll{overflow:visible}
table{width:auto;font-size:8.5pt}
th,td{padding-right:9px;overflow-wrap:break-word}
}
`
