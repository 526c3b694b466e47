import { setImmediate as nextTurn } from 'node:timers/promises'

import type { BaselineStore } from '../core/mesh-baselines.js'
import type { Pair } from '../core/pair.js'
import type { Watches } from '../core/score.js'
import type { Runtime } from './runtime.js'

/** An edge that can be trained. */
export interface Trainable {
  readonly pair: Pair
  readonly fit: () => Watches | Promise<Watches>
}

/**
 * Fits edge after edge with a turn of the event loop between them, so that polls and scrapes go on meanwhile.
 *
 * @param edges - taken out one by one, so that what they were trained on does not outlive it
 */
export async function fitEdges(
  { clock, logger, signal }: Pick<Runtime, 'clock' | 'logger' | 'signal'>,
  edges: Trainable[],
  store: BaselineStore,
): Promise<void> {
  const startMs = clock.monotonicMs()
  try {
    for (let edge = edges.pop(); edge !== undefined && !signal.aborted; edge = edges.pop()) {
      store.put(edge.pair, await edge.fit())
      await nextTurn()
    }
    if (signal.aborted) return
    store.complete()
    logger.info({ edges: store.size(), seconds: (clock.monotonicMs() - startMs) / 1000 }, 'baselines fitted')
  } catch (error) {
    store.fail(error)
  }
}
