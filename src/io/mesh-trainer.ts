import { setImmediate as nextTurn } from 'node:timers/promises'

import { edgeHeatQuery, VERDICTS_KNOWN_QUERY } from '../core/edge-heat.js'
import type { BaselineStore } from '../core/mesh-baselines.js'
import type { MeshEdge } from '../core/mesh-edges.js'
import type { EdgeBatch, MeshQuery } from '../core/mesh-query.js'
import {
  TRAINING_OUTCOMES,
  type TrainingOutcome,
  type TrainingTrouble,
  UNTRAINED_REASONS,
  type UntrainedReason,
} from '../core/metric-names.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { isoTime, plainName } from '../core/plain-text.js'
import { batchesOf, edgesPerBatch, halves, pointsPerAnswer, waitSeconds } from '../core/training-schedule.js'
import type { TrainingGauges } from './gauges.js'
import { modelNamed } from './models.js'
import { type Failure, queryInstant } from './prometheus.js'
import { fetchTexts, isTooMuch, MAX_POINTS, pointsIn } from './range-history.js'
import type { Runtime } from './runtime.js'
import { startTrainingThread, ThreadLost, type TrainingThread, watchesFrom } from './training-thread.js'
import type { EdgeFit, TrainingRequest } from './training-worker.js'

export interface MeshTrainerConfig {
  readonly prometheusUrl: string
  /** What an answer's labels and series are. */
  readonly mesh: Pick<MeshQuery, 'sourceLabel' | 'destinationLabel' | 'quantiles'>
  /** Latency and traffic of some edges. */
  readonly queryOf: (batch: EdgeBatch) => string
  /** The rate window of that query. */
  readonly windowSeconds: number
  readonly model: string
  /** How much history is asked for, up to now, and how far its samples are apart. */
  readonly rangeSeconds: number
  readonly stepSeconds: number
  /** How old a baseline becomes; null: it is made once. */
  readonly retrainSeconds: number | null
  /** How many range queries are asked at once. */
  readonly concurrency: number
}

export interface MeshTrainer {
  /** Takes note of the edges that are watched; to be called after each poll with the same set. */
  scored(edges: ReadonlySet<MeshEdge>): void
}

/** How often is looked for edges that are to be trained. */
const LOOK_MS = 30_000
/** After Prometheus did not answer; then twice as long, and so on. */
const FIRST_PAUSE_MS = 60_000
const LONGEST_PAUSE_MS = 900_000
/** Progress is told this often. */
const TOLD_EVERY_MS = 30_000
const TOLD_EVERY_RATIO = 0.1
/** Smaller chunks than this only for a batch of one edge. */
const LEAST_POINTS = 60
/** An answer may be so much larger than it is expected to be. */
const ANSWER_ROOM_BYTES = 16 * 2 ** 20
const DEADLINE_MS = 60_000
const EDGES_NAMED = 3
const EDGES_AT_ONCE = 1_000

/** What is known of the training of a watched edge. */
interface EdgeRecord {
  readonly edge: MeshEdge
  trained: boolean
  /** Of the last try; null before the first. */
  outcome: TrainingOutcome | null
  waitSeconds: number
  /** Monotonic. */
  dueMs: number
}

/** What the training of many edges comes to. */
interface Round {
  readonly edges: number
  readonly batches: EdgeBatch[]
  readonly range: { readonly startSeconds: number; readonly endSeconds: number; readonly stepSeconds: number }
  readonly startMs: number
  readonly outcomes: Map<TrainingOutcome, number>
  /** The first edges that came to it, and why. */
  readonly examples: Map<TrainingTrouble, string[]>
  done: number
  samples: number
  leftOut: number
  warnings: number
  /** Of the first sample that anything was trained on. */
  earliestSeconds: number
  /** Why it ended early. */
  interrupted: Failure | null
  thread: TrainingThread | null
}

/**
 * Trains the edges of a mesh from Prometheus's own history, those that are new soon after they are seen, and makes their
 * baselines anew when they are old. It waits for what fails, and never rejects: a bug is for whoever asks the store.
 */
