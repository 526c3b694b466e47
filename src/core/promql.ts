import { parser } from '@prometheus-io/lezer-promql'

import { UsageError } from './errors.js'
import type { Pair } from './pair.js'

/** The label that says what a series of a joined answer holds; latency carries none. */
export const SERIES_LABEL = 'series'
export const REQUESTS_PER_SECOND = 'requests_per_second'
export const SAMPLE_TIMESTAMP_SECONDS = 'sample_timestamp_seconds'
export const QUANTILE_LABEL = 'quantile'

/** A double-quoted PromQL string: whatever the text holds, it stays one string. */
export function promqlString(text: string): string {
  const escaped = text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
  // U+FFFD, which also stands for what is no UTF-8, is taken by Prometheus's lexer for broken bytes unless it is escaped.
  return `"${escaped.replace(/[\uFFFD\p{Surrogate}]/gu, '\\uFFFD')}"`
}

/** A PromQL regular expression that matches exactly the given texts (RE2 syntax, anchored by Prometheus itself). */
export function promqlOneOf(texts: readonly string[]): string {
  return promqlString(texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|'))
}

export interface PairQuery {
  readonly pair: Pair
  readonly sourceLabel: string
  readonly destinationLabel: string
  /** Which of Istio's two measurements: the caller's side, where injected faults and the network show, or the callee's. */
  readonly reporter: 'source' | 'destination'
  /** A Prometheus duration, the rate window. */
  readonly window: string
  readonly quantiles: readonly number[]
}

/**
 * Latency quantiles and request rate of one pair, in one query so that they belong to the same moment. Each quantile is a
 * series labelled `quantile`, the rate one labelled series="requests_per_second".
 */
export function latencyAndTraffic(query: PairQuery): string {
  return joined(latencyParts({ ...query, selector: pairSelector(query), by: [] }))
}

/**
 * The same, and the newest underlying sample's own time: an answer carries the time of the evaluation, so only this tells
 * a fresh value from one that Prometheus still serves after its sidecar died.
 */
export function latencyTrafficAndAge(query: PairQuery): string {
  return latencyTrafficAndAgeBy({ ...query, selector: pairSelector(query), by: [] })
}

/** What is asked of Istio's histograms: of all series that a selector matches, one answer for each set of the labels `by`. */
export interface EdgesQuery extends Pick<PairQuery, 'window' | 'quantiles'> {
  /** With its braces. */
  readonly selector: string
  readonly by: readonly string[]
}

/** As latencyTrafficAndAge, of many pairs at once. */
export function latencyTrafficAndAgeBy(edges: EdgesQuery): string {
  const { selector, by } = edges
  const newest = `max${grouping(by)}(timestamp(istio_request_duration_milliseconds_count${selector}))`
  return joined([...latencyParts(edges), labelled(newest, SERIES_LABEL, SAMPLE_TIMESTAMP_SECONDS)])
}

/** As latencyAndTraffic, of many pairs at once. */
export function latencyAndTrafficBy(edges: EdgesQuery): string {
  return joined(latencyParts(edges))
}

function latencyParts({ selector, by, window, quantiles }: EdgesQuery): readonly string[] {
  const buckets = `sum by (${['le', ...by].join(', ')}) (rate(istio_request_duration_milliseconds_bucket${selector}[${window}]))`
  return [
    ...quantiles.map((quantile) =>
      labelled(`histogram_quantile(${quantile}, ${buckets})`, QUANTILE_LABEL, String(quantile)),
    ),
    labelled(
      `sum${grouping(by)}(rate(istio_request_duration_milliseconds_count${selector}[${window}]))`,
      SERIES_LABEL,
      REQUESTS_PER_SECOND,
    ),
  ]
}

/** Without labels to keep, an aggregation says none. */
function grouping(by: readonly string[]): string {
  return by.length === 0 ? '' : ` by (${by.join(', ')}) `
}

function joined(parts: readonly string[]): string {
  return parts.join('\nor ')
}

/** Requests of a pair by the upper bound of their bucket, within the window. */
export function requestsByBucket(query: Omit<PairQuery, 'quantiles'>): string {
  return `sum by (le) (increase(istio_request_duration_milliseconds_bucket${pairSelector(query)}[${query.window}]))`
}

function pairSelector({ pair, sourceLabel, destinationLabel, reporter }: Omit<PairQuery, 'quantiles'>): string {
  return `{reporter="${reporter}",${sourceLabel}=${promqlString(pair.source)},${destinationLabel}=${promqlString(pair.destination)}}`
}

function labelled(expression: string, label: string, value: string): string {
  return `label_replace(${expression}, "${label}", "${value}", "", "")`
}

const CLOSED_STRING = /^("(\\.|[^"\\])*"|'(\\.|[^'\\])*'|`[^`]*`)$/s

export type PromqlTree = ReturnType<typeof parser.parse>

/**
 * @returns the tree of the grammar @prometheus-io/lezer-promql
 * @throws {UsageError} naming `what` and the place when the text is not PromQL
 */
export function checkPromql(query: string, what: string): PromqlTree {
  if (query.length > 1_000_000)
    throw new UsageError(`${what} must be shorter than 1,000,000 characters, got ${query.length}`)
  const tree = parser.parse(query)
  let errorAt: number | undefined
  tree.iterate({
    enter: (node) => {
      // The grammar lets a string end with the query: an editor's courtesy, which Prometheus does not have.
      const torn = node.name === 'StringLiteral' && !CLOSED_STRING.test(query.slice(node.from, node.to))
      if (node.type.isError || torn) errorAt ??= node.from
    },
  })
  if (errorAt !== undefined || query.trim() === '') {
    const near = query.slice(errorAt ?? 0, (errorAt ?? 0) + 30)
    throw new UsageError(
      `${what} must be a PromQL expression, got one that does not parse at character ${(errorAt ?? 0) + 1}, near ${JSON.stringify(near)}`,
    )
  }
  return tree
}
