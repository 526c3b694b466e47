import type { Expectation, Fitted } from './baseline/model.js'
import type { Reading } from './reading.js'

/** What a poll says of a pair; exactly one holds. */
export const VERDICTS = ['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'] as const
export type Verdict = (typeof VERDICTS)[number]

export interface ScoringRules {
  /** `above`: only what is slower than the band is an anomaly. `both`: what is faster, too. */
  readonly direction: 'above' | 'both'
  /** With fewer requests per second in the window, a quantile means nothing. */
  readonly minRequestsPerSecond: number
}

/** One quantile of a sample against its baseline. */
export interface ScoredQuantile extends Expectation {
  readonly quantile: number
  /** The measured latency, milliseconds. */
  readonly yMs: number
  /** |y - yhat|, milliseconds: scikit-learn's mean_absolute_error of this one sample. */
  readonly maeMs: number
  /** |y - yhat| / |y|: scikit-learn's mean_absolute_percentage_error of this one sample, a ratio. Null when y is 0. */
  readonly mape: number | null
  /** Distance from yhat in half widths of the band on that side: 1 on the band's edge, more is further out. */
  readonly score: number
  readonly anomalous: boolean
}

export type Evaluation =
  | {
      readonly verdict: 'ok' | 'anomalous' | 'low_traffic'
      readonly timestampSeconds: number
      readonly requestsPerSecond: number | null
      readonly quantiles: readonly ScoredQuantile[]
      /** How many of the quantiles are anomalous; null when they were not judged. */
      readonly anomalyCount: number | null
    }
  | {
      readonly verdict: 'low_traffic' | 'no_data' | 'warming'
      readonly timestampSeconds: null
      readonly requestsPerSecond: number | null
      readonly quantiles: readonly []
      readonly anomalyCount: null
    }

/** What `score` needs to know of a pair: a fitted baseline for each scored quantile. */
export type Baselines = ReadonlyMap<number, Fitted>

/** A latency this close to the edge of a band has an infinite score otherwise. */
const MIN_HALF_WIDTH_MS = 1e-9

/** Judges one reading. A missing sample is neither healthy nor anomalous. */
export function score(baselines: Baselines, reading: Reading, rules: ScoringRules): Evaluation {
  const { requestsPerSecond } = reading.kind === 'sample' ? reading.sample : reading
  const lowTraffic = requestsPerSecond !== null && requestsPerSecond < rules.minRequestsPerSecond
  if (reading.kind === 'missing') {
    const verdict = lowTraffic ? 'low_traffic' : 'no_data'
    return { verdict, timestampSeconds: null, requestsPerSecond, quantiles: [], anomalyCount: null }
  }
  const { timestampSeconds, latencies } = reading.sample
  const quantiles = latencies.flatMap(({ quantile, latencyMs }) => {
    const fitted = baselines.get(quantile)
    return fitted === undefined
      ? []
      : [scoreQuantile({ quantile, yMs: latencyMs }, fitted.expect(timestampSeconds), rules.direction)]
  })
  if (lowTraffic) {
    return { verdict: 'low_traffic', timestampSeconds, requestsPerSecond, quantiles, anomalyCount: null }
  }
  const anomalyCount = quantiles.filter(({ anomalous }) => anomalous).length
  return {
    verdict: anomalyCount > 0 ? 'anomalous' : 'ok',
    timestampSeconds,
    requestsPerSecond,
    quantiles,
    anomalyCount,
  }
}

function scoreQuantile(
  { quantile, yMs }: { readonly quantile: number; readonly yMs: number },
  expectation: Expectation,
  direction: ScoringRules['direction'],
): ScoredQuantile {
  const { yhatMs, yMinMs, yMaxMs } = expectation
  const maeMs = Math.abs(yMs - yhatMs)
  const halfWidthMs = Math.max(MIN_HALF_WIDTH_MS, yMs >= yhatMs ? yMaxMs - yhatMs : yhatMs - yMinMs)
  return {
    ...expectation,
    quantile,
    yMs,
    maeMs,
    mape: yMs === 0 ? null : maeMs / Math.abs(yMs),
    score: maeMs / halfWidthMs,
    anomalous: yMs > yMaxMs || (direction === 'both' && yMs < yMinMs),
  }
}
