import { QUANTILE_LABEL, REQUESTS_PER_SECOND, SERIES_LABEL } from './promql.js'
import { isRate, MAX_LATENCY_MS } from './reading.js'
import { type Matrix, type Series, ShapeError } from './series.js'

/** Latency of one quantile of a pair over time, with the request rate where it was recorded. Arrays of one length. */
export interface LatencySeries {
  /** Null when the recording does not say which. */
  readonly quantile: number | null
  /** Unix seconds, strictly rising. */
  readonly timesSeconds: readonly number[]
  /** Milliseconds in [0, MAX_LATENCY_MS], NaN where the sample is missing. */
  readonly latenciesMs: readonly number[]
  /** Requests per second, NaN where unknown. Null when the recording has none. */
  readonly requestsPerSecond: readonly number[] | null
}

/** What `record` saved, or anyone's saved answer of /api/v1/query_range. */
export interface Recording {
  /** At least one, by rising quantile. */
  readonly series: readonly LatencySeries[]
  /** Samples that were out of order or stood twice; of two values for one time the later in the file holds. */
  readonly reordered: number
  /** Values no latency can have (negative, infinite, beyond MAX_LATENCY_MS), by series read as missing. */
  readonly rejected: number
}

/**
 * Latency series and request rate of one pair, told apart by their labels.
 *
 * @throws {ShapeError} when there is no latency, or two series claim the same quantile
 */
export function readRecording(matrix: Matrix): Recording {
  const rates = matrix.result.filter(({ labels }) => labels.get(SERIES_LABEL) === REQUESTS_PER_SECOND)
  const latencies = matrix.result.filter(({ labels }) => !labels.has(SERIES_LABEL))
  if (latencies.length === 0) {
    throw new ShapeError('bad_shape', 'data.result: expected at least one latency series, got none')
  }
  if (rates.length > 1) {
    throw new ShapeError('bad_shape', `data.result: expected one request rate at most, got ${rates.length}`)
  }
  const rateAt = rates[0] === undefined ? null : byTime(rates[0])
  let rejected = 0
  const series = latencies.map(({ labels, timesSeconds, values }): LatencySeries => {
    const latenciesMs = values.map((value) => {
      if (Number.isNaN(value)) return NaN
      if (value >= 0 && value <= MAX_LATENCY_MS) return value
      rejected++
      return NaN
    })
    return {
      quantile: quantileOf(labels),
      timesSeconds,
      latenciesMs,
      requestsPerSecond:
        rateAt === null
          ? null
          : timesSeconds.map((time) => {
              const rate = rateAt.get(time)
              return isRate(rate) ? rate : NaN
            }),
    }
  })
  series.sort((a, b) => (a.quantile ?? 0) - (b.quantile ?? 0))
  series.forEach(({ quantile }, i) => {
    if (i > 0 && quantile === series[i - 1]?.quantile) {
      const sets = latencies.slice(0, 5).map(({ labels }) => JSON.stringify(Object.fromEntries(labels)))
      throw new ShapeError(
        'bad_shape',
        `data.result: expected one latency series per quantile, got ${latencies.length}: ${sets.join(', ')}`,
      )
    }
  })
  return { series, reordered: matrix.reordered, rejected }
}

function quantileOf(labels: ReadonlyMap<string, string>): number | null {
  const label = labels.get(QUANTILE_LABEL)
  if (label === undefined) return null
  const quantile = Number(label)
  if (!(quantile > 0 && quantile < 1)) {
    throw new ShapeError(
      'bad_shape',
      `data.result: expected a ${QUANTILE_LABEL} label between 0 and 1, got ${JSON.stringify(label)}`,
    )
  }
  return quantile
}

function byTime({ timesSeconds, values }: Series): ReadonlyMap<number, number> {
  return new Map(timesSeconds.map((time, i) => [time, values[i] ?? NaN]))
}
