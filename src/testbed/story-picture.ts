import type { GroundTruth } from '../core/ground-truth.js'
import type { Severity, WatchedPair } from '../core/incident.js'
import type { Pair } from '../core/pair.js'
import type { Matrix } from '../core/series.js'
import { overviewSvg } from '../report/pictures.js'
import type { ReportedPair, ReportedPoll } from '../report/report.js'

/** Gauges of both daemons over the story, as Prometheus has them. */
export const PICTURE_QUERY =
  '{__name__=~"lab7_(y|yhat|y_min|y_max|anomaly_count|incident_accumulator|incident_temperature|incident_severity)"}'

/** The quantile that a monitor scores unless told. */
const QUANTILE = 0.5

/** Latency in its band for each pair, and the incident under them, as SVG. */
export function storyPicture(options: {
  readonly matrix: Matrix
  readonly pairs: readonly WatchedPair[]
  readonly startSeconds: number
  readonly endSeconds: number
  readonly groundTruth: GroundTruth
  readonly incidentThreshold: number
  readonly clearThreshold: number
}): Promise<string> {
  const { matrix, pairs, ...report } = options
  return overviewSvg({
    title: 'meshfever demo',
    summary: [],
    partial: false,
    pairs: pairs.map((pair) => reportedPair(matrix, pair)),
    polls: pollsOf(matrix, pairs),
    transitions: [],
    tables: [],
    tradeOffs: [],
    ...report,
  })
}

/** The values of a gauge by time; of one pair's where it has labels. */
function gauge(matrix: Matrix, name: string, pair?: Pair): ReadonlyMap<number, number> {
  const series = matrix.result.find(
    ({ labels }) =>
      labels.get('__name__') === name &&
      (pair === undefined || (labels.get('source') === pair.source && labels.get('destination') === pair.destination)),
  )
  return new Map(series?.timesSeconds.map((seconds, i) => [seconds, series.values[i] ?? NaN]))
}

function reportedPair(matrix: Matrix, { accumulatorThreshold, ...pair }: WatchedPair): ReportedPair {
  const [y, yhat, low, high, count] = ['lab7_y', 'lab7_yhat', 'lab7_y_min', 'lab7_y_max', 'lab7_anomaly_count'].map(
    (name) => gauge(matrix, name, pair),
  )
  const times = [...new Set([...(y?.keys() ?? []), ...(high?.keys() ?? [])])].sort((a, b) => a - b)
  const points = times.map((timestampSeconds) => {
    const yMs = y?.get(timestampSeconds) ?? null
    const isAnomalous = (count?.get(timestampSeconds) ?? 0) > 0
    return {
      timestampSeconds,
      yMs,
      yhatMs: yhat?.get(timestampSeconds) ?? null,
      yMinMs: low?.get(timestampSeconds) ?? null,
      yMaxMs: high?.get(timestampSeconds) ?? null,
      verdict: yMs === null ? ('no_data' as const) : isAnomalous ? ('anomalous' as const) : ('ok' as const),
    }
  })
  return { pair, quantile: QUANTILE, points, accumulatorThreshold }
}

function pollsOf(matrix: Matrix, pairs: readonly Pair[]): readonly ReportedPoll[] {
  const severities = gauge(matrix, 'lab7_incident_severity')
  const accumulators = pairs.map((pair) => gauge(matrix, 'lab7_incident_accumulator', pair))
  return [...gauge(matrix, 'lab7_incident_temperature')].map(([timestampSeconds, temperature]) => ({
    timestampSeconds,
    accumulators: accumulators.map((levels) => levels.get(timestampSeconds) ?? NaN),
    temperature,
    severity: severityOf(severities.get(timestampSeconds)),
  }))
}

function severityOf(value: number | undefined): Severity | null {
  return value === 1 || value === 2 ? value : null
}
