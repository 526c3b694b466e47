import { QUANTILE_LABEL, REQUESTS_PER_SECOND, SAMPLE_TIMESTAMP_SECONDS, SERIES_LABEL } from './promql.js'
import type { InstantSample, Vector } from './series.js'

/** Largest latency that is taken for one: a million seconds. Beyond it something else is being measured. */
export const MAX_LATENCY_MS = 1e9

/** What a poll can come to: the label values of meshfever_polls_total. */
export const POLL_OUTCOMES = [
  'ok',
  'warnings',
  'empty',
  'nonfinite',
  'out_of_domain',
  'stale',
  'multi',
  'wrong_type',
  'histogram',
  'http_4xx',
  'http_5xx',
  'auth',
  'redirect',
  'too_large',
  'bad_json',
  'bad_shape',
  'api_error',
  'timeout',
  'conn',
  'dns',
  'tls',
] as const
export type PollOutcome = (typeof POLL_OUTCOMES)[number]

export interface QuantileLatency {
  /** In (0, 1). */
  readonly quantile: number
  /** In [0, MAX_LATENCY_MS]. */
  readonly latencyMs: number
}

/** One measurement of a pair. */
export interface Sample {
  /** Unix seconds at which Prometheus evaluated the query. */
  readonly timestampSeconds: number
  /** At least one, in the order in which they are scored. */
  readonly latencies: readonly QuantileLatency[]
  /** Requests per second in the window; null where it was not measured. */
  readonly requestsPerSecond: number | null
}

export type Reading =
  | { readonly kind: 'sample'; readonly outcome: 'ok' | 'warnings'; readonly sample: Sample }
  | {
      readonly kind: 'missing'
      readonly outcome: Exclude<PollOutcome, 'ok' | 'warnings'>
      readonly detail: string
      /** When Prometheus evaluated the query, unix seconds; null when it did not answer, or not with a time. */
      readonly timestampSeconds: number | null
      /** Known where latency is not: no requests make no latency. */
      readonly requestsPerSecond: number | null
    }

export interface Expected {
  /** The quantiles that are scored, in order. */
  readonly quantiles: readonly number[]
  /** How old the newest sample may be; null: any age. */
  readonly maxAgeSeconds: number | null
  /** True for a query that may not ask for the newest sample's time: without it, the age is not judged. */
  readonly ageOptional?: boolean
  /** The evaluation time of the last sample, so that a replayed answer is not taken twice. */
  readonly lastTimestampSeconds: number | null
}

export function missing(
  outcome: Extract<Reading, { kind: 'missing' }>['outcome'],
  detail: string,
  known: { readonly timestampSeconds?: number; readonly requestsPerSecond?: number | null } = {},
): Reading {
  const { timestampSeconds = null, requestsPerSecond = null } = known
  return { kind: 'missing', outcome, detail, timestampSeconds, requestsPerSecond }
}

/** What an answer holds of one pair: its series, told apart by their labels. */
export interface PairSeries {
  readonly latencies: Latency[]
  requestsPerSecond: Single
  /** When the newest sample was taken, unix seconds. */
  newestSeconds: Single
}

interface Latency {
  /** Null for a series that does not say: the one quantile that a query of one's own asks for. */
  readonly quantile: number | null
  readonly evaluatedSeconds: number
  /** Undefined for a native histogram. */
  readonly latencyMs: number | undefined
}

/** A value that one series should give. Undefined: none does. Null: several do, or one that is no number. */
type Single = number | null | undefined

export function emptyPairSeries(): PairSeries {
  return { latencies: [], requestsPerSecond: undefined, newestSeconds: undefined }
}

/**
 * Adds one series of an answer to its pair's.
 *
 * @param labels - `series` says what it holds; undefined: a latency
 */
