import { ISTIO_BUCKETS_MS } from '../../src/core/istio-buckets.js'
import type { LatencySeries, Recording } from '../../src/core/recording.js'
import { lognormal, type Random } from '../../src/testbed/random.js'

export interface SimulatedPair {
  /** Requests per second that arrive, as a Poisson process. */
  readonly rateAt: (seconds: number) => number
  /** What one request takes once it is its turn, milliseconds. */
  readonly serviceMsAt: (random: Random, seconds: number) => number
  /** What the caller's sidecar adds, milliseconds. */
  readonly delayMsAt?: (seconds: number) => number
  readonly startSeconds: number
  readonly durationSeconds: number
  readonly random: Random
}

/** One worker, as the testbed's cartservice: lognormal with a mean of 7.5 ms, 133 requests a second at most. */
export function cartserviceMs(random: Random): number {
  return lognormal(random, { median: 5, sigma: 0.9 })
}

const SCRAPE_SECONDS = 15
const WINDOW_SECONDS = 60

/**
 * What Prometheus would have of a pair whose destination works on one request at a time, first come first served: each
 * request goes into Istio's buckets, these are scraped each 15 s, and histogram_quantile is taken over rate(...[1m]).
 */
export function simulatedPair(pair: SimulatedPair): Recording {
  const { rateAt, serviceMsAt, delayMsAt = () => 0, startSeconds, durationSeconds, random } = pair
  const endSeconds = startSeconds + durationSeconds
  const counts = new Float64Array(ISTIO_BUCKETS_MS.length + 1)
  const scraped: Float64Array[] = []
  const timesSeconds: number[] = []
  const latenciesMs: number[] = []
  const requestsPerSecond: number[] = []
  // The queue runs in before the first window.
  let at = startSeconds - WINDOW_SECONDS - SCRAPE_SECONDS
  let freeSeconds = at
  let scrapeSeconds = startSeconds - WINDOW_SECONDS
  const finished: { readonly seconds: number; readonly bucket: number }[] = []
  let next = 0
  const scrape = (): void => {
    for (; next < finished.length && finished[next]!.seconds <= scrapeSeconds; next++) counts[finished[next]!.bucket]!++
    scraped.push(counts.slice())
    const before = scraped.at(-1 - WINDOW_SECONDS / SCRAPE_SECONDS)
    if (before !== undefined && scrapeSeconds >= startSeconds) {
      const window = counts.map((count, i) => count - before[i]!)
      timesSeconds.push(scrapeSeconds)
      latenciesMs.push(medianOf(window))
      requestsPerSecond.push(window.reduce((a, b) => a + b, 0) / WINDOW_SECONDS)
    }
    scrapeSeconds += SCRAPE_SECONDS
  }
  while (scrapeSeconds < endSeconds) {
    at -= Math.log(1 - random()) / rateAt(at)
    // In order of arrival, which in one queue is the order of departure, but for the delay.
    while (at > scrapeSeconds && scrapeSeconds < endSeconds) scrape()
    freeSeconds = Math.max(at, freeSeconds) + serviceMsAt(random, at) / 1000
    const latencyMs = 1000 * (freeSeconds - at) + delayMsAt(at)
    const bucket = ISTIO_BUCKETS_MS.findIndex((boundMs) => latencyMs <= boundMs)
    finished.push({ seconds: at + latencyMs / 1000, bucket: bucket === -1 ? ISTIO_BUCKETS_MS.length : bucket })
  }
  const series: LatencySeries = { quantile: 0.5, timesSeconds, latenciesMs, requestsPerSecond }
  return { series: [series], reordered: 0, rejected: 0 }
}

/** As PromQL's histogram_quantile(0.5, ...): linear within the bucket. */
function medianOf(counts: Float64Array): number {
  const half = counts.reduce((a, b) => a + b, 0) / 2
  let below = 0
  for (const [i, count] of counts.entries()) {
    if (count > 0 && below + count >= half) {
      const lowerMs = ISTIO_BUCKETS_MS[i - 1] ?? 0
      const upperMs = ISTIO_BUCKETS_MS[i] ?? lowerMs
      return lowerMs + (upperMs - lowerMs) * ((half - below) / count)
    }
    below += count
  }
  return NaN
}

export function withoutRate(recording: Recording): Recording {
  return { ...recording, series: recording.series.map((series) => ({ ...series, requestsPerSecond: null })) }
}
