import { parseAnswer } from './series.js'

/** A series of a range query's answer, values as Prometheus wrote them. */
export interface AnsweredSeries {
  readonly metric: Readonly<Record<string, string>>
  /** Unix seconds, and the value's own text. */
  readonly values: readonly (readonly [timeSeconds: number, value: string])[]
}

/** An answer of /api/v1/query_range whose values are still texts, to be cut and joined and written again. */
export interface RangeAnswer {
  readonly result: readonly AnsweredSeries[]
  readonly warnings: readonly string[]
}

/** Both ends included, unix seconds. */
export interface TimeSpan {
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** @throws {ShapeError} when the document is no such answer */
export function rangeAnswerOf(document: unknown): RangeAnswer {
  parseAnswer(document, 'matrix')
  const { data, warnings } = document as {
    readonly data: { readonly result: readonly AnsweredSeries[] }
    readonly warnings?: unknown
  }
  return {
    result: data.result.map(({ metric, values }) => ({ metric, values })),
    warnings: Array.isArray(warnings) ? warnings.filter((warning) => typeof warning === 'string') : [],
  }
}

/** Answers to one query over ranges that follow each other, as one: series by their labels, in Prometheus's order. */
export function joinedAnswer(parts: readonly RangeAnswer[]): RangeAnswer {
  const joined = new Map<
    string,
    { labels: Labels; metric: AnsweredSeries['metric']; values: AnsweredSeries['values'][] }
  >()
  for (const { metric, values } of parts.flatMap(({ result }) => result)) {
    const labels = labelsOf(metric)
    const key = JSON.stringify(labels)
    const series = joined.get(key) ?? { labels, metric, values: [] }
    joined.set(key, series)
    series.values.push(values)
  }
  return {
    result: [...joined.values()]
      .sort((a, b) => compareLabels(a.labels, b.labels))
      .map(({ metric, values }) => ({ metric, values: values.flat() })),
    warnings: [...new Set(parts.flatMap(({ warnings }) => warnings))],
  }
}

/** The same without the values of some times; a series that has none left is left out. @param spans - rising, apart */
export function withoutSpans({ result, warnings }: RangeAnswer, spans: readonly TimeSpan[]): RangeAnswer {
  const kept = ([time]: readonly [number, string]): boolean => !inSpans(spans, time)
  return {
    result: result
      .map(({ metric, values }) => ({ metric, values: values.filter(kept) }))
      .filter(({ values }) => values.length > 0),
    warnings,
  }
}

/** @param spans - rising, apart */
export function inSpans(spans: readonly TimeSpan[], timeSeconds: number): boolean {
  let low = 0
  let high = spans.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((spans[middle]?.toSeconds ?? Infinity) < timeSeconds) low = middle + 1
    else high = middle
  }
  return (spans[low]?.fromSeconds ?? Infinity) <= timeSeconds
}

/** As Prometheus would have given it. */
export function documentOf({ result, warnings }: RangeAnswer): object {
  return {
    status: 'success',
    data: { resultType: 'matrix', result },
    ...(warnings.length === 0 ? {} : { warnings }),
  }
}

/** The `result` array, as it stands in an answer's text; empty when there is none. */
export function resultText(answer: string): string {
  const start = answer.indexOf('[', answer.indexOf('"result"'))
  let depth = 0
  for (const { 0: token, index } of answer.slice(start).matchAll(/"(?:\\.|[^"\\])*"|[[\]]/g)) {
    if (token === '[') depth++
    else if (token === ']' && --depth === 0) return answer.slice(start, start + index + 1)
  }
  return ''
}

type Labels = readonly (readonly [name: string, value: string])[]

function labelsOf(metric: AnsweredSeries['metric']): Labels {
  return Object.entries(metric).sort(([a], [b]) => (a < b ? -1 : 1))
}

/** Prometheus sorts series by their labels: names and values in turn, the shorter first. */
function compareLabels(a: Labels, b: Labels): number {
  for (const [i, [name, value]] of a.entries()) {
    const other = b[i]
    if (other === undefined) return 1
    if (name !== other[0]) return name < other[0] ? -1 : 1
    if (value !== other[1]) return value < other[1] ? -1 : 1
  }
  return a.length - b.length
}
