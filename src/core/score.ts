import { deviationIn, type Expectation, type Judgement, type Watch } from './baseline/model.js'
import { HIGHEST_BUCKET_MS } from './istio-buckets.js'
import type { QuantileLatency, Reading } from './reading.js'

/** What a poll says of a pair; exactly one holds. */
export const VERDICTS = ['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'] as const
export type Verdict = (typeof VERDICTS)[number]

export interface ScoringRules {
  /** `above`: only what is slower than the band is an anomaly. `both`: what is faster, too. */
  readonly direction: 'above' | 'both'
  /** With fewer requests per second in the window, a quantile means nothing. */
  readonly minRequestsPerSecond: number
  /** A smaller deviation from yhat, in milliseconds, is no anomaly whatever the band says. */
  readonly minDeviationMs: number
  /** The same as a share of yhat. */
  readonly minDeviationRatio: number
  /** Slower than this is an anomaly whatever the band says; null for none. */
  readonly sloMs: number | null
}

/** One quantile of a sample against its baseline. */
export interface ScoredQuantile extends Expectation {
  readonly quantile: number
  /** The measured latency, milliseconds; null when it is missing. What follows is null then, and when it was not judged. */
  readonly yMs: number | null
  /** |y - yhat|, milliseconds: scikit-learn's mean_absolute_error of this one sample. */
  readonly maeMs: number | null
  /** |y - yhat| / |y|: scikit-learn's mean_absolute_percentage_error of this one sample, a ratio. Null when y is 0, too. */
  readonly mape: number | null
  /** 1 on the edge of the band, more is further out, less is inside; never negative. */
  readonly score: number | null
  readonly anomalous: boolean | null
  /** True when the latency is beyond what the histogram can tell: it may be any amount worse. */
  readonly saturated: boolean
  /** Live normal latency over the training's; null when the model does not follow it. */
  readonly driftRatio: number | null
  /** True when there is more traffic than the training saw. */
  readonly beyondTraining: boolean
}

export interface Evaluation {
  readonly verdict: Verdict
  /** When Prometheus evaluated the sample, unix seconds; null without a sample. */
  readonly timestampSeconds: number | null
  readonly requestsPerSecond: number | null
  /** In scored order. Empty when not even the time is known. */
  readonly quantiles: readonly ScoredQuantile[]
  /** How many of the quantiles are anomalous; null when they were not judged. */
  readonly anomalyCount: number | null
}

/** What watches a pair: one watch for each scored quantile, in order. */
export type Watches = readonly QuantileWatch[]

export interface QuantileWatch {
  readonly quantile: number
  readonly watch: Watch
}

/**
 * Judges one reading. A missing sample is neither healthy nor anomalous.
 *
 * @param watches - null while the baselines are still being fitted
 */
export function score(watches: Watches | null, reading: Reading, rules: ScoringRules): Evaluation {
  const { requestsPerSecond } = reading.kind === 'sample' ? reading.sample : reading
  const lowTraffic = requestsPerSecond !== null && requestsPerSecond < rules.minRequestsPerSecond
  if (watches === null) return unjudged('warming', requestsPerSecond, [])
  const { timestampSeconds } = reading.kind === 'sample' ? reading.sample : reading
  if (timestampSeconds === null) return unjudged(lowTraffic ? 'low_traffic' : 'no_data', requestsPerSecond, [])

  const latencies = reading.kind === 'sample' ? reading.sample.latencies : NO_LATENCIES
  const quantiles: ScoredQuantile[] = []
  let anomalyCount = 0
  for (const { quantile, watch } of watches) {
    const yMs = latencyOf(latencies, quantile)
    // A latency that means nothing must not be learnt from either.
    const latencyMs = lowTraffic ? null : yMs
    const judgement = watch.judge({ timestampSeconds, latencyMs, requestsPerSecond })
    const scored = scoreQuantile({ quantile, yMs, latencyMs }, judgement, rules)
    quantiles.push(scored)
    if (scored.anomalous === true) anomalyCount++
  }
  if (reading.kind === 'missing') return unjudged(lowTraffic ? 'low_traffic' : 'no_data', requestsPerSecond, quantiles)
  if (lowTraffic) return { verdict: 'low_traffic', timestampSeconds, requestsPerSecond, quantiles, anomalyCount: null }
  return {
    verdict: anomalyCount > 0 ? 'anomalous' : 'ok',
    timestampSeconds,
    requestsPerSecond,
    quantiles,
    anomalyCount,
  }
}

const NO_LATENCIES: readonly QuantileLatency[] = []

function latencyOf(latencies: readonly QuantileLatency[], quantile: number): number | null {
  for (const candidate of latencies) if (candidate.quantile === quantile) return candidate.latencyMs
  return null
}

function unjudged(
  verdict: Verdict,
  requestsPerSecond: number | null,
  quantiles: readonly ScoredQuantile[],
): Evaluation {
  return { verdict, timestampSeconds: null, requestsPerSecond, quantiles, anomalyCount: null }
}

// Written out, not spread: this is the inner loop of a replay, and spreading made it three times as slow.
function scoreQuantile(
  measured: { readonly quantile: number; readonly yMs: number | null; readonly latencyMs: number | null },
  judgement: Judgement,
  rules: ScoringRules,
): ScoredQuantile {
  const { quantile, yMs, latencyMs } = measured
  const { yhatMs, yMinMs, yMaxMs } = ruledBand(judgement, rules, rules.sloMs)
  const maeMs = latencyMs === null ? null : Math.abs(latencyMs - yhatMs)
  const deviation = latencyMs === null ? null : ruledDeviation(judgement, latencyMs, rules)
  return {
    quantile,
    yMs,
    yhatMs,
    yMinMs,
    yMaxMs,
    maeMs,
    mape: latencyMs === null || maeMs === null ? null : finiteOrNull(maeMs / latencyMs),
    score: deviation,
    anomalous: deviation === null ? null : deviation > 1,
    saturated: yMs !== null && yMs >= HIGHEST_BUCKET_MS,
    driftRatio: judgement.driftRatio,
    beyondTraining: judgement.beyondTraining,
  }
}

/** The band with the rules applied: at least as wide as the least deviation, and not above the SLO. */
function ruledBand({ yhatMs, yMinMs, yMaxMs }: Expectation, rules: ScoringRules, sloMs: number | null): Expectation {
  const leastMs = Math.max(rules.minDeviationMs, rules.minDeviationRatio * yhatMs)
  const upperMs = Math.max(yMaxMs, yhatMs + leastMs)
  return {
    yhatMs,
    yMinMs: Math.max(0, Math.min(yMinMs, yhatMs - leastMs)),
    yMaxMs: sloMs === null ? upperMs : Math.max(yhatMs, Math.min(upperMs, sloMs)),
  }
}

function ruledDeviation(judgement: Judgement, latencyMs: number, rules: ScoringRules): number {
  const { direction, sloMs } = rules
  const signed = judgement.deviation
  const own = direction === 'above' ? Math.max(0, signed) : Math.abs(signed)
  let deviation = own
  if (rules.minDeviationMs > 0 || rules.minDeviationRatio > 0) {
    // Inside a band that the rules widened, the model's own deviation is too large.
    deviation = Math.min(own, Math.abs(deviationIn(ruledBand(judgement, rules, null), latencyMs)))
  }
  return sloMs !== null && latencyMs > sloMs ? Math.max(deviation, latencyMs / sloMs) : deviation
}

/** A ratio to a latency of 0, or to one too small to divide by, is none. */
function finiteOrNull(value: number): number | null {
  return Number.isFinite(value) ? value : null
}
