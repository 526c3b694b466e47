import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'

import { StartError, UsageError } from '../core/errors.js'
import type { Pair } from '../core/pair.js'
import { documentOf, rangeAnswerOf } from '../core/range-answer.js'
import { isObject } from '../core/series.js'
import { writeAtomically } from './atomic-file.js'
import type { HistoryChunk } from './range-history.js'

/** What was asked for, by the flag that says it: a command that goes on must ask for the same. */
export type Asked = Readonly<Record<string, unknown>>

/** What was begun: times that were relative, and pairs that were found, stay as they were on the first day. */
export interface Begun {
  readonly startSeconds: number
  readonly endSeconds: number
  readonly pairs: readonly Pair[]
}

/** What a recording that was cut short has kept. */
export interface Kept {
  readonly begun: Begun
  /** Indices of the pairs that are saved. */
  readonly saved: ReadonlySet<number>
  /** Of one pair that is not, from the start of its range on. */
  readonly unfinished: { readonly pairIndex: number; readonly chunks: readonly HistoryChunk[] } | null
}

/**
 * The file in which a recording keeps what it has until it is whole: a JSON object a line, the first says what it is, each
 * further one brings a chunk or a saved pair, and is on the disk before the next is asked for.
 */
export interface PartialRecording {
  readonly path: string
  /** Null when nothing was begun. */
  readonly kept: Kept | null
  /** From now on this is what was begun. */
  readonly begin: (begun: Begun) => void
  /** @throws {StartError} when it cannot be written; what was kept before is still there */
  readonly keepChunk: (pairIndex: number, chunk: HistoryChunk) => void
  /** The pair has a file of its own, and its chunks are not needed any more. @throws {StartError} as above */
  readonly keepSaved: (pairIndex: number) => void
  /** Whether there is anything to go on from. */
  readonly exists: () => boolean
  readonly remove: () => void
}

/** JSON with its texts is a little longer than what Prometheus sent. */
const MAX_BYTES = 128 * 2 ** 20

/** @throws {UsageError} when the file is there and belongs to another recording, or to none */
export function openPartialRecording(path: string, asked: Asked): PartialRecording {
  const { lines, bytes } = readLines(path)
  const [first, ...rest] = lines
  const kept = first === undefined ? null : keptOf(path, { first, rest, asked })
  let begun = kept?.begun
  let started = kept !== null
  const saved = new Set(kept?.saved)
  if (started) cutOff(path, bytes)

  const header = (): string => {
    if (begun === undefined) throw new Error('nothing was begun')
    return `${JSON.stringify({ partial: true, asked, ...begun })}\n`
  }
  const savedLine = (pairIndex: number): string => `${JSON.stringify({ saved: pairIndex })}\n`
  return {
    path,
    kept,
    begin: (one) => {
      begun = one
    },
    keepChunk: (pairIndex, { points, answer }) => {
      const line = `${JSON.stringify({ pairIndex, points, answer: documentOf(answer) })}\n`
      if (!started) writeAtomically(path, header())
      try {
        append(path, line)
      } catch (error) {
        // Nothing is kept yet that could be gone on from.
        if (!started) rmSync(path, { force: true })
        throw error
      }
      started = true
    },
    keepSaved: (pairIndex) => {
      saved.add(pairIndex)
      writeAtomically(path, header() + [...saved].map(savedLine).join(''))
      started = true
    },
    exists: () => started,
    remove: () => rmSync(path, { force: true }),
  }
}

/** What a failure tears is cut off when the file is opened again. */
function append(path: string, text: string): void {
  try {
    const file = openSync(path, 'a')
    try {
      writeFileSync(file, text)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw new StartError(`cannot write ${path}: ${(error as Error).message}`, { cause: error })
  }
}

/** Cuts off a line that a crash tore. */
function cutOff(path: string, bytes: number): void {
  try {
    const file = openSync(path, 'r+')
    try {
      ftruncateSync(file, bytes)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw new StartError(`cannot write ${path}: ${(error as Error).message}`, { cause: error })
  }
}

/** The whole lines of the file, and how many bytes they are; none when there is no file. */
function readLines(path: string): { readonly lines: readonly string[]; readonly bytes: number } {
  try {
    const stat = statSync(path)
    if (!stat.isFile() || stat.size > MAX_BYTES) throw foreign(path)
    const content = readFileSync(path)
    const bytes = content.lastIndexOf('\n') + 1
    // A crash before the first byte.
    if (content.length === 0) return { lines: [], bytes: 0 }
    if (bytes === 0) throw foreign(path)
    return { lines: content.toString('utf8', 0, bytes - 1).split('\n'), bytes }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { lines: [], bytes: 0 }
    if (error instanceof UsageError) throw error
    throw new StartError(`cannot read ${path}: ${(error as Error).message}`, { cause: error })
  }
}

function foreign(path: string): UsageError {
  return new UsageError(
    `--output: ${path} is in the way: it is not what meshfever record keeps there of an unfinished recording; delete it, or give another --output`,
  )
}

function keptOf(
  path: string,
  { first, rest, asked }: { readonly first: string; readonly rest: readonly string[]; readonly asked: Asked },
): Kept {
  let kept: Kept
  let before: Asked
  try {
    const header: unknown = JSON.parse(first)
    if (!isObject(header) || header['partial'] !== true || !isObject(header['asked'])) throw foreign(path)
    const { startSeconds, endSeconds, pairs } = header as unknown as Begun
    if (![startSeconds, endSeconds].every(Number.isFinite) || !pairs.every(isPair)) throw foreign(path)
    before = header['asked']
    kept = { begun: { startSeconds, endSeconds, pairs }, ...entriesOf(rest) }
  } catch {
    throw foreign(path)
  }
  const changed = Object.keys(asked).filter((flag) => JSON.stringify(asked[flag]) !== JSON.stringify(before[flag]))
  if (changed.length > 0) {
    const what = changed.map((flag) => `${flag} (${JSON.stringify(before[flag])}, now ${JSON.stringify(asked[flag])})`)
    throw new UsageError(
      `--output: ${path} keeps an unfinished recording with other ${what.join(', ')}: give the same again to go on with it, or delete it, or give another --output`,
    )
  }
  return kept
}

function isPair({ source, destination }: Partial<Pair>): boolean {
  return typeof source === 'string' && typeof destination === 'string'
}

/** @throws when a line is not one of ours */
function entriesOf(lines: readonly string[]): Pick<Kept, 'saved' | 'unfinished'> {
  const saved = new Set<number>()
  const chunks = new Map<number, HistoryChunk[]>()
  for (const line of lines) {
    const entry = JSON.parse(line) as {
      readonly saved?: number
      readonly pairIndex: number
      readonly points: number
      readonly answer: unknown
    }
    if (entry.saved !== undefined) {
      saved.add(entry.saved)
      continue
    }
    const ofPair = chunks.get(entry.pairIndex) ?? []
    chunks.set(entry.pairIndex, ofPair)
    ofPair.push({ points: entry.points, answer: rangeAnswerOf(entry.answer) })
  }
  const [last] = [...chunks].filter(([pairIndex]) => !saved.has(pairIndex)).slice(-1)
  return { saved, unfinished: last === undefined ? null : { pairIndex: last[0], chunks: last[1] } }
}
