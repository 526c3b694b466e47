/*
 * The history of a few edges, put together from the answers to range queries, and what of an edge's own can be trained on.
 */
import { type Model, type Training, trainingOf } from './baseline/model.js'
import { heatSpans } from './edge-heat.js'
import { readMeshRecording } from './mesh-recording.js'
import type { TrainingTrouble } from './metric-names.js'
import { type Pair, pairKey, pairName } from './pair.js'
import { inSpans } from './range-answer.js'
import type { LatencySeries } from './recording.js'
import { type Matrix, type Series, ShapeError } from './series.js'

export interface BatchHistory {
  readonly endSeconds: number
  /** Takes an answer to the training query; answers follow each other in time. @throws {ShapeError} as readMeshRecording */
  take(answer: Matrix): void
  /** Takes an answer to the heat query, likewise. */
  takeHeat(answer: Matrix): void
  /** What an edge can be trained on; asked once for each. */
  readonly trainable: (pair: Pair, options: TrainableOptions) => EdgeTraining | Untrainable
}

export interface TrainableOptions {
  /** Those that are scored: each has to be there. */
  readonly quantiles: readonly number[]
  readonly model: Model
}

/** What is known of all edges of a batch. */
export interface BatchRange {
  readonly sourceLabel: string
  readonly destinationLabel: string
  readonly startSeconds: number
  readonly endSeconds: number
  readonly stepSeconds: number
  /** The rate window of the training query. */
  readonly windowSeconds: number
}

export interface EdgeTraining {
  readonly kind: 'trainable'
  readonly trainings: readonly (readonly [quantile: number, training: Training])[]
  /** Of the quantile that has the fewest: how many samples, and over which time. */
  readonly samples: number
  readonly fromSeconds: number
  readonly toSeconds: number
  /** How many samples were left out for their heat. */
  readonly leftOut: number
  /** When the edge was last hot; null when it never was. */
  readonly lastHotSeconds: number | null
}

export interface Untrainable {
  readonly kind: 'untrainable'
  readonly trouble: TrainingTrouble
  readonly detail: string
  /** How many samples more it takes. */
  readonly missingSamples: number
}

interface GrowingSeries {
  readonly labels: Series['labels']
  readonly timesSeconds: number[]
  readonly values: number[]
}

export function createBatchHistory(range: BatchRange): BatchHistory {
  const byEdge = new Map<string, Map<string, GrowingSeries>>()
  const heat = new Map<string, number[]>()
  return {
    endSeconds: range.endSeconds,
    take: ({ result }) => {
      for (const { labels, timesSeconds, values } of result) {
        const key = keyOf(labels, range.sourceLabel, range.destinationLabel)
        const series = byEdge.get(key) ?? new Map<string, GrowingSeries>()
        byEdge.set(key, series)
        const name = JSON.stringify([...labels].sort(([a], [b]) => (a < b ? -1 : 1)))
        const held = series.get(name) ?? { labels, timesSeconds: [], values: [] }
        series.set(name, held)
        append(held.timesSeconds, timesSeconds)
        append(held.values, values)
      }
    },
    takeHeat: ({ result }) => {
      for (const { labels, timesSeconds } of result) {
        const key = keyOf(labels, 'source', 'destination')
        const held = heat.get(key) ?? []
        heat.set(key, held)
        append(held, timesSeconds)
      }
    },
    trainable: (pair, options) => {
      const key = pairKey(pair)
      const series = byEdge.get(key)
      byEdge.delete(key)
      if (series === undefined) return untrainable('no_history', 'Prometheus has no such series', options)
      try {
        return trainable([...series.values()], { ...options, pair, range, hotSeconds: heat.get(key) ?? [] })
      } catch (error) {
        if (!(error instanceof ShapeError)) throw error
        return untrainable('unusable', error.message, options)
      }
    },
  }
}

/** One by one: a week's samples are more than a call takes arguments. */
function append(held: number[], values: readonly number[]): void {
  for (const value of values) held.push(value)
}

function keyOf(labels: Series['labels'], sourceLabel: string, destinationLabel: string): string {
  return pairKey({ source: labels.get(sourceLabel) ?? '', destination: labels.get(destinationLabel) ?? '' })
}

function untrainable(
  trouble: TrainingTrouble,
  detail: string,
  { model: { minSamples } }: TrainableOptions,
  samples = 0,
): Untrainable {
  return { kind: 'untrainable', trouble, detail, missingSamples: minSamples - samples }
}

/** @throws {ShapeError} when the series contradict each other */
function trainable(
  result: readonly Series[],
  options: TrainableOptions & {
    readonly pair: Pair
    readonly range: BatchRange
    readonly hotSeconds: readonly number[]
  },
): EdgeTraining | Untrainable {
  const { quantiles, model, pair, range, hotSeconds } = options
  // The request rate of an edge that never had a latency makes no recording.
  if (result.every(({ labels }) => labels.has('series'))) {
    return untrainable('no_history', 'no request in the range', options)
  }
  const { edges, unusable } = readMeshRecording({ resultType: 'matrix', result, warnings: 0, reordered: 0 }, range)
  const [edge] = edges
  if (edge === undefined) return untrainable('unusable', unusable[0]?.reason ?? 'no recording', options)
  const spans = heatSpans(hotSeconds, range)
  const trainings: [number, Training][] = []
  let fewest: EdgeTraining | null = null
  for (const quantile of quantiles) {
    // A query of one's own may leave its one quantile unsaid.
    const series = edge.recording.series.find(
      (one) => one.quantile === quantile || (one.quantile === null && quantiles.length === 1),
    )
    const whole = samplesIn(series)
    if (series === undefined || whole === 0) return untrainable('no_history', 'no request in the range', options)
    const calm: LatencySeries = {
      ...series,
      latenciesMs: series.latenciesMs.map((value, i) => (inSpans(spans, series.timesSeconds[i] ?? 0) ? NaN : value)),
    }
    const samples = samplesIn(calm)
    if (samples < model.minSamples) {
      const wanted = `${model.name} takes at least ${model.minSamples} samples`
      return whole < model.minSamples
        ? untrainable('too_short', `${wanted}, there are ${whole}`, options, whole)
        : untrainable('incident', `${wanted}, ${samples} of ${whole} are left without its incidents`, options, samples)
    }
    const training = trainingOf(calm, model, pairName(pair))
    trainings.push([quantile, training])
    if (fewest === null || samples < fewest.samples) {
      fewest = {
        kind: 'trainable',
        trainings,
        samples,
        fromSeconds: training.timesSeconds[0] ?? range.startSeconds,
        toSeconds: training.timesSeconds.at(-1) ?? range.endSeconds,
        leftOut: whole - samples,
        lastHotSeconds: hotSeconds.at(-1) ?? null,
      }
    }
  }
  return fewest ?? untrainable('no_history', 'no quantile is scored', options)
}

function samplesIn(series: LatencySeries | undefined): number {
  return series === undefined ? 0 : series.latenciesMs.reduce((sum, value) => sum + Number(Number.isFinite(value)), 0)
}
