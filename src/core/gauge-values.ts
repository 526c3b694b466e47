import type { Evaluation } from './score.js'

/** Keys of MONITOR_GAUGES with a series for each scored quantile. */
export const QUANTILE_GAUGES = ['mae', 'mape', 'y', 'yMin', 'yMax', 'yhat', 'score', 'saturated', 'drift'] as const
/** Keys of MONITOR_GAUGES with one series for each pair. */
export const PAIR_GAUGES = ['anomalyCount', 'beyondTraining', 'requestsPerSecond', 'sampleTimestamp'] as const

type Values<K extends string> = Readonly<Record<K, number | null>>

/** What a monitor exports of one quantile; null where it is not known, and is not exported. */
export function quantileValues({ quantiles }: Evaluation, quantile: number): Values<(typeof QUANTILE_GAUGES)[number]> {
  const found = quantiles.find((candidate) => candidate.quantile === quantile)
  // A band without a sample would look like knowledge of now.
  if (found === undefined || found.yMs === null) return NOTHING
  return {
    mae: found.maeMs,
    mape: found.mape,
    y: found.yMs,
    yMin: found.yMinMs,
    yMax: found.yMaxMs,
    yhat: found.yhatMs,
    score: found.score,
    saturated: Number(found.saturated),
    drift: found.driftRatio,
  }
}

const NOTHING: ReturnType<typeof quantileValues> = {
  mae: null,
  mape: null,
  y: null,
  yMin: null,
  yMax: null,
  yhat: null,
  score: null,
  saturated: null,
  drift: null,
}

/** What a monitor exports of a pair besides its quantiles and its verdict; null where it is not known. */
export function pairValues(evaluation: Evaluation): Values<(typeof PAIR_GAUGES)[number]> {
  const [first] = evaluation.quantiles
  return {
    anomalyCount: evaluation.anomalyCount,
    beyondTraining: first === undefined || first.yMs === null ? null : Number(first.beyondTraining),
    requestsPerSecond: evaluation.requestsPerSecond,
    sampleTimestamp: evaluation.timestampSeconds,
  }
}
