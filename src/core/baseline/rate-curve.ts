import { clamp } from './robust-error.js'

/** Log rates closer than this (10 %) share a bin, */
const BIN_WIDTH = 0.1
/** or closer than this share of the range, */
const MAX_BINS = 16
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
 * make a queue shorter.
 */
export interface RateCurve {
  /**
   * For each node its log rate, its log latency and the standard deviation of a sample around it, in turn: one array, since a
   * mesh keeps thousands of curves. At least one node; rates and latencies rise.
   */
  readonly nodes: Float32Array
  /** The busiest sample of the training. */
  readonly busiestLogRate: number
  /** What traffic beyond the last node may cost at most, log latency per log rate: twice the slope of the last doubling, at least 1. */
  readonly steepness: number
}

const PARTS = 3

export interface Fit {
  /** Its scatter is still to be found: 0. */
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
  const width = Math.max(BIN_WIDTH, (busiestLogRate - logRates[byRate[0]!]!) / MAX_BINS)
  const residuals = new Float64Array(n)
  for (let block = 0, i = 0; block < FOLDS; block++) {
    const nodes = poolBins(without(block), { logLatencies, logRates, width })
    for (; i < n && blockOf(i) === block; i++) {
      residuals[i] = nodes.length === 0 ? NaN : logLatencies[i]! - interpolate(nodes, logRates[i]!, busiestLogRate)
    }
  }
  const nodes = poolBins(byRate, { logLatencies, logRates, width })
  return { curve: { nodes: Float32Array.from(nodes), busiestLogRate, steepness: steepnessOf(nodes) }, residuals }
}

type Nodes = ArrayLike<number>

function poolBins(
  order: readonly number[],
  {
    logLatencies,
    logRates,
    width,
  }: { readonly logLatencies: ArrayLike<number>; readonly logRates: ArrayLike<number>; readonly width: number },
): Nodes {
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
    if (bin !== undefined && bin.count >= MIN_IN_BIN && logRate - bin.fromLogRate > width) {
      push(bin)
      bin = undefined
    }
    bin ??= { fromLogRate: logRate, latencySum: 0, rateSum: 0, count: 0 }
    bin.latencySum += logLatencies[i]!
    bin.rateSum += logRate
    bin.count++
  }
  if (bin !== undefined) push(bin)
  return pooled.flatMap(({ rateSum, latencySum, count }) => [rateSum / count, latencySum / count, 0])
}

function rateOf(nodes: Nodes, node: number): number {
  return nodes[PARTS * node]!
}

function latencyOf(nodes: Nodes, node: number): number {
  return nodes[PARTS * node + 1]!
}

function lastOf(nodes: Nodes): number {
  return nodes.length / PARTS - 1
}

function slope(nodes: Nodes, from: number, to: number): number {
  return (latencyOf(nodes, to) - latencyOf(nodes, from)) / Math.max(1e-6, rateOf(nodes, to) - rateOf(nodes, from))
}

function steepnessOf(nodes: Nodes): number {
  const last = lastOf(nodes)
  let from = last
  while (from > 0 && rateOf(nodes, last) - rateOf(nodes, from) < Math.LN2) from--
  return last > 0 ? Math.max(1, 2 * slope(nodes, from, last)) : 1
}

/** Expected log latency. Flat below the first node; beyond the last one its slope goes on up to the busiest sample. */
export function expectedLogLatency({ nodes, busiestLogRate }: RateCurve, logRate: number): number {
  return interpolate(nodes, logRate, busiestLogRate)
}

function interpolate(nodes: Nodes, logRate: number, busiestLogRate: number): number {
  const last = lastOf(nodes)
  const lastRate = rateOf(nodes, last)
  if (logRate <= rateOf(nodes, 0)) return latencyOf(nodes, 0)
  if (logRate >= lastRate) {
    if (last === 0) return latencyOf(nodes, 0)
    const beyond = Math.min(logRate, Math.max(busiestLogRate, lastRate)) - lastRate
    return latencyOf(nodes, last) + clamp(slope(nodes, last - 1, last), 0, MAX_SLOPE) * beyond
  }
  const below = nodeBelow(nodes, logRate)
  return latencyOf(nodes, below) + slope(nodes, below, below + 1) * (logRate - rateOf(nodes, below))
}

/** The extra log latency that traffic beyond the training may cost: 0 within what the training saw. */
export function beyondTraining({ nodes, steepness }: RateCurve, logRate: number): number {
  return steepness * Math.max(0, logRate - rateOf(nodes, lastOf(nodes)))
}

export function nodesOf({ nodes }: RateCurve): number {
  return nodes.length / PARTS
}

/** Index of the node closest to a log rate. */
export function nearestNode({ nodes }: RateCurve, logRate: number): number {
  if (nodes.length === PARTS) return 0
  const below = nodeBelow(nodes, logRate)
  return logRate - rateOf(nodes, below) < rateOf(nodes, below + 1) - logRate ? below : below + 1
}

/** Standard deviation of a sample around the curve. */
export function scatterAt(curve: RateCurve, logRate: number): number {
  return curve.nodes[PARTS * nearestNode(curve, logRate) + 2]!
}

/** @param sigmas - one for each node */
export function withScatter(curve: RateCurve, sigmas: readonly number[]): RateCurve {
  return { ...curve, nodes: curve.nodes.map((part, i) => (i % PARTS === 2 ? sigmas[(i - 2) / PARTS]! : part)) }
}

function nodeBelow(nodes: Nodes, logRate: number): number {
  let low = 0
  let high = lastOf(nodes)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (rateOf(nodes, middle) <= logRate) low = middle
    else high = middle
  }
  return low
}