export function createMeshTrainer(
  config: MeshTrainerConfig,
  runtime: Runtime,
  store: BaselineStore,
  gauges: TrainingGauges,
): MeshTrainer {
  const { clock, logger, signal } = runtime
  const { mesh, stepSeconds } = config
  const model = modelNamed(config.model)
  const seriesPerEdge = mesh.quantiles.length + 1
  const records = new Map<string, EdgeRecord>()
  let watched: ReadonlySet<MeshEdge> | null = null
  let batchNumber = 0
  const stopped = (): boolean => signal.aborted

  /** Forgets the edges that are gone, and finds those that are due. */
  const look = async (): Promise<readonly EdgeRecord[]> => {
    for (const [key, { edge }] of records) {
      if (watched?.has(edge) === true) continue
      records.delete(key)
      store.remove(edge.pair)
    }
    const nowMs = clock.monotonicMs()
    const due: EdgeRecord[] = []
    let seen = 0
    for (const edge of watched ?? []) {
      const key = pairKey(edge.pair)
      const record = records.get(key) ?? { edge, trained: false, outcome: null, waitSeconds: 0, dueMs: nowMs }
      records.set(key, record)
      // What is anomalous now is not made normal.
      if (record.dueMs <= nowMs && !(record.trained && edge.verdict === 'anomalous')) due.push(record)
      if (++seen % EDGES_AT_ONCE === 0) await nextTurn()
    }
    return due
  }

  const publishUntrained = (): void => {
    const counts = Object.fromEntries(UNTRAINED_REASONS.map((reason) => [reason, 0])) as Record<UntrainedReason, number>
    for (const { trained, outcome } of records.values()) if (!trained) counts[reasonOf(outcome)]++
    gauges.untrained(counts)
  }

  const note = (round: Round, pair: Pair, fit: EdgeFit): void => {
    const record = records.get(pairKey(pair))
    if (record === undefined) return
    const outcome = fit.kind === 'untrainable' ? fit.trouble : fit.kind
    round.done++
    round.outcomes.set(outcome, (round.outcomes.get(outcome) ?? 0) + 1)
    gauges.trained(outcome)
    record.outcome = outcome
    record.waitSeconds = waitSeconds(outcome, {
      retrainSeconds: config.retrainSeconds,
      lastWaitSeconds: record.waitSeconds,
      ...(fit.kind === 'fitted' ? { spanSeconds: fit.toSeconds - fit.fromSeconds } : {}),
      ...(fit.kind === 'untrainable' ? { missingSeconds: fit.missingSamples * stepSeconds } : {}),
    })
    record.dueMs = clock.monotonicMs() + 1000 * record.waitSeconds
    if (fit.kind === 'fitted') {
      store.put(record.edge.pair, watchesFrom(model, fit.parameters), {
        samples: fit.samples,
        fittedSeconds: clock.nowMs() / 1000,
      })
      record.trained = true
      round.samples += fit.samples
      round.leftOut += fit.leftOut
      round.earliestSeconds = Math.min(round.earliestSeconds, fit.fromSeconds)
    }
    if (fit.kind === 'untrainable') {
      const examples = round.examples.get(fit.trouble) ?? []
      round.examples.set(fit.trouble, examples)
      if (examples.length < EDGES_NAMED) examples.push(`${plainName(pairName(pair))}: ${fit.detail}`)
    }
  }

  const threadOf = (round: Round): TrainingThread => (round.thread ??= startTrainingThread(config.model))

  /** @returns why its history did not come, or could not be read; null when it is trained */
  const trainBatch = async (round: Round, batch: EdgeBatch): Promise<Failure | null> => {
    const thread = threadOf(round)
    const number = ++batchNumber
    const fetched = (kind: 'history' | 'heat', query: string): Promise<Failure | null> =>
      fetchTexts(
        runtime,
        {
          ...round.range,
          prometheusUrl: config.prometheusUrl,
          query,
          mostPoints: kind === 'heat' ? MAX_POINTS : pointsPerAnswer(batch.destinations.length * seriesPerEdge),
          leastPoints: batch.destinations.length === 1 ? 1 : LEAST_POINTS,
          maxAnswerBytes: ANSWER_ROOM_BYTES,
        },
        async (text) => {
          const request: TrainingRequest = { kind, batch: number, text }
          const { unreadable, warnings } = await thread.ask(request)
          round.warnings += warnings
          return unreadable === null ? null : { kind: 'failure', ...unreadable }
        },
      )
    try {
      const { sourceLabel, destinationLabel, quantiles } = mesh
      const range = { ...round.range, sourceLabel, destinationLabel, windowSeconds: config.windowSeconds }
      await thread.ask({ kind: 'begin', batch: number, range })
      const failed = (await fetched('heat', edgeHeatQuery(batch))) ?? (await fetched('history', config.queryOf(batch)))
      if (failed !== null) return failed
      for (const destination of batch.destinations) {
        if (stopped()) return null
        const pair = { source: batch.source, destination }
        const mayKeep = records.get(pairKey(pair))?.trained ?? false
        const { fit } = await thread.ask({ kind: 'fit', batch: number, pair, quantiles, mayKeep })
        if (fit !== null) note(round, pair, fit)
        tell(round)
      }
      await thread.ask({ kind: 'end', batch: number })
      return null
    } catch (error) {
      if (!(error instanceof ThreadLost)) throw error
      if (round.thread === thread) round.thread = null
      return { kind: 'failure', outcome: 'too_large', detail: error.message }
    }
  }

  /** One of several that take batches until there are no more. */
  const trainBatches = async (round: Round): Promise<void> => {
    for (;;) {
      if (stopped() || round.interrupted !== null) return
      const batch = round.batches.pop()
      if (batch === undefined) return
      const failed = await trainBatch(round, batch)
      if (failed === null) continue
      const { destinations } = batch
      if (!isOfTheEdges(failed)) round.interrupted ??= failed
      else if (destinations.length > 1) round.batches.push(...halves(batch))
      else {
        const trouble = isTooMuch(failed) ? 'failed' : 'unusable'
        const pair = { source: batch.source, destination: destinations[0] ?? '' }
        note(round, pair, { kind: 'untrainable', trouble, detail: failed.detail, missingSamples: 0 })
        tell(round)
      }
    }
  }

  const teller = { ratio: 0, ms: 0 }
  const tell = (round: Round): void => {
    const ratio = round.done / round.edges
    const nowMs = clock.monotonicMs()
    gauges.progress(ratio)
    publishUntrainedAt(nowMs)
    if (ratio === 1 || (ratio - teller.ratio < TOLD_EVERY_RATIO && nowMs - teller.ms < TOLD_EVERY_MS)) return
    Object.assign(teller, { ratio, ms: nowMs })
    logger.info({ done: round.done, edges: round.edges, ...countsOf(round) }, 'training under way')
  }
  let untrainedMs = -Infinity
  /** For all edges at once, and so not for each of them. */
  const publishUntrainedAt = (nowMs: number): void => {
    if (nowMs - untrainedMs < 1_000) return
    untrainedMs = nowMs
    publishUntrained()
  }

  const trainRound = async (due: readonly EdgeRecord[]): Promise<Round> => {
    const endSeconds = Math.floor(clock.nowMs() / 1000 / stepSeconds) * stepSeconds
    const range = { startSeconds: endSeconds - config.rangeSeconds, endSeconds, stepSeconds }
    const batches = batchesOf(
      due.map(({ edge }) => edge.pair),
      edgesPerBatch({ points: pointsIn(range), seriesPerEdge }),
    )
    const round: Round = {
      edges: due.length,
      batches: [...batches].reverse(),
      range,
      startMs: clock.monotonicMs(),
      outcomes: new Map(),
      examples: new Map(),
      done: 0,
      samples: 0,
      leftOut: 0,
      warnings: 0,
      earliestSeconds: Infinity,
      interrupted: null,
      thread: null,
    }
    logger.info(
      {
        edges: due.length,
        from: isoTime(range.startSeconds),
        to: isoTime(endSeconds),
        stepSeconds,
        batches: batches.length,
      },
      'training from the history in Prometheus',
    )
    Object.assign(teller, { ratio: 0, ms: round.startMs })
    gauges.progress(0)
    publishUntrained()
    try {
      await Promise.all(Array.from({ length: config.concurrency }, () => trainBatches(round)))
    } finally {
      await round.thread?.end()
    }
    // Edges that went away meanwhile are done, too.
    if (round.interrupted === null) gauges.progress(1)
    publishUntrained()
    return round
  }

  /** What is trained again was scored meanwhile, and may have been hot. */
  const warnOfUnknownHeat = async (due: readonly EdgeRecord[]): Promise<void> => {
    if (!due.some(({ trained }) => trained)) return
    const { prometheusUrl } = config
    const answer = await queryInstant(runtime, { prometheusUrl, query: VERDICTS_KNOWN_QUERY, deadlineMs: DEADLINE_MS })
    if (answer.kind === 'failure' || answer.data.result.length > 0) return
    logger.warn(
      'Prometheus scrapes no monitor, so that the times of incidents cannot be left out of what is trained on',
    )
  }

  const tellOf = (round: Round, waitMs: number): void => {
    const seconds = Number(((clock.monotonicMs() - round.startMs) / 1000).toFixed(1))
    const { samples, leftOut, warnings, interrupted, range, earliestSeconds } = round
    for (const [reason, examples] of round.examples) {
      logger.warn(
        { reason, edges: round.outcomes.get(reason), examples },
        'edges that cannot be trained on their history; those without a baseline stay warming',
      )
    }
    if (warnings > 0) logger.warn({ warnings }, 'Prometheus warned that the history may not be complete')
    // The first sample of a rate comes one window after the first of its counter.
    if (earliestSeconds - range.startSeconds > 0.1 * config.rangeSeconds && earliestSeconds < Infinity) {
      const history = { asked: isoTime(range.startSeconds), earliest: isoTime(earliestSeconds) }
      logger.warn(history, 'Prometheus holds less history than --train-from asks for')
    }
    const line = { ...countsOf(round), of: round.edges, baselines: store.size(), samples, leftOut, seconds }
    if (interrupted === null) logger.info(line, 'training ended')
    else {
      const { outcome, detail } = interrupted
      logger.warn(
        { ...line, outcome, detail, againInSeconds: waitMs / 1000 },
        'training was interrupted; edges without a baseline stay warming until it goes on',
      )
    }
  }

  const run = async (): Promise<void> => {
    let pauseMs = FIRST_PAUSE_MS
    while (!stopped()) {
      const due = await look()
      publishUntrained()
      let waitMs = LOOK_MS
      if (due.length > 0) {
        await warnOfUnknownHeat(due)
        const round = await trainRound(due)
        if (stopped()) return
        if (round.interrupted !== null) waitMs = pauseMs
        pauseMs = round.interrupted === null ? FIRST_PAUSE_MS : Math.min(LONGEST_PAUSE_MS, 2 * pauseMs)
        tellOf(round, waitMs)
        store.complete()
      }
      await clock.sleep(waitMs, signal)
    }
  }

  return {
    scored: (edges) => {
      const begun = watched !== null
      if (begun || edges.size === 0) return
      watched = edges
      run().catch((error: unknown) => store.fail(error))
    },
  }
}

/** Whether fewer edges at once may do better, as against what no edge would be spared. */
function isOfTheEdges(failed: Failure): boolean {
  return isTooMuch(failed) || OF_THE_ANSWER.has(failed.outcome)
}

const OF_THE_ANSWER: ReadonlySet<Failure['outcome']> = new Set(['bad_json', 'bad_shape', 'wrong_type', 'histogram'])

function reasonOf(outcome: TrainingOutcome | null): UntrainedReason {
  return outcome === null || outcome === 'fitted' || outcome === 'kept' ? 'pending' : outcome
}

function countsOf({ outcomes }: Round): Readonly<Record<string, number>> {
  return Object.fromEntries(
    TRAINING_OUTCOMES.flatMap((outcome) => {
      const count = outcomes.get(outcome)
      return count === undefined ? [] : [[outcome, count]]
    }),
  )
}
