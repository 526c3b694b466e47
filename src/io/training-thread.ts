import { Worker } from 'node:worker_threads'

import type { Model } from '../core/baseline/model.js'
import type { Watches } from '../core/score.js'
import type { Parameters, TrainingAnswer, TrainingRequest } from './training-worker.js'

/**
 * A thread that reads histories and fits them: a week of one edge is a hundred milliseconds of work without a pause, which the
 * thread that polls must not do.
 */
export interface TrainingThread {
  /** @throws {ThreadLost} when the thread ended before it answered */
  ask(request: TrainingRequest): Promise<TrainingAnswer>
  end(): Promise<void>
}

/** The thread is gone: it ran out of memory, or has a bug. */
export class ThreadLost extends Error {
  override readonly name = 'ThreadLost'
}

/** Two batches, and what reading them leaves to the garbage collector. */
const MAX_HEAP_MEBIBYTES = 256

/** @param model - the name of the one that is fitted */
export function startTrainingThread(model: string): TrainingThread {
  const worker = new Worker(new URL('./training-worker.js', import.meta.url), {
    workerData: model,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MEBIBYTES },
  })
  const waiting = new Map<
    number,
    { readonly answered: (answer: TrainingAnswer) => void; readonly lost: (error: ThreadLost) => void }
  >()
  let asked = 0
  let gone: ThreadLost | null = null
  const lose = (detail: string): void => {
    gone ??= new ThreadLost(`the thread that fits baselines ended: ${detail}`)
    for (const { lost } of waiting.values()) lost(gone)
    waiting.clear()
  }
  worker.on('message', (answer: TrainingAnswer) => {
    waiting.get(answer.id)?.answered(answer)
    waiting.delete(answer.id)
  })
  worker.once('error', (error: unknown) => lose(error instanceof Error ? error.message : String(error)))
  worker.once('exit', (code) => lose(`exit code ${code}`))
  return {
    ask: (request) =>
      new Promise((resolve, reject) => {
        if (gone !== null) {
          reject(gone)
          return
        }
        const id = ++asked
        waiting.set(id, { answered: resolve, lost: reject })
        worker.postMessage({ id, request })
      }),
    end: async () => {
      await worker.terminate()
    },
  }
}

/** What watches an edge for which the thread found these. */
export function watchesFrom(model: Model, parameters: Parameters): Watches {
  return parameters.map(([quantile, found]) => ({ quantile, watch: model.fittedFrom(found).watch() }))
}
