/*
 * Which edges are asked for together, how much at once, and when an edge is trained again.
 */
import type { EdgeBatch } from './mesh-query.js'
import type { TrainingOutcome } from './metric-names.js'
import type { Pair } from './pair.js'

/** What a sample takes in an answer: `[1700000000,"12.345678901234567"],`. */
const SAMPLE_BYTES = 34
/** An answer of this size is some milliseconds of work for the thread that serves. */
const ANSWER_BYTES = 4 * 2 ** 20
/** Samples of a batch that are held until it is fitted: some 40 MB. */
const BATCH_SAMPLES = 1_000_000
/** Prometheus holds a few thousand series for so many. */
const MOST_EDGES = 20

/** @param options.points - of the range; @param options.seriesPerEdge - that the query answers */
export function edgesPerBatch({
  points,
  seriesPerEdge,
}: {
  readonly points: number
  readonly seriesPerEdge: number
}): number {
  return Math.min(MOST_EDGES, Math.max(1, Math.floor(BATCH_SAMPLES / (points * seriesPerEdge))))
}

/** How much of the range is asked for at once. */
export function pointsPerAnswer(series: number): number {
  return Math.max(1, Math.floor(ANSWER_BYTES / SAMPLE_BYTES / series))
}

/** The edges, each once, as batches of one source each. */
export function batchesOf(edges: Iterable<Pair>, mostEdges: number): readonly EdgeBatch[] {
  const bySource = new Map<string, string[]>()
  for (const { source, destination } of edges) {
    const destinations = bySource.get(source) ?? []
    bySource.set(source, destinations)
    destinations.push(destination)
  }
  return [...bySource].flatMap(([source, destinations]) =>
    Array.from({ length: Math.ceil(destinations.length / mostEdges) }, (_, i) => ({
      source,
      destinations: destinations.slice(i * mostEdges, (i + 1) * mostEdges),
    })),
  )
}

export function halves({ source, destinations }: EdgeBatch): readonly EdgeBatch[] {
  const middle = Math.ceil(destinations.length / 2)
  return [destinations.slice(0, middle), destinations.slice(middle)].map((half) => ({ source, destinations: half }))
}

/** An edge that cannot be trained yet is tried again after this, then after twice as long, and so on. */
const FIRST_WAIT_SECONDS = 600
const LONGEST_WAIT_SECONDS = 6 * 3_600
/** An edge that was hot more recently keeps its baseline. */
export const CALM_SECONDS = 1_800

/**
 * How long an edge is left alone after a try. A short history is taken again when it has doubled.
 *
 * @param options.retrainSeconds - the interval that was asked for; null for never
 * @param options.spanSeconds - how much time the training covers
 * @param options.missingSeconds - how much more history it takes at least
 */
export function waitSeconds(
  outcome: TrainingOutcome,
  options: {
    readonly retrainSeconds: number | null
    readonly lastWaitSeconds: number
    readonly spanSeconds?: number
    readonly missingSeconds?: number
  },
): number {
  const { retrainSeconds, lastWaitSeconds, spanSeconds = Infinity, missingSeconds = 0 } = options
  if (outcome === 'fitted') {
    return retrainSeconds === null ? Infinity : Math.min(retrainSeconds, Math.max(spanSeconds, FIRST_WAIT_SECONDS))
  }
  if (outcome === 'kept') return Math.min(retrainSeconds ?? Infinity, CALM_SECONDS)
  const doubled = Math.min(LONGEST_WAIT_SECONDS, Math.max(FIRST_WAIT_SECONDS, 2 * lastWaitSeconds))
  return outcome === 'too_short' ? Math.max(FIRST_WAIT_SECONDS, missingSeconds) : doubled
}
