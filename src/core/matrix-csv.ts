import type { Matrix } from './series.js'

/**
 * Series beside each other: a row for each time at which one of them has a value, a column for each, named as Prometheus
 * writes it. What is missing is empty; NaN and infinities are as Prometheus writes them.
 */
export function matrixCsv({ result }: Matrix): string {
  const names = result.map(({ labels }) => seriesName(labels))
  const rows = new Map<number, string[]>()
  result.forEach(({ timesSeconds, values }, column) => {
    timesSeconds.forEach((time, i) => {
      const row = rows.get(time) ?? []
      row[column] = numberText(values[i] ?? NaN)
      rows.set(time, row)
    })
  })
  const lines = [...rows]
    .sort(([a], [b]) => a - b)
    .map(([time, row]) => [String(time), ...names.map((_, column) => row[column] ?? '')].join(','))
  return `${[['time_seconds', ...names].map(quoted).join(','), ...lines].join('\n')}\n`
}

function seriesName(labels: ReadonlyMap<string, string>): string {
  const matchers = [...labels]
    .filter(([label]) => label !== '__name__')
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`)
  return `${labels.get('__name__') ?? ''}${matchers.length === 0 ? '' : `{${matchers.join(',')}}`}`
}

function numberText(value: number): string {
  return Number.isFinite(value) ? String(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}

function quoted(text: string): string {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