export function addSeries(
  pair: PairSeries,
  labels: { readonly series: string | undefined; readonly quantile: string | undefined },
  { evaluatedSeconds, value }: Pick<InstantSample, 'evaluatedSeconds' | 'value'>,
): void {
  if (labels.series === undefined) {
    const quantile = labels.quantile === undefined ? null : Number(labels.quantile)
    pair.latencies.push({ quantile, evaluatedSeconds, latencyMs: value })
  } else if (labels.series === REQUESTS_PER_SECOND) {
    pair.requestsPerSecond = pair.requestsPerSecond === undefined ? (value ?? null) : null
  } else if (labels.series === SAMPLE_TIMESTAMP_SECONDS) {
    pair.newestSeconds = pair.newestSeconds === undefined ? (value ?? null) : null
  }
}

/** Makes one reading of the answer to a pair's query. Nothing in it is repaired: what cannot be trusted is missing. */
export function readVector({ result, warnings }: Vector, expected: Expected): Reading {
  const pair = emptyPairSeries()
  for (const sample of result) {
    const { labels } = sample
    addSeries(pair, { series: labels.get(SERIES_LABEL), quantile: labels.get(QUANTILE_LABEL) }, sample)
  }
  return readPair(pair, warnings, expected)
}

/** An answer that is so much older than the last sample is no replay: that was from the future, before a clock was put right. */
const CLOCK_SET_BACK_SECONDS = 300

/** @param warnings - how many the answer carries as a whole */
export function readPair(pair: PairSeries, warnings: number, expected: Expected): Reading {
  const { latencies, newestSeconds: newest } = pair
  const evaluatedSeconds = latencies[0]?.evaluatedSeconds
  if (evaluatedSeconds === undefined) return missing('empty', 'Prometheus has no such series')
  for (const { latencyMs } of latencies) {
    if (latencyMs === undefined) return missing('histogram', 'the answer is a native histogram, not a number')
  }
  const behindSeconds = (expected.lastTimestampSeconds ?? -Infinity) - evaluatedSeconds
  if (behindSeconds >= 0 && behindSeconds < CLOCK_SET_BACK_SECONDS) {
    return missing('stale', `evaluated at ${evaluatedSeconds}, not after the reading before`)
  }
  if (expected.maxAgeSeconds !== null) {
    if (newest == null && expected.ageOptional !== true) return missing('stale', 'no sidecar is scraped any more')
    const ageSeconds = newest == null ? 0 : evaluatedSeconds - newest
    if (!(ageSeconds <= expected.maxAgeSeconds)) {
      return missing(
        'stale',
        `the newest sample is ${ageSeconds.toFixed(1)} s old, more than ${expected.maxAgeSeconds} s`,
      )
    }
  }
  const requestsPerSecond = isRate(pair.requestsPerSecond) ? pair.requestsPerSecond : null
  const scored: QuantileLatency[] = []
  let trouble: Reading | undefined
  for (const quantile of expected.quantiles) {
    let found = 0
    let latencyMs = NaN
    for (const latency of latencies) {
      if (latency.quantile !== quantile && !(latency.quantile === null && expected.quantiles.length === 1)) continue
      found++
      latencyMs = latency.latencyMs ?? NaN
    }
    if (found > 1) return missing('multi', `${found} series where one was expected`)
    if (Number.isNaN(latencyMs)) continue
    if (latencyMs >= 0 && latencyMs <= MAX_LATENCY_MS) scored.push({ quantile, latencyMs })
    else if (Number.isFinite(latencyMs)) trouble ??= missing('out_of_domain', `latency is ${latencyMs} ms`)
    else trouble ??= missing('nonfinite', `latency is ${latencyMs}`)
  }
  if (scored.length === 0) {
    const known = { timestampSeconds: evaluatedSeconds, requestsPerSecond }
    return trouble ?? missing('nonfinite', 'no requests in the window', known)
  }
  return {
    kind: 'sample',
    outcome: warnings > 0 ? 'warnings' : 'ok',
    sample: {
      timestampSeconds: evaluatedSeconds,
      latencies: scored,
      requestsPerSecond,
    },
  }
}

export function isRate(value: number | null | undefined): value is number {
  return value != null && Number.isFinite(value) && value >= 0
}
