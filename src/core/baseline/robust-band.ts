import { median, medianAbsoluteDeviation } from 'simple-statistics'

import { bucketOf } from '../istio-buckets.js'
import type { Model } from './model.js'

/** Makes a MAD estimate the standard deviation of normal data: 1 / Phi^-1(3/4). Rousseeuw & Croux, JASA 88 (1993). */
const MAD_TO_SIGMA = 1.4826

/** Half width of the band in standard deviations of the log latency: about one false alarm in 16,000 normal samples. */
const BAND_SIGMAS = 4

/** A flat recording has a MAD of 0 and would make every other value an anomaly: nothing is known better than 5 %. */
const MIN_LOG_SIGMA = 0.05

/** Below this, latencies are all alike; it also keeps the logarithm of 0 away. */
const MIN_LATENCY_MS = 0.01

/**
 * One level and one width for all times: exp(median +- 4 x 1.4826 x MAD) of the log latencies. Latency is skewed and
 * multiplicative, so its logarithm is where a symmetric band belongs. The band always covers the histogram bucket that
 * the level lies in, since a quantile is interpolated inside its bucket and not known better.
 */
export const robustBand: Model = {
  name: 'robust-band',
  fit: ({ latenciesMs }) => {
    const logs = latenciesMs.map((latencyMs) => Math.log(Math.max(latencyMs, MIN_LATENCY_MS)))
    const level = median(logs)
    const sigma = Math.max(MIN_LOG_SIGMA, MAD_TO_SIGMA * medianAbsoluteDeviation(logs))
    const yhatMs = Math.exp(level)
    const bucket = bucketOf(yhatMs)
    const expectation = {
      yhatMs,
      yMinMs: Math.min(bucket.lowerMs, Math.exp(level - BAND_SIGMAS * sigma)),
      yMaxMs: Math.max(
        Number.isFinite(bucket.upperMs) ? bucket.upperMs : yhatMs,
        Math.exp(level + BAND_SIGMAS * sigma),
      ),
    }
    return { expect: () => expectation }
  },
}
