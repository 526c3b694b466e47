import { RecordingError } from '../errors.js'
import type { LatencySeries } from '../recording.js'
import { robustBand } from './robust-band.js'

/** What normal looks like, to fit a baseline on. Arrays of one length, at least MIN_TRAINING_SAMPLES. */
export interface Training {
  /** Unix seconds, strictly rising; gaps are allowed. */
  readonly timesSeconds: readonly number[]
  /** Milliseconds, all finite, at least 0. */
  readonly latenciesMs: readonly number[]
  /** Requests per second, NaN where unknown; null when none were recorded. */
  readonly requestsPerSecond: readonly number[] | null
}

/** What is normal at one time: yMinMs <= yhatMs <= yMaxMs, all finite, yMinMs at least 0. */
export interface Expectation {
  readonly yhatMs: number
  readonly yMinMs: number
  readonly yMaxMs: number
}

/** A way to say what is normal. Only what `fit` returns can be asked. */
export interface Model {
  readonly name: string
  readonly fit: (training: Training) => Fitted
}

export interface Fitted {
  /** @param timestampSeconds - unix seconds, at or after the last time asked for */
  readonly expect: (timestampSeconds: number) => Expectation
}

export const MODELS = [robustBand] as const satisfies readonly Model[]
export const DEFAULT_MODEL = robustBand

/** Fewer samples say nothing about what is normal. */
export const MIN_TRAINING_SAMPLES = 30

/**
 * The samples of a recorded series that can be trained on.
 *
 * @throws {RecordingError} when there are too few; `what` names the file and the series
 */
export function trainingOf(series: LatencySeries, what: string): Training {
  const kept = series.latenciesMs.flatMap((latencyMs, i) => (Number.isFinite(latencyMs) ? [i] : []))
  if (kept.length === 0)
    throw new RecordingError(`${what}: no finite value in ${series.latenciesMs.length} samples; ${HOW_TO}`)
  if (kept.length < MIN_TRAINING_SAMPLES) {
    throw new RecordingError(
      `${what}: too few values to train on: at least ${MIN_TRAINING_SAMPLES} needed, got ${kept.length}; ${HOW_TO}`,
    )
  }
  const pick = (values: readonly number[]): number[] => kept.map((i) => values[i] ?? NaN)
  return {
    timesSeconds: pick(series.timesSeconds),
    latenciesMs: pick(series.latenciesMs),
    requestsPerSecond: series.requestsPerSecond === null ? null : pick(series.requestsPerSecond),
  }
}

export const HOW_TO =
  'record a good one with: meshfever record --service1 A --service2 B --prometheus-url URL --range 1h --output FILE.json'
