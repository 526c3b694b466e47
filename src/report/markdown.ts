import { pairName } from '../core/pair.js'
import { oneLine } from '../core/plain-text.js'
import type { PictureFiles } from './pictures.js'
import type { Report, Table } from './report.js'
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

/** The report for GitHub and the like, with its pictures as files beside it. */
export function markdownOf(report: Report, files: PictureFiles): string {
  const windows = windowsTable(report)
  const blocks: readonly (string | readonly string[])[] = [
    `# ${escaped(report.title)}`,
    report.partial ? `> **${PARTIAL}**` : [],
    timesOf(report),
    report.summary.map(sentence),
    report.tables.flatMap((table) => [`## ${escaped(table.title)}`, ...tableBlocks(table)]),
    report.tradeOffs.flatMap((tradeOff, i) => [
      `## ${escaped(tradeOff.title)}`,
      image(tradeOff.title, files.tradeOffs[i]),
      ...tableBlocks(tradeOffTable(tradeOff)),
    ]),
    files.incident === undefined
      ? []
      : ['## Incident', image('accumulators, temperature and severity', files.incident)],
    report.pairs.length === 0 ? [] : ['## Latency', `[All in one picture](${files.overview})`],
    report.pairs.map(({ pair }, i) => image(`latency of ${pairName(pair)}`, files.latencies[i])),
    '## Transitions',
    report.transitions.length === 0
      ? 'None: no incident opened.'
      : report.transitions
          .map((transition) =>
            [
              `- **${transitionName(transition)}** at ${transitionTime(transition, report)}`,
              ...transition.text.map((line) => `  - ${sentence(line)}`),
            ].join('\n'),
          )
          .join('\n'),
    windows === null ? [] : [`## ${windows.title}`, ...tableBlocks(windows)],
  ]
  return `${blocks.flat().join('\n\n')}\n`
}

function image(text: string, file: string | undefined): string {
  return `![${escaped(text)}](${encodeURI(file ?? '')})`
}

function tableBlocks({ columns, rows, note }: Table): readonly string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  const isNumber = (column: number): boolean => rows.some((row) => typeof row[column] === 'number')
  const table =
    columns.length === 0
      ? []
      : [
          [
            line(columns.map(escaped)),
            line(columns.map((_, i) => (isNumber(i) ? '--:' : '---'))),
            ...rows.map((row) => line(cellsOf(row, columns).map((value) => escaped(cell(value))))),
          ].join('\n'),
        ]
  return note === '' ? table : [...table, sentence(note)]
}

/** Text that means nothing to Markdown, in one line; a pipe would end a cell, and < would begin HTML. */
function escaped(text: string): string {
  return oneLine(text)
    .trim()
    .replace(/[\\`*_[\]<>|~&#]/g, '\\$&')
}

/** The same where a line begins: there `- ` or `1. ` would begin a list. */
function sentence(text: string): string {
  return escaped(text)
    .replace(/^[-+=]/, '\\$&')
    .replace(/^(\d+)([.)])/, '$1\\$2')
}
