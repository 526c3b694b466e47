// The worker that prophet.ts starts: fits the training it is given, says what it found, and has nothing left to do.
import { parentPort, workerData } from 'node:worker_threads'

import type { Training } from '../core/baseline/model.js'
import { fitWithLibrary, type ProphetParameters } from './prophet-library.js'

export type ProphetAnswer =
  | { readonly kind: 'fitted'; readonly parameters: ProphetParameters }
  | { readonly kind: 'failed'; readonly reason: string }

let answer: ProphetAnswer
try {
  const { parameters } = await fitWithLibrary(workerData as Training, { uncertaintySamples: 0 })
  answer = { kind: 'fitted', parameters }
} catch (error) {
  answer = { kind: 'failed', reason: error instanceof Error ? error.message : String(error) }
}
parentPort?.postMessage(answer)
