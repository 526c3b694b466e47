import { documentOf, joinedAnswer, type RangeAnswer, rangeAnswerOf } from '../core/range-answer.js'
import { type Matrix, parseAnswer } from '../core/series.js'
import {
  type Answer,
  type Failure,
  type FailureOutcome,
  queryRange,
  queryRangeText,
  type RangeRequest,
} from './prometheus.js'
import type { Runtime } from './runtime.js'

/** Prometheus refuses a range query with more points than this per series. */
export const MAX_POINTS = 11_000

/** Of all answers together: as much as a recording may hold. */
export const MAX_HISTORY_BYTES = 64 * 2 ** 20

/** Pauses before a chunk is asked for again: together longer than Prometheus takes to reload, or a port-forward to come back. */
const RETRY_AFTER_MS = [1_000, 3_000, 9_000]

const DEADLINE_MS = 60_000

/** A part of the range: the next `points` steps of it. */
export interface HistoryChunk {
  readonly points: number
  readonly answer: RangeAnswer
}

export interface HistoryProgress {
  readonly donePoints: number
  readonly totalPoints: number
  readonly doneChunks: number
  /** As far as can be known: a chunk that Prometheus finds too large becomes two. */
  readonly totalChunks: number
}

export interface HistoryRequest extends Omit<RangeRequest, 'deadlineMs'> {
  /** For each request; 60 s unless given. */
  readonly deadlineMs?: number
  /** What was fetched of the range before, from its start on: it is not asked for again. */
  readonly fetched?: readonly HistoryChunk[]
  /** Each chunk as it comes but the last; awaited before the next is asked for. */
  readonly onChunk?: (chunk: HistoryChunk) => void | Promise<void>
  /** Before the first request and after each; awaited. */
  readonly onProgress?: (progress: HistoryProgress) => void | Promise<void>
}

/** How many samples a range has for each series. */
export function pointsIn({
  startSeconds,
  endSeconds,
  stepSeconds,
}: Pick<RangeRequest, 'startSeconds' | 'endSeconds' | 'stepSeconds'>): number {
  return Math.floor((toMs(endSeconds) - toMs(startSeconds)) / toMs(stepSeconds)) + 1
}

/**
 * A range query of any length, in as many requests as Prometheus's limits need, one after the other. What fits into one is
 * answered byte for byte as Prometheus gave it; more are joined, with the texts of their values as they were. Rejects only
 * with what `onChunk` and `onProgress` reject with.
 */
export async function fetchHistory(runtime: Runtime, request: HistoryRequest): Promise<Answer<Matrix>> {
  const { fetched = [], onChunk, onProgress } = request
  const totalPoints = pointsIn(request)
  const parts = fetched.map(({ answer }) => answer)
  const done = {
    points: fetched.reduce((sum, { points }) => sum + points, 0),
    bytes: fetched.reduce((sum, { answer }) => sum + JSON.stringify(answer).length, 0),
    whole: null as Answer<Matrix> | null,
  }
  const failed = await inChunks(runtime, request, {
    donePoints: done.points,
    doneChunks: fetched.length,
    mostPoints: MAX_POINTS,
    leastPoints: 1,
    onProgress,
    ask: (range) => queryRange(runtime, range),
    take: async (answer, points) => {
      done.points += points
      done.bytes += answer.text.length
      if (done.bytes > MAX_HISTORY_BYTES) {
        const detail = `more than ${MAX_HISTORY_BYTES / 2 ** 20} MiB: ask for a shorter range or a longer step`
        return { kind: 'failure', outcome: 'too_large', detail }
      }
      if (points === totalPoints) {
        done.whole = answer
        return null
      }
      const part = rangeAnswerOf(JSON.parse(answer.text))
      parts.push(part)
      if (done.points < totalPoints) await onChunk?.({ points, answer: part })
      return null
    },
  })
  if (failed !== null) return failed
  if (done.whole !== null) return done.whole
  const document = documentOf(joinedAnswer(parts))
  return { kind: 'answer', data: parseAnswer(document, 'matrix'), text: JSON.stringify(document) }
}

export interface TextsRequest extends Omit<RangeRequest, 'deadlineMs'> {
  /** How many points are asked for at once at most, and at least when Prometheus finds them too many. */
  readonly mostPoints: number
  readonly leastPoints: number
  /** Of one answer. */
  readonly maxAnswerBytes: number
}

