import { readFileSync, statSync } from 'node:fs'

import { HOW_TO } from '../core/baseline/model.js'
import { RecordingError } from '../core/errors.js'
import { readRecording, type Recording } from '../core/recording.js'
import { type Matrix, parseAnswer, ShapeError } from '../core/series.js'
import type { Runtime } from './runtime.js'

/** Parsing takes about five times the file's size in memory, so the size is checked before a byte is read. */
export const MAX_FILE_BYTES = 64 * 2 ** 20

/**
 * Reads a recording: a saved answer of Prometheus's /api/v1/query_range.
 *
 * @param flag - how the user named the file, for the message
 * @throws {RecordingError} saying what is wrong, where in the file, and how to get a good one
 */
export function readRecordingFile(path: string, flag: string): Recording {
  return readMatrixFile(path, flag, readRecording)
}

/** The same, of whatever `read` makes of the answer. */
export function readMatrixFile<T>(path: string, flag: string, read: (matrix: Matrix) => T): T {
  const refuse = (reason: string, cause?: unknown): never => {
    throw new RecordingError(`${flag}: ${path}: ${reason}; ${HOW_TO}`, { cause })
  }
  const text = readText(path, refuse)
  if (text.trim() === '') return refuse('the file is empty')
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    return refuse(`not JSON: ${(error as Error).message}`, error)
  }
  try {
    return read(parseAnswer(document, 'matrix'))
  } catch (error) {
    if (error instanceof ShapeError) return refuse(`not a saved query_range answer: ${error.message}`, error)
    throw error
  }
}

function readText(path: string, refuse: (reason: string, cause?: unknown) => never): string {
  try {
    const stat = statSync(path)
    if (!stat.isFile()) return refuse('not a regular file')
    if (stat.size > MAX_FILE_BYTES) {
      return refuse(`expected at most ${MAX_FILE_BYTES / 2 ** 20} MiB, got ${(stat.size / 2 ** 20).toFixed(1)} MiB`)
    }
    const bytes = readFileSync(path)
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) return refuse('gzip: unpack it first')
    return new TextDecoder('utf-8', { ignoreBOM: false }).decode(bytes)
  } catch (error) {
    if (error instanceof RecordingError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    return refuse(code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'not permitted to read it' : message, error)
  }
}

/** Says what of a recording was not taken as it stood. */
export function warnOfRepairs(logger: Runtime['logger'], { reordered, rejected }: Recording, path: string): void {
  if (reordered > 0) logger.warn({ path, reordered }, 'samples out of order or double were put right')
  if (rejected > 0) logger.warn({ path, rejected }, 'values that no latency can have were read as missing')
}
