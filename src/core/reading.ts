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
  /** The evaluation time of the last reading, so that a replayed answer is not taken twice. */
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

/** Makes one reading of the answer to a pair's query. Nothing in it is repaired: what cannot be trusted is missing. */
export function readVector(vector: Vector, expected: Expected): Reading {
  const latencies = vector.result.filter(({ labels }) => !labels.has(SERIES_LABEL))
  const newest = single(vector, SAMPLE_TIMESTAMP_SECONDS)
  if (latencies.length === 0) return missing('empty', 'Prometheus has no such series')
  if (latencies.some(({ value }) => value === undefined)) {
    return missing('histogram', 'the answer is a native histogram, not a number')
  }
  const evaluatedSeconds = latencies[0]?.evaluatedSeconds ?? NaN
  if (expected.lastTimestampSeconds !== null && evaluatedSeconds <= expected.lastTimestampSeconds) {
    return missing('stale', `evaluated at ${evaluatedSeconds}, not after the reading before`)
  }
  if (expected.maxAgeSeconds !== null) {
    if (newest === undefined && expected.ageOptional !== true) return missing('stale', 'no sidecar is scraped any more')
    const ageSeconds = newest === undefined ? 0 : evaluatedSeconds - newest
    if (!(ageSeconds <= expected.maxAgeSeconds)) {
      return missing(
        'stale',
        `the newest sample is ${ageSeconds.toFixed(1)} s old, more than ${expected.maxAgeSeconds} s`,
      )
    }
  }
  const rate = single(vector, REQUESTS_PER_SECOND)
  const requestsPerSecond = isRate(rate) ? rate : null
  const scored: QuantileLatency[] = []
  let trouble: Reading | undefined
  for (const quantile of expected.quantiles) {
    const found = latencies.filter(({ labels }) => isQuantile(labels, quantile, expected.quantiles.length))
    if (found.length > 1) return missing('multi', `${found.length} series where one was expected`)
    const latencyMs = found[0]?.value
    if (latencyMs === undefined || Number.isNaN(latencyMs)) continue
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
    outcome: vector.warnings > 0 ? 'warnings' : 'ok',
    sample: {
      timestampSeconds: evaluatedSeconds,
      latencies: scored,
      requestsPerSecond,
    },
  }
}

export function isRate(value: number | undefined): value is number {
  return value !== undefined && Number.isFinite(value) && value >= 0
}

/** A series without the label is the one quantile that a query of one's own asks for. */
function isQuantile(labels: InstantSample['labels'], quantile: number, scored: number): boolean {
  const label = labels.get(QUANTILE_LABEL)
  return label === undefined ? scored === 1 : Number(label) === quantile
}

function single(vector: Vector, series: string): number | undefined {
  const found = vector.result.filter(({ labels }) => labels.get(SERIES_LABEL) === series)
  return found.length === 1 ? found[0]?.value : undefined
}
