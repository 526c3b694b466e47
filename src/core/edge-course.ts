/* The last half hour of one edge, as the monitors told it poll by poll: asked for when somebody looks, and kept nowhere. */
import { type Metric, MONITOR_GAUGES } from './metric-names.js'
import type { Pair } from './pair.js'
import { promqlString, QUANTILE_LABEL, SERIES_LABEL } from './promql.js'
import { type Verdict, VERDICTS } from './score.js'
import type { Matrix, Series } from './series.js'

export interface EdgeCourse {
  /** Unix seconds, strictly rising. */
  readonly timesSeconds: readonly number[]
  /** `no_data` where none was exported. */
  readonly verdicts: readonly Verdict[]
  readonly quantiles: readonly QuantileCourse[]
}

/** A column each, as long as the times; null where it was not exported. */
export interface QuantileCourse {
  readonly quantile: number
  readonly yMs: readonly (number | null)[]
  readonly yhatMs: readonly (number | null)[]
  readonly yMinMs: readonly (number | null)[]
  readonly yMaxMs: readonly (number | null)[]
  readonly anomalous: readonly (boolean | null)[]
}

const { score, verdict, y, yhat, yMax, yMin } = MONITOR_GAUGES
const GAUGES = { y, yhat, yMin, yMax, score } as const

export const COURSE_SECONDS = 30 * 60
/** Closer points are not told apart on a chart. */
const LEAST_STEP_SECONDS = 5

/** One answer holds all of it. Replicas of a monitor export the same; where they do not, the higher value holds. */
export function edgeCourseQuery({ source, destination }: Pair, pollIntervalMs: number): string {
  const edge = `source=${promqlString(source)},destination=${promqlString(destination)}`
  const part = (name: string, by: string, { name: metric }: Metric, more = ''): string =>
    `label_replace(max by (${by}) (${metric}{${edge}}${more}), "${SERIES_LABEL}", "${name}", "", "")`
  const parts = [
    ...Object.entries(GAUGES).map(([name, metric]) => part(name, QUANTILE_LABEL, metric)),
    part('verdict', 'verdict', verdict, ' == 1'),
  ]
  const stepMs = Math.max(LEAST_STEP_SECONDS * 1000, Math.round(pollIntervalMs))
  return `(${parts.join(' or ')})[${COURSE_SECONDS}s:${stepMs}ms]`
}

/** @param quantiles - those that are scored, in order */
export function readEdgeCourse({ result }: Matrix, quantiles: readonly number[]): EdgeCourse {
  const times = new Set(result.flatMap(({ timesSeconds }) => timesSeconds))
  const timesSeconds = [...times].sort((a, b) => a - b)
  const places = new Map(timesSeconds.map((time, i) => [time, i]))
  const column = (series: Series | undefined): readonly (number | null)[] => {
    const values = timesSeconds.map((): number | null => null)
    series?.values.forEach((value, i) => {
      const place = places.get(series.timesSeconds[i] ?? NaN)
      if (place !== undefined && Number.isFinite(value)) values[place] = Number(value.toPrecision(5))
    })
    return values
  }
  const named = (name: string): readonly Series[] => result.filter(({ labels }) => labels.get(SERIES_LABEL) === name)
  const verdicts = timesSeconds.map((): Verdict => 'no_data')
  for (const series of named('verdict')) {
    const word = VERDICTS.find((each) => each === series.labels.get('verdict'))
    for (const time of series.timesSeconds) verdicts[places.get(time) ?? -1] = word ?? 'no_data'
  }
  return {
    timesSeconds,
    verdicts,
    quantiles: quantiles.map((quantile): QuantileCourse => {
      const of = (name: keyof typeof GAUGES): readonly (number | null)[] =>
        column(named(name).find(({ labels }) => Number(labels.get(QUANTILE_LABEL)) === quantile))
      const yMs = of('y')
      // A band without a sample would look like knowledge of that time.
      const measured = (values: readonly (number | null)[]): readonly (number | null)[] =>
        values.map((value, i) => (yMs[i] == null ? null : value))
      return {
        quantile,
        yMs,
        yhatMs: measured(of('yhat')),
        yMinMs: measured(of('yMin')),
        yMaxMs: measured(of('yMax')),
        anomalous: of('score').map((value) => (value === null ? null : value > 1)),
      }
    }),
  }
}
