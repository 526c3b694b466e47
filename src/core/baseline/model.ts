import { RecordingError } from '../errors.js'
import type { LatencySeries } from '../recording.js'

/** What normal looks like, to fit a baseline on. Arrays of one length, at least MIN_TRAINING_SAMPLES. */
export interface Training {
  /** Unix seconds, strictly rising; gaps are allowed. */
  readonly timesSeconds: readonly number[]
  /** Milliseconds, all finite, at least 0. */
  readonly latenciesMs: readonly number[]
  /** Requests per second, NaN where unknown; null when none were recorded. */
  readonly requestsPerSecond: readonly number[] | null
}

/** A way to say what is normal. Only what `fit` returns can be asked, and only through a watch. */
export interface Model {
  readonly name: string
  /** Fewer samples say nothing about what is normal. */
  readonly minSamples: number
  readonly fit: (training: Training) => Fitted | Promise<Fitted>
  /** What `fit` finds, as plain data: another thread may look for it. */
  readonly parametersOf: (training: Training) => unknown
  /** @param parameters - those that `parametersOf` found, or a structured clone of them */
  readonly fittedFrom: (parameters: unknown) => Fitted
}

/** @param parts - `parametersOf` gives plain data */
export function createModel<P>(
  parts: Pick<Model, 'name' | 'minSamples'> & {
    readonly parametersOf: (training: Training) => P | Promise<P>
    readonly fittedFrom: (parameters: P) => Fitted
  },
): Model {
  const { parametersOf, fittedFrom } = parts
  return {
    ...parts,
    fit: (training) => {
      const parameters = parametersOf(training)
      return parameters instanceof Promise ? parameters.then(fittedFrom) : fittedFrom(parameters)
    },
    fittedFrom: (parameters) => fittedFrom(parameters as P),
  }
}

export interface Fitted {
  /** What was found in the training, in words, for the log. */
  readonly summary: string
  /** Starts watching a stream. One for each series. */
  readonly watch: () => Watch
}

/** Judges one stream, sample by sample in time order. What it remembers of it is bounded in size and in effect. */
export interface Watch {
  judge(observation: Observation): Judgement
}

export interface Observation {
  /** Unix seconds. */
  readonly timestampSeconds: number
  /** Milliseconds, at least 0; null when the sample is missing: what is normal can be asked all the same. */
  readonly latencyMs: number | null
  /** Null where unknown. */
  readonly requestsPerSecond: number | null
}

/** What is normal at one time: yMinMs <= yhatMs <= yMaxMs, all finite, yMinMs at least 0. */
export interface Expectation {
  readonly yhatMs: number
  readonly yMinMs: number
  readonly yMaxMs: number
}

export interface Judgement extends Expectation {
  /** Where the latency lies: 0 on yhat, 1 on the upper edge of the band, -1 on the lower one. 0 when it is missing. */
  readonly deviation: number
  /** Live normal latency over the training's, as far as the model follows it; null when it does not. */
  readonly driftRatio: number | null
  /** True when there is more traffic than the training saw, and the band is wider for it. */
  readonly beyondTraining: boolean
}

/** A latency this close to the edge of a band has an infinite deviation otherwise. */
const MIN_HALF_WIDTH_MS = 1e-9

/** Where a latency lies in a band: linear on either side of yhat. */
export function deviationIn({ yhatMs, yMinMs, yMaxMs }: Expectation, latencyMs: number | null): number {
  if (latencyMs === null) return 0
  const halfWidthMs = latencyMs >= yhatMs ? yMaxMs - yhatMs : yhatMs - yMinMs
  return (latencyMs - yhatMs) / Math.max(MIN_HALF_WIDTH_MS, halfWidthMs)
}

/**
 * The samples of a recorded series that can be trained on.
 *
 * @throws {RecordingError} when there are too few; `what` names the file and the series
 */
export function trainingOf(series: LatencySeries, { name, minSamples }: Model, what: string): Training {
  const kept = series.latenciesMs.flatMap((latencyMs, i) => (Number.isFinite(latencyMs) ? [i] : []))
  if (kept.length === 0) {
    throw new RecordingError(`${what}: no finite value in ${series.latenciesMs.length} samples; ${HOW_TO}`)
  }
  if (kept.length < minSamples) {
    throw new RecordingError(
      `${what}: too few values to train ${name} on: at least ${minSamples} needed, got ${kept.length}, ${minSamples - kept.length} more; ${HOW_TO}`,
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
