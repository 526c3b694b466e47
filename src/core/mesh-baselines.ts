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

export interface BaselineStore extends BaselineSource {
  /** From now on the edge is watched by these. */
  put(edge: Pair, watches: Watches): void
  /** The first baselines are all there. */
  complete(): void
  /** Whoever asks from now on gets this error. */
  fail(error: unknown): void
  readonly size: () => number
}

export function createBaselineStore(): BaselineStore {
  const byEdge = new Map<string, Watches>()
  let version = 0
  let ready = false
  let failure: Error | null = null
  return {
    watchesOf: (edge) => {
      if (failure !== null) throw failure
      return byEdge.get(pairKey(edge)) ?? null
    },
    version: () => version,
    ready: () => ready,
    put: (edge, watches) => {
      byEdge.set(pairKey(edge), watches)
      version++
    },
    complete: () => {
      ready = true
    },
    fail: (error) => {
      failure = error instanceof Error ? error : new Error(String(error))
      version++
    },
    size: () => byEdge.size,
  }
}
