import { clamp } from './robust-error.js'

/** Log rates closer than this (10 %) share a bin, */
const BIN_WIDTH = 0.1
/** and a bin holds at least so many samples. */
const MIN_IN_BIN = 12

/** The recording is cut into so many blocks; each is predicted by the others. */
const FOLDS = 8

/** Queueing is steep, but no steeper than the square of the traffic between the last two bins. */
const MAX_SLOPE = 2

/** Lower rates are all alike; it also keeps the logarithm of 0 away. */
const MIN_REQUESTS_PER_SECOND = 1e-3

/**
 * Expected log latency over log request rate: linear between nodes, never falling with traffic, since more requests do not
 * make a queue shorter. Node arrays are of one length, at least 1, rising.
 */
export interface RateCurve {
  readonly logRates: readonly number[]
  readonly logLatencies: readonly number[]
  /** The busiest sample of the training. */
  readonly busiestLogRate: number
  /** What traffic beyond the last node may cost at most, log latency per log rate: twice the slope of the last doubling, at least 1. */
  readonly steepness: number
}

export interface Fit {
  readonly curve: RateCurve
  /** Log latency minus what the other blocks of the recording predict for it; NaN where they say nothing. */
  readonly residuals: Float64Array
}

export function logRateOf(requestsPerSecond: number): number {
  return Math.log(Math.max(requestsPerSecond, MIN_REQUESTS_PER_SECOND))
}

/** Bins of log rate, made monotone by pooling adjacent violators (Ayer et al., Ann. Math. Statist. 26, 1955). */
export function fitRateCurve(samples: {
  readonly timesSeconds: ArrayLike<number>
  readonly logLatencies: ArrayLike<number>
  readonly logRates: ArrayLike<number>
}): Fit {
  const { timesSeconds, logLatencies, logRates } = samples
  const n = timesSeconds.length
  const byRate = Array.from({ length: n }, (_, i) => i).sort((a, b) => logRates[a]! - logRates[b]!)
  const startSeconds = timesSeconds[0]!
  const blockSeconds = (timesSeconds[n - 1]! - startSeconds + 1) / FOLDS
  const blockOf = (i: number): number => Math.floor((timesSeconds[i]! - startSeconds) / blockSeconds)
  const without = (block: number): readonly number[] => byRate.filter((i) => blockOf(i) !== block)
  const busiestLogRate = logRates[byRate[n - 1]!]!
  const residuals = new Float64Array(n)
  for (let block = 0, i = 0; block < FOLDS; block++) {
    const nodes = poolBins(without(block), logLatencies, logRates)
    for (; i < n && blockOf(i) === block; i++) {
      residuals[i] =
        nodes.logRates.length === 0 ? NaN : logLatencies[i]! - interpolate(nodes, logRates[i]!, busiestLogRate)
    }
  }
  const nodes = poolBins(byRate, logLatencies, logRates)
  return { curve: { ...nodes, busiestLogRate, steepness: steepnessOf(nodes) }, residuals }
}

type Nodes = Pick<RateCurve, 'logRates' | 'logLatencies'>

function poolBins(order: readonly number[], logLatencies: ArrayLike<number>, logRates: ArrayLike<number>): Nodes {
  interface Bin {
    readonly fromLogRate: number
    latencySum: number
    rateSum: number
    count: number
  }
  const pooled: Bin[] = []
  const push = (bin: Bin): void => {
    pooled.push(bin)
    for (let upper = pooled.at(-1)!, lower = pooled.at(-2); lower !== undefined; upper = lower, lower = pooled.at(-2)) {
      if (upper.latencySum / upper.count >= lower.latencySum / lower.count) break
      lower.latencySum += upper.latencySum
      lower.rateSum += upper.rateSum
      lower.count += upper.count
      pooled.pop()
    }
  }
  let bin: Bin | undefined
  for (const i of order) {
    const logRate = logRates[i]!
    if (bin !== undefined && bin.count >= MIN_IN_BIN && logRate - bin.fromLogRate > BIN_WIDTH) {
      push(bin)
      bin = undefined
    }
    bin ??= { fromLogRate: logRate, latencySum: 0, rateSum: 0, count: 0 }
    bin.latencySum += logLatencies[i]!
    bin.rateSum += logRate
    bin.count++
  }
  if (bin !== undefined) push(bin)
  return {
    logRates: pooled.map(({ rateSum, count }) => rateSum / count),
    logLatencies: pooled.map(({ latencySum, count }) => latencySum / count),
  }
}

function steepnessOf({ logRates, logLatencies }: Nodes): number {
  const last = logRates.length - 1
  let from = last
  while (from > 0 && logRates[last]! - logRates[from]! < Math.LN2) from--
  return last > 0
    ? Math.max(1, (2 * (logLatencies[last]! - logLatencies[from]!)) / (logRates[last]! - logRates[from]!))
    : 1
}

/** Expected log latency. Flat below the first node; beyond the last one its slope goes on up to the busiest sample. */
export function expectedLogLatency(curve: RateCurve, logRate: number): number {
  return interpolate(curve, logRate, curve.busiestLogRate)
}

function interpolate({ logRates, logLatencies }: Nodes, logRate: number, busiestLogRate: number): number {
  const last = logRates.length - 1
  if (logRate <= logRates[0]!) return logLatencies[0]!
  if (logRate >= logRates[last]!) {
    if (last === 0) return logLatencies[0]!
    const run = Math.max(1e-6, logRates[last]! - logRates[last - 1]!)
    const slope = clamp((logLatencies[last]! - logLatencies[last - 1]!) / run, 0, MAX_SLOPE)
    return (
      logLatencies[last]! + slope * (Math.min(logRate, Math.max(busiestLogRate, logRates[last]!)) - logRates[last]!)
    )
  }
  const below = nodeBelow(logRates, logRate)
  const share = (logRate - logRates[below]!) / (logRates[below + 1]! - logRates[below]!)
  return logLatencies[below]! + share * (logLatencies[below + 1]! - logLatencies[below]!)
}

/** The extra log latency that traffic beyond the training may cost: 0 within what the training saw. */
export function beyondTraining({ logRates, steepness }: RateCurve, logRate: number): number {
  return steepness * Math.max(0, logRate - logRates.at(-1)!)
}

/** Index of the node closest to a log rate. */
export function nearestNode({ logRates }: RateCurve, logRate: number): number {
  if (logRates.length < 2) return 0
  const below = nodeBelow(logRates, logRate)
  return logRate - logRates[below]! < logRates[below + 1]! - logRate ? below : below + 1
}

function nodeBelow(rising: readonly number[], value: number): number {
  let low = 0
  let high = rising.length - 1
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (rising[middle]! <= value) low = middle
    else high = middle
  }
  return low
}
