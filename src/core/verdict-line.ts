import { type Fields, fieldsAt, listAt, numberAt, numberOrNullAt, oneOfAt, pairAt } from './json-fields.js'
import type { Pair } from './pair.js'
import type { Reading } from './reading.js'
import { type Evaluation, type ScoredQuantile, type Verdict, VERDICTS } from './score.js'

/** What the monitor logs of one quantile that had a latency. */
export type LoggedQuantile = Pick<
  ScoredQuantile,
  'quantile' | 'yhatMs' | 'yMinMs' | 'yMaxMs' | 'maeMs' | 'mape' | 'score'
> & {
  readonly yMs: number
  /** Said when it is so: the band is wider than the training alone would make it. */
  readonly beyondTraining?: true
  /** Said when it is so: the latency may be any amount worse. */
  readonly saturated?: true
}

/** What the monitor logs of one poll: all that scoring had and said, so that a log can be scored again. */
export interface VerdictLine extends Pair {
  /** When Prometheus evaluated the query, unix seconds; null when it did not answer, or not with a time. */
  readonly timestampSeconds: number | null
  readonly verdict: Verdict
  readonly anomalyCount: number | null
  readonly requestsPerSecond: number | null
  /** Those that had a latency. */
  readonly quantiles: readonly LoggedQuantile[]
}

export function verdictLine({ source, destination }: Pair, reading: Reading, evaluation: Evaluation): VerdictLine {
  const { verdict, anomalyCount, requestsPerSecond, quantiles } = evaluation
  const { timestampSeconds } = reading.kind === 'sample' ? reading.sample : reading
  return {
    source,
    destination,
    timestampSeconds,
    verdict,
    anomalyCount,
    requestsPerSecond,
    quantiles: quantiles.flatMap(({ yMs, ...scored }) => (yMs === null ? [] : [loggedQuantile(yMs, scored)])),
  }
}

function loggedQuantile(yMs: number, scored: Omit<ScoredQuantile, 'yMs'>): LoggedQuantile {
  const { quantile, yhatMs, yMinMs, yMaxMs, maeMs, mape, score, saturated, beyondTraining } = scored
  return {
    quantile,
    yMs,
    yhatMs,
    yMinMs,
    yMaxMs,
    maeMs,
    mape,
    score,
    ...(beyondTraining ? { beyondTraining } : {}),
    ...(saturated ? { saturated } : {}),
  }
}

/** What the monitor had read when it logged a line, as far as scoring looks at it. */
export function readingOf({ timestampSeconds, requestsPerSecond, quantiles }: VerdictLine): Reading {
  const latencies = quantiles.map(({ quantile, yMs }) => ({ quantile, latencyMs: yMs }))
  return timestampSeconds === null || latencies.length === 0
    ? { kind: 'missing', outcome: 'nonfinite', detail: 'as logged', timestampSeconds, requestsPerSecond }
    : { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies, requestsPerSecond } }
}

/**
 * A logged line, read back. Its numbers are those that were logged, bit for bit.
 *
 * @throws {UsageError} naming the place that is not as logged
 */
export function parseVerdictLine(line: Fields): VerdictLine {
  return {
    ...pairAt(line),
    timestampSeconds: numberOrNullAt(line, 'timestampSeconds'),
    verdict: oneOfAt(line, 'verdict', VERDICTS),
    anomalyCount: numberOrNullAt(line, 'anomalyCount'),
    requestsPerSecond: numberOrNullAt(line, 'requestsPerSecond'),
    quantiles: listAt(line, 'quantiles').map((item, i) => {
      const logged = fieldsAt(item, `${line.place}: quantiles[${i}]`)
      return {
        quantile: numberAt(logged, 'quantile'),
        yMs: numberAt(logged, 'yMs'),
        yhatMs: numberAt(logged, 'yhatMs'),
        yMinMs: numberAt(logged, 'yMinMs'),
        yMaxMs: numberAt(logged, 'yMaxMs'),
        maeMs: numberOrNullAt(logged, 'maeMs'),
        mape: numberOrNullAt(logged, 'mape'),
        score: numberOrNullAt(logged, 'score'),
        ...(logged.values['beyondTraining'] === true ? { beyondTraining: true } : {}),
        ...(logged.values['saturated'] === true ? { saturated: true } : {}),
      }
    }),
  }
}