/**
 * The answers to a range query of any length, one after the other and unread.
 *
 * @param take - awaited before the next is asked for; what it finds wrong with an answer ends the query
 * @returns null when all of them came. Rejects only with what `take` rejects with
 */
export function fetchTexts(
  runtime: Runtime,
  request: TextsRequest,
  take: (text: string) => Promise<Failure | null>,
): Promise<Failure | null> {
  return inChunks(runtime, request, {
    donePoints: 0,
    doneChunks: 0,
    mostPoints: Math.min(MAX_POINTS, request.mostPoints),
    leastPoints: request.leastPoints,
    onProgress: undefined,
    ask: (range) => queryRangeText(runtime, range, request.maxAnswerBytes),
    take: ({ text }) => take(text),
  })
}

/** Asks for the steps of a range in chunks, the failed ones again. @returns null when all were taken */
async function inChunks<T extends { readonly kind: 'answer' | 'body' }>(
  runtime: Runtime,
  request: Omit<RangeRequest, 'deadlineMs'> & Pick<HistoryRequest, 'deadlineMs'>,
  options: {
    readonly donePoints: number
    readonly doneChunks: number
    readonly mostPoints: number
    readonly leastPoints: number
    readonly onProgress: HistoryRequest['onProgress']
    readonly ask: (range: RangeRequest) => Promise<T | Failure>
    readonly take: (answer: T, points: number) => Promise<Failure | null>
  },
): Promise<Failure | null> {
  const { prometheusUrl, query, stepSeconds, deadlineMs = DEADLINE_MS } = request
  const { leastPoints, onProgress, ask, take } = options
  const totalPoints = pointsIn(request)
  const atSeconds = (point: number): number => (toMs(request.startSeconds) + point * toMs(stepSeconds)) / 1000
  let { donePoints, doneChunks, mostPoints: chunkPoints } = options
  let tries = 0
  const stopped = (): boolean => runtime.signal.aborted
  const told = async (): Promise<void> =>
    onProgress?.({
      donePoints,
      totalPoints,
      doneChunks,
      totalChunks: doneChunks + Math.ceil((totalPoints - donePoints) / chunkPoints),
    })

  await told()
  while (donePoints < totalPoints) {
    if (stopped()) return { kind: 'failure', outcome: 'conn', detail: 'stopped while asking' }
    const points = Math.min(chunkPoints, totalPoints - donePoints)
    const answer = await ask({
      prometheusUrl,
      query,
      startSeconds: atSeconds(donePoints),
      endSeconds: atSeconds(donePoints + points - 1),
      stepSeconds,
      deadlineMs,
    })
    if (answer.kind === 'failure') {
      const { outcome, detail } = answer
      if (stopped()) return answer
      const smaller = points > leastPoints && isTooMuch(answer)
      // A refusal for its size costs nothing and ends at the least; whatever takes time is bounded by the pauses.
      const pauseMs = smaller && outcome !== 'timeout' ? 0 : RETRY_AFTER_MS[tries++]
      if (pauseMs === undefined || !(smaller || MAY_PASS.has(outcome))) {
        return tries > 1 ? { ...answer, detail: `${detail} (asked ${tries} times)` } : answer
      }
      if (smaller) chunkPoints = Math.ceil(points / 2)
      runtime.logger.warn(
        { outcome, detail, pauseSeconds: pauseMs / 1000, points: Math.min(points, chunkPoints) },
        'Prometheus did not answer, and is asked again',
      )
      await runtime.clock.sleep(pauseMs, runtime.signal)
      continue
    }
    tries = 0
    const refused = await take(answer, points)
    if (refused !== null) return refused
    donePoints += points
    doneChunks++
    await told()
  }
  return null
}

/** What may be different a moment later; the rest is how Prometheus, or what stands before it, is set up. */
const MAY_PASS: ReadonlySet<FailureOutcome> = new Set(['conn', 'dns', 'timeout', 'http_5xx'])

/** Prometheus's own limits on a query, those of the databases that speak its language, and ours on an answer. */
export function isTooMuch({ outcome, detail }: { readonly outcome: FailureOutcome; readonly detail: string }): boolean {
  if (outcome === 'timeout' || outcome === 'too_large') return true
  return outcome === 'api_error' && /exceed|too many|too large|too long|limit/i.test(detail)
}

function toMs(seconds: number): number {
  return Math.round(seconds * 1000)
}
