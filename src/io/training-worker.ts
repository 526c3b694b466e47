// The worker that training-thread.ts starts: reads what Prometheus answered of a few edges and fits their baselines.
import { parentPort, workerData } from 'node:worker_threads'

import { type BatchHistory, type BatchRange, createBatchHistory, type EdgeTraining } from '../core/batch-history.js'
import { RecordingError } from '../core/errors.js'
import type { TrainingTrouble } from '../core/metric-names.js'
import type { Pair } from '../core/pair.js'
import { type Matrix, parseAnswer, ShapeError } from '../core/series.js'
import { CALM_SECONDS } from '../core/training-schedule.js'
import { modelNamed } from './models.js'

export type TrainingRequest =
  | { readonly kind: 'train'; readonly trainings: EdgeTraining['trainings'] }
  /** A few edges, of which histories will come. */
  | { readonly kind: 'begin'; readonly batch: number; readonly range: BatchRange }
  | { readonly kind: 'history' | 'heat'; readonly batch: number; readonly text: string }
  /** `mayKeep`: it has a baseline, and when it was hot a moment ago it keeps it. */
  | {
      readonly kind: 'fit'
      readonly batch: number
      readonly pair: Pair
      readonly quantiles: readonly number[]
      readonly mayKeep: boolean
    }
  | { readonly kind: 'end'; readonly batch: number }

/** What is wrong with an answer. */
export interface Unreadable {
  readonly outcome: 'bad_json' | ShapeError['kind']
  readonly detail: string
}

/** What each quantile's model found. */
export type Parameters = readonly (readonly [quantile: number, parameters: unknown])[]

export type EdgeFit =
  | ({ readonly kind: 'fitted'; readonly parameters: Parameters } & Pick<
      EdgeTraining,
      'samples' | 'fromSeconds' | 'toSeconds' | 'leftOut'
    >)
  | { readonly kind: 'kept' }
  | {
      readonly kind: 'untrainable'
      readonly trouble: TrainingTrouble
      readonly detail: string
      readonly missingSamples: number
    }

/** To each request one, with its number; but for what was asked for null and 0. */
export interface TrainingAnswer {
  readonly id: number
  /** Of a request to train: what was found, or why nothing was. */
  readonly trained: Parameters | string | null
  /** What is wrong with the text that was sent. */
  readonly unreadable: Unreadable | null
  /** Warnings in it. */
  readonly warnings: number
  /** Of a request to fit. */
  readonly fit: EdgeFit | null
}

const model = modelNamed(workerData as string)
const batches = new Map<number, BatchHistory>()

async function answerTo(request: TrainingRequest): Promise<Partial<TrainingAnswer>> {
  switch (request.kind) {
    case 'train':
      return { trained: await train(request.trainings) }
    case 'begin':
      batches.set(request.batch, createBatchHistory(request.range))
      return {}
    case 'history':
      return read(request.text, (answer) => historyOf(request.batch).take(answer))
    case 'heat':
      return read(request.text, (answer) => historyOf(request.batch).takeHeat(answer))
    case 'fit':
      return { fit: await fit(request) }
    case 'end':
      batches.delete(request.batch)
      return {}
  }
}

function historyOf(batch: number): BatchHistory {
  const history = batches.get(batch)
  if (history === undefined) throw new Error(`batch ${batch} was not begun`)
  return history
}

function read(text: string, take: (answer: Matrix) => void): Partial<TrainingAnswer> {
  try {
    const answer: Matrix = parseAnswer(JSON.parse(text), 'matrix')
    take(answer)
    return { warnings: answer.warnings }
  } catch (error) {
    if (error instanceof ShapeError) return { unreadable: { outcome: error.kind, detail: error.message } }
    if (!(error instanceof SyntaxError)) throw error
    const detail = `the answer is not JSON: ${JSON.stringify(text.slice(0, 80))}`
    return { unreadable: { outcome: 'bad_json', detail } }
  }
}

/** @returns what each model found, or why one found nothing */
async function train(
  trainings: Extract<TrainingRequest, { kind: 'train' }>['trainings'],
): Promise<Parameters | string> {
  try {
    const parameters: [number, unknown][] = []
    for (const [quantile, training] of trainings) parameters.push([quantile, await model.parametersOf(training)])
    return parameters
  } catch (error) {
    if (!(error instanceof RecordingError)) throw error
    return error.message
  }
}

async function fit({ batch, pair, quantiles, mayKeep }: Extract<TrainingRequest, { kind: 'fit' }>): Promise<EdgeFit> {
  const history = historyOf(batch)
  const found = history.trainable(pair, { quantiles, model })
  if (found.kind === 'untrainable') return found
  const { trainings, samples, fromSeconds, toSeconds, leftOut, lastHotSeconds } = found
  if (mayKeep && lastHotSeconds !== null && lastHotSeconds > history.endSeconds - CALM_SECONDS) return { kind: 'kept' }
  const parameters = await train(trainings)
  return typeof parameters === 'string'
    ? { kind: 'untrainable', trouble: 'failed', detail: parameters, missingSamples: 0 }
    : { kind: 'fitted', parameters, samples, fromSeconds, toSeconds, leftOut }
}

// One after the other, as they come.
let last: Promise<void> = Promise.resolve()
parentPort?.on('message', ({ id, request }: { readonly id: number; readonly request: TrainingRequest }) => {
  last = last.then(async () => {
    const nothing = { trained: null, unreadable: null, warnings: 0, fit: null }
    parentPort?.postMessage({ id, ...nothing, ...(await answerTo(request)) } satisfies TrainingAnswer)
  })
})
