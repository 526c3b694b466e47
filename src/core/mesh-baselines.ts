import { type Pair, pairKey } from './pair.js'
import type { Watches } from './score.js'

/** Where watches come from. They are fitted elsewhere, never while an answer is read or scored. */
export interface BaselineSource {
  /**
   * The newest watches of an edge, the same ones until they are made anew; null while there are none.
   *
   * @throws what ended the fitting, which is a bug
   */
  readonly watchesOf: (edge: Pair) => Watches | null
  /** Changes when watchesOf may answer otherwise than before: only then is it asked again. */
  readonly version: () => number
  /** False while the first baselines are being fitted. */
  readonly ready: () => boolean
}

/** What the watches of an edge were made of. */
export interface BaselineFacts {
  /** Of the quantile that has the fewest. */
  readonly samples: number
  /** When they were made, unix seconds. */
  readonly fittedSeconds: number
}

export interface BaselineSummary {
  readonly edges: number
  readonly samples: number
  /** When the oldest were made, unix seconds; null while there are none. */
  readonly oldestSeconds: number | null
}

export interface BaselineStore extends BaselineSource {
  /** From now on the edge is watched by these. */
  put(edge: Pair, watches: Watches, facts: BaselineFacts): void
  /** From now on the edge has none. */
  remove(edge: Pair): void
  /** The first baselines are all there. */
  complete(): void
  /** Whoever asks from now on gets this error. */
  fail(error: unknown): void
  readonly size: () => number
  readonly summary: () => BaselineSummary
}

export function createBaselineStore(): BaselineStore {
  const byEdge = new Map<string, BaselineFacts & { readonly watches: Watches }>()
  let version = 0
  let ready = false
  let failure: Error | null = null
  return {
    watchesOf: (edge) => {
      if (failure !== null) throw failure
      return byEdge.get(pairKey(edge))?.watches ?? null
    },
    version: () => version,
    ready: () => ready,
    put: (edge, watches, { samples, fittedSeconds }) => {
      byEdge.set(pairKey(edge), { watches, samples, fittedSeconds })
      version++
    },
    remove: (edge) => {
      if (byEdge.delete(pairKey(edge))) version++
    },
    complete: () => {
      ready = true
    },
    fail: (error) => {
      failure = error instanceof Error ? error : new Error(String(error))
      version++
    },
    size: () => byEdge.size,
    summary: () => {
      let samples = 0
      let oldestSeconds: number | null = null
      for (const facts of byEdge.values()) {
        samples += facts.samples
        oldestSeconds = Math.min(oldestSeconds ?? Infinity, facts.fittedSeconds)
      }
      return { edges: byEdge.size, samples, oldestSeconds }
    },
  }
}
