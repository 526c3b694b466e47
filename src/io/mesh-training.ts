import type { EdgeTraining } from '../core/batch-history.js'
import type { BaselineStore } from '../core/mesh-baselines.js'
import { type Pair, pairName } from '../core/pair.js'
import { plainName } from '../core/plain-text.js'
import { modelNamed } from './models.js'
import type { Runtime } from './runtime.js'
import { startTrainingThread, watchesFrom } from './training-thread.js'

/** An edge that can be trained. */
export interface Trainable extends Pick<EdgeTraining, 'trainings' | 'samples'> {
  readonly pair: Pair
}

/**
 * Fits edge after edge in a thread of its own, so that polls and scrapes go on meanwhile.
 *
 * @param edges - taken out one by one, so that what they were trained on does not outlive it
 * @param model - the name of the one that is fitted
 */
export async function fitEdges(
  { clock, logger, signal }: Pick<Runtime, 'clock' | 'logger' | 'signal'>,
  edges: Trainable[],
  { store, model: name }: { readonly store: BaselineStore; readonly model: string },
): Promise<void> {
  const startMs = clock.monotonicMs()
  const model = modelNamed(name)
  const thread = startTrainingThread(name)
  try {
    for (let edge = edges.pop(); edge !== undefined && !signal.aborted; edge = edges.pop()) {
      const { pair, trainings, samples } = edge
      const { trained } = await thread.ask({ kind: 'train', trainings })
      if (typeof trained === 'string') {
        logger.warn(
          { edge: plainName(pairName(pair)), reason: trained },
          'an edge cannot be trained, and stays warming',
        )
      } else if (trained !== null) {
        store.put(pair, watchesFrom(model, trained), { samples, fittedSeconds: clock.nowMs() / 1000 })
      }
    }
    if (signal.aborted) return
    store.complete()
    logger.info({ edges: store.size(), seconds: (clock.monotonicMs() - startMs) / 1000 }, 'baselines fitted')
  } catch (error) {
    store.fail(error)
  } finally {
    await thread.end()
  }
}
