import { pairName } from '../core/pair.js'
import { counted } from './latency.js'
import { PAGE_STYLE } from './page-style.js'
import { escaped, type Panel, stacked, svgOf } from './panel.js'
import type { Pictures } from './pictures.js'
import type { Report, ReportedTransition, Table } from './report.js'
import {
  cell,
  cellsOf,
  PARTIAL,
  timesOf,
  tradeOffTable,
  transitionName,
  transitionTime,
  windowsTable,
} from './sections.js'
import { spanOf } from './span.js'

/** The pictures of a page, for its two widths. */
export interface PagePictures {
  readonly wide: Pictures
  readonly narrow: Pictures
}

/** The report as a page that needs nothing else: no script, no network, no font, no file beside it. */
export async function htmlOf(report: Report, { wide, narrow }: PagePictures): Promise<string> {
  const windows = windowsTable(report)
  const body = [
    `<h1>${escaped(report.title)}</h1>`,
    `<p class="times">${timesOf(report)}</p>`,
    report.partial ? `<p class="banner" role="alert">${PARTIAL}</p>` : '',
    ...report.summary.map((sentence) => `<p>${escaped(sentence)}</p>`),
    ...report.tables.map((table) => `<h2>${escaped(table.title)}</h2>${tableOf(table)}`),
    report.tradeOffs.length === 0 ? '' : '<h2>Trade-off</h2>',
    ...report.tradeOffs.map((tradeOff, i) => {
      const drawing = figure([wide.tradeOffs[i]], [narrow.tradeOffs[i]], { about: tradeOff.title, caption: '' })
      return `${drawing}${tableOf(tradeOffTable(tradeOff))}`
    }),
    wide.incident.length === 0
      ? ''
      : `<h2>Incident</h2>${figure(wide.incident, narrow.incident, { about: 'accumulators, incident temperature and severity', caption: '' })}`,
    report.pairs.length === 0 ? '' : '<h2>Latency</h2>',
    ...report.pairs.map((pair, i) => {
      const { samples, anomalies, missing } = counted(pair, spanOf(report))
      const caption = `${pairName(pair.pair)}: ${samples} samples, ${anomalies} anomalous, ${missing} missing.`
      const about = `latency of ${pairName(pair.pair)}`
      return figure([wide.latencies[i]], [narrow.latencies[i]], { about, caption })
    }),
    '<h2>Transitions</h2>',
    transitionsOf(report),
    windows === null ? '' : `<h2>${windows.title}</h2>${tableOf(windows)}`,
  ]
  const policy = `default-src 'none'; style-src 'sha256-${await sha256(PAGE_STYLE)}'; base-uri 'none'; form-action 'none'`
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escaped(report.title)}</title>`,
    `<style>${PAGE_STYLE}</style>`,
    '</head>',
    '<body>',
    '<main>',
    ...body.filter((block) => block !== ''),
    '</main>',
    '</body>',
    '</html>',
    '',
  ].join('\n')
}

/** Base64, as a content security policy has it. */
async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))
  return btoa(String.fromCharCode(...new Uint8Array(digest)))
}

/** Both widths, of which CSS shows the one that fits. */
function figure(
  wide: readonly (Panel | undefined)[],
  narrow: readonly (Panel | undefined)[],
  { about, caption }: { readonly about: string; readonly caption: string },
): string {
  const svg = (panels: readonly (Panel | undefined)[], className: string): string =>
    svgOf(
      stacked(
        panels.filter((panel) => panel !== undefined),
        14,
      ),
      { about, className },
    )
  const said = caption === '' ? '' : `<figcaption>${escaped(caption)}</figcaption>`
  return `<figure>${svg(wide, 'wide')}${svg(narrow, 'narrow')}${said}</figure>`
}

function tableOf({ columns, rows, note }: Table): string {
  const isNumber = (column: number): boolean => rows.some((row) => typeof row[column] === 'number')
  const aligned = (tag: 'th' | 'td', column: number, text: string): string =>
    `<${tag}${isNumber(column) ? ' class="number"' : ''}>${escaped(text)}</${tag}>`
  const head = columns.map((column, i) => aligned('th', i, column)).join('')
  const body = rows
    .map(
      (row) =>
        `<tr>${cellsOf(row, columns)
          .map((value, i) => aligned('td', i, cell(value)))
          .join('')}</tr>`,
    )
    .join('\n')
  const table = `<div class="scroll" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>\n${body}\n</tbody></table></div>`
  return `${columns.length === 0 ? '' : table}${note === '' ? '' : `<p class="note">${escaped(note)}</p>`}`
}

function transitionsOf(report: Report): string {
  if (report.transitions.length === 0) return '<p>None: no incident opened.</p>'
  const item = (transition: ReportedTransition): string => {
    const look = transition.severity === null ? '' : ` class="sev${transition.severity}"`
    const time = `<time datetime="${new Date(transition.timestampSeconds * 1000).toISOString()}">${transitionTime(transition, report)}</time>`
    const text = transition.text.map((line) => `<p>${escaped(line)}</p>`).join('')
    return `<li${look}><strong>${transitionName(transition)}</strong>${time}${text}</li>`
  }
  return `<ol class="transitions">\n${report.transitions.map(item).join('\n')}\n</ol>`
}
