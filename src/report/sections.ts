import { pairName } from '../core/pair.js'
import { oneLine } from '../core/plain-text.js'
import type { Report, ReportedTransition, Table, TradeOff } from './report.js'
import { sinceStart, type Span, utcOf } from './span.js'

/*
 * What both report.html and report.md say.
 */

export const PARTIAL =
  'Partial: the run ended before its end. What it had recorded until then is shown; what it would have shown later is not known.'

export function timesOf({ startSeconds, endSeconds }: Report): string {
  return `${utcOf(startSeconds)} to ${utcOf(endSeconds)}, ${cell(endSeconds - startSeconds)} s`
}

/** Faults and transients with their times; null when there are none. */
export function windowsTable({ groundTruth, startSeconds }: Report): Table | null {
  const windows = [
    ...groundTruth.faults.map((fault) => ({
      ...fault,
      kind: 'fault',
      seen: fault.pairs.length === 0 ? 'all pairs' : fault.pairs.map(pairName).join(', '),
    })),
    ...groundTruth.transients.map((transient) => ({ ...transient, kind: 'transient', seen: null })),
  ].sort((a, b) => a.fromSeconds - b.fromSeconds)
  if (windows.length === 0) return null
  return {
    title: 'What really happened',
    columns: ['what', 'kind', 'from', 'to', 'from (UTC)', 'to (UTC)', 'seen on'],
    rows: windows.map(({ name, kind, fromSeconds, toSeconds, seen }) => [
      name,
      kind,
      sinceStart(fromSeconds, { startSeconds }),
      sinceStart(toSeconds, { startSeconds }),
      utcOf(fromSeconds),
      utcOf(toSeconds),
      seen,
    ]),
    note: '',
  }
}

/** Every point of a plot, also those whose name finds no place in it. */
export function tradeOffTable({ title, xTitle, yTitle, points }: TradeOff): Table {
  return {
    title,
    columns: ['series', 'setting', xTitle, yTitle],
    rows: [...new Set(points.map(({ series }) => series))]
      .flatMap((name) => points.filter(({ series }) => series === name))
      .map(({ series, label, x, y }) => [series, label, x, y]),
    note: '',
  }
}

/** Such as `opened, Sev 2`. */
export function transitionName({ transition, severity }: ReportedTransition): string {
  return severity === null ? transition : `${transition}, Sev ${severity}`
}

export function transitionTime({ timestampSeconds }: ReportedTransition, span: Pick<Span, 'startSeconds'>): string {
  return `${utcOf(timestampSeconds)}, ${sinceStart(timestampSeconds, span)}`
}

/** A cell's text in one line: four significant digits, all of an integer; a dash for what is not known. */
export function cell(value: string | number | null): string {
  if (value === null || value === '') return '–'
  if (typeof value === 'string') return oneLine(value)
  if (!Number.isFinite(value)) return '–'
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(4)))
}

/** The cells of a row, as many as there are columns. */
export function cellsOf(row: Table['rows'][number], columns: readonly string[]): readonly (string | number | null)[] {
  return columns.map((_, i) => row[i] ?? null)
}
