import { setImmediate as nextTurn } from 'node:timers/promises'

import type { Registry } from 'prom-client'

import { createEdgeText, EDGE_FAMILY_HEADS } from '../core/exposition-text.js'
import type { BaselineSource } from '../core/mesh-baselines.js'
import { createEdgeTable, type MeshEdge } from '../core/mesh-edges.js'
import type { Refusal } from '../core/metric-names.js'
import type { Pair } from '../core/pair.js'
import { plainName } from '../core/plain-text.js'
import { missing, type PollOutcome } from '../core/reading.js'
import { type Evaluation, score, type ScoringRules, type Verdict, VERDICTS } from '../core/score.js'
import type { Envelope } from '../core/series.js'
import type { Shard } from '../core/shard.js'
import { vectorParts, wholeVector } from '../core/vector-parts.js'
import { createMeshMonitorPage } from '../page/mesh-monitor-page.js'
import { createMeshGauges } from './gauges.js'
import { createMonitoredEdges } from './monitored-edges.js'
import { EVALUATED_MESH } from './log.js'
import { type Failure, queryInstantText, unreadable } from './prometheus.js'
import type { Runtime } from './runtime.js'
import { pollDeadlineMs, type Poller, type PollResult } from './serve-daemon.js'

export interface MeshMonitorConfig {
  readonly prometheusUrl: string
  readonly query: string
  /** Whether the query is the user's: it may not ask for the newest sample's time. */
  readonly ownQuery?: boolean
  /** Labels of Istio's that name an edge's ends in the answer. */
  readonly sourceLabel: string
  readonly destinationLabel: string
  /** Those that are scored, in order. */
  readonly quantiles: readonly number[]
  readonly baselines: BaselineSource
  readonly rules: ScoringRules
  readonly pollIntervalMs: number
  /** How old the newest sample of an edge may be; null: any age. */
  readonly maxAgeSeconds: number | null
  /** How many edges are watched at most. */
  readonly maxEdges: number
  /** How long an edge that is gone from the answers is kept, as no_data. */
  readonly edgeGraceSeconds: number
  readonly shard: Shard
  /** Called after each poll with the edges that are watched, the same set each time. */
  readonly onScored?: (edges: ReadonlySet<MeshEdge>) => void
}

/** Characters of an answer that are read without a pause, and edges that are scored and rendered: a few milliseconds of work. */
const PART_CHARACTERS = 2 ** 17
const EDGES_AT_ONCE = 250

/** What a series takes in an answer, generously: two names, the labels' names, a value and a time. */
const SERIES_BYTES = 512
const LEAST_ANSWER_BYTES = 8 * 2 ** 20
/** A text of this length takes about a gigabyte to read. */
const MOST_ANSWER_BYTES = 256 * 2 ** 20

const HOTTEST_LOGGED = 5
const CHANGES_LOGGED = 20

/** An edge that is far out in its band, for the log. */
interface Hot {
  readonly pair: Pair
  readonly evaluation: Evaluation
  readonly score: number
}

/** Scores every edge of a mesh from one query a poll. */
export function createMeshMonitor(config: MeshMonitorConfig, runtime: Runtime, registry: Registry): Poller {
  const { query, quantiles, rules, baselines, shard, maxEdges } = config
  const { clock, logger, signal } = runtime
  const gauges = createMeshGauges(registry, shard)
  const deadlineMs = pollDeadlineMs(config.pollIntervalMs)
  const maxBytes = maxAnswerBytes(config)
  const table = createEdgeTable({
    ...config,
    graceSeconds: config.edgeGraceSeconds,
    ageOptional: config.ownQuery === true,
  })
  const text = createEdgeText(quantiles)
  const page = createMeshMonitorPage({ query, rules, quantiles, shard, maxEdges })
  const stopped = (): boolean => signal.aborted
  let rendered: readonly Uint8Array[] = EDGE_FAMILY_HEADS.map((head) => Buffer.from(head))

  const ask = async (): Promise<string | Failure> => {
    const { prometheusUrl } = config
    const answer = await queryInstantText(runtime, { prometheusUrl, query, deadlineMs }, maxBytes)
    if (answer.kind === 'body') return answer.text
    if (answer.outcome !== 'too_large') return answer
    const room = `there is room for ${(maxBytes / 2 ** 20).toFixed(0)} MiB, by --max-edges ${maxEdges}`
    return { ...answer, detail: `${answer.detail}: ${room}; narrow --selector, or raise --max-edges` }
  }

  const take = async (parts: Iterable<Envelope>): Promise<number> => {
    let warnings = 0
    table.begin()
    for (const part of parts) {
      warnings += part.warnings
      let taken = 0
      for (const element of part.result) {
        table.take(element)
        if (++taken % 1_000 === 0) await nextTurn()
      }
      await nextTurn()
      if (stopped()) break
    }
    return warnings
  }

  /** @returns how many warnings the answer carries */
  const read = async (answer: string): Promise<number | Failure> => {
    try {
      return await take(vectorParts(answer, PART_CHARACTERS)).catch((error: unknown) => {
        if (!(error instanceof SyntaxError)) throw error
        return take([wholeVector(answer)])
      })
    } catch (error) {
      return unreadable(error, answer)
    }
  }

  /** Scores and renders all edges. */
  const scoreAll = async (warnings: number | Failure): Promise<Scored> => {
    const scored = newScored()
    const families = EDGE_FAMILY_HEADS.map((head): Uint8Array[] => [Buffer.from(head)])
    const nowSeconds = clock.monotonicMs() / 1000
    let done = 0
    for (const edge of table.edges) {
      if (warnings === 0 && table.removeVanished(edge, nowSeconds)) {
        scored.removed++
        continue
      }
      const reading =
        typeof warnings === 'number' ? table.read(edge, warnings) : missing(warnings.outcome, warnings.detail)
      const evaluation = score(table.watchesOf(edge), reading, rules)
      edge.anomalies += evaluation.anomalyCount ?? 0
      scored.verdicts[evaluation.verdict]++
      scored.outcomes[reading.outcome] = (scored.outcomes[reading.outcome] ?? 0) + 1
      // Without an answer nothing is known to have changed.
      if (typeof warnings === 'number') note(scored, edge, evaluation)
      text.add(edge.pair, evaluation, edge.anomalies)
      if (++done % EDGES_AT_ONCE === 0) {
        hand(families)
        await nextTurn()
        if (stopped()) break
      }
    }
    hand(families)
    rendered = families.flat()
    return scored
  }

  const hand = (families: readonly Uint8Array[][]): void => {
    text.take().forEach((lines, i) => {
      if (lines.length > 0) families[i]?.push(lines)
    })
  }

  return {
    ready: baselines.ready,
    exposition: () => {
      const taken = rendered
      rendered = [] // twice in memory would be too much
      return taken
    },
    poll: async () => {
      const askedMs = clock.monotonicMs()
      const answer = await ask()
      const answeredMs = clock.monotonicMs()
      const warnings = typeof answer === 'string' ? await read(answer) : answer
      if (stopped()) return { outcome: 'conn', detail: 'stopped while reading' }
      const readMs = clock.monotonicMs()
      const scored = await scoreAll(warnings)
      if (stopped()) return { outcome: 'conn', detail: 'stopped while scoring' }
      const { elsewhere, refused } = table.passedOver()
      const counts = typeof warnings === 'number' ? { verdicts: scored.verdicts, elsewhere, refused } : null
      page.note(table.edges, counts, clock.nowMs() / 1000)
      if (typeof warnings === 'number') table.end()
      config.onScored?.(table.edges)
      gauges.publish({
        verdicts: scored.verdicts,
        outcomes: scored.outcomes,
        refused: typeof warnings === 'number' ? refused : null,
      })
      const result = typeof warnings === 'number' ? resultOf({ ...scored, elsewhere, refused }, config) : warnings
      logger.info(
        {
          edges: table.edges.size,
          verdicts: scored.verdicts,
          outcomes: scored.outcomes,
          ...(typeof warnings === 'number' ? { refused } : { outcome: warnings.outcome }),
          removed: scored.removed,
          hottest: scored.hottest.map(shownHot),
          answerBytes: typeof answer === 'string' ? answer.length : null,
          milliseconds: {
            query: round(answeredMs - askedMs),
            read: round(readMs - answeredMs),
            score: round(clock.monotonicMs() - readMs),
          },
        },
        EVALUATED_MESH,
      )
      logChanges(logger, scored)
      return { outcome: result.outcome, detail: result.detail }
    },
    view: page.view,
    edges: createMonitoredEdges(config, runtime, table),
  }
}

function maxAnswerBytes({ maxEdges, shard, quantiles }: MeshMonitorConfig): number {
  // Every shard is sent all edges.
  const bytes = maxEdges * shard.count * (quantiles.length + 2) * SERIES_BYTES
  return Math.min(MOST_ANSWER_BYTES, Math.max(LEAST_ANSWER_BYTES, bytes))
}

/** What a poll made of the edges. */
interface Scored {
  readonly verdicts: Record<Verdict, number>
  readonly outcomes: Partial<Record<PollOutcome, number>>
  /** Hottest first. */
  readonly hottest: Hot[]
  /** Edges that became anomalous, or are no longer: the first of them. */
  readonly changes: { readonly pair: Pair; readonly was: Verdict; readonly evaluation: Evaluation }[]
  /** How many of them there are. */
  changed: number
  removed: number
}

function newScored(): Scored {
  return {
    verdicts: Object.fromEntries(VERDICTS.map((verdict) => [verdict, 0])) as Record<Verdict, number>,
    outcomes: {},
    hottest: [],
    changes: [],
    changed: 0,
    removed: 0,
  }
}

function note(scored: Scored, edge: MeshEdge, evaluation: Evaluation): void {
  const { pair, verdict: was } = edge
  const { verdict, quantiles } = evaluation
  const furthest = furthestOut(quantiles)
  edge.verdict = verdict
  edge.score = furthest?.score ?? null
  edge.yMs = furthest?.yMs ?? null
  edge.yhatMs = furthest?.yhatMs ?? null
  if ((verdict === 'anomalous') !== (was === 'anomalous')) {
    scored.changed++
    if (scored.changes.length < CHANGES_LOGGED) scored.changes.push({ pair, was: was ?? 'warming', evaluation })
  }
  const { hottest } = scored
  const heat = furthest?.score ?? 0
  if (heat <= 0 || (hottest.length === HOTTEST_LOGGED && heat <= (hottest.at(-1)?.score ?? 0))) return
  if (hottest.length === HOTTEST_LOGGED) hottest.pop()
  const place = hottest.findIndex((other) => other.score < heat)
  hottest.splice(place === -1 ? hottest.length : place, 0, { pair, evaluation, score: heat })
}

function furthestOut(quantiles: Evaluation['quantiles']): Evaluation['quantiles'][number] | undefined {
  let furthest = quantiles[0]
  for (const one of quantiles) if ((one.score ?? -1) > (furthest?.score ?? -1)) furthest = one
  return furthest
}

/** What the poll came to as a whole: what most edges came to, where none has a sample. */
function resultOf(
  {
    outcomes,
    elsewhere,
    refused,
  }: Pick<Scored, 'outcomes'> & { readonly elsewhere: number; readonly refused: Readonly<Record<Refusal, number>> },
  { sourceLabel, destinationLabel, ownQuery = false }: MeshMonitorConfig,
): PollResult {
  const { empty: absent = 0, ...inAnswer } = outcomes
  const [commonest] = Object.entries(inAnswer).toSorted(([, a], [, b]) => b - a) as [PollOutcome, number][]
  if ((outcomes.warnings ?? 0) > 0)
    return { outcome: 'warnings', detail: 'Prometheus warns that the answer may not be complete' }
  if ((outcomes.ok ?? 0) > 0) return { outcome: 'ok', detail: '' }
  if (commonest !== undefined) {
    const [outcome, count] = commonest
    const total = Object.values(inAnswer).reduce((sum, each) => sum + each, 0)
    return { outcome, detail: `no edge has a sample; most came to ${outcome}: ${count} of ${total}` }
  }
  if (elsewhere > 0) return { outcome: 'ok', detail: '' }
  const gone = absent > 0 ? `; ${absent} edges that were there are gone` : ''
  return {
    outcome: 'empty',
    detail:
      refused.unknown + refused.bad_name > 0
        ? `every edge has an end that is unknown or nameless: are --source-label ${sourceLabel} and --destination-label ${destinationLabel} labels of ${ownQuery ? "--query's answer" : "Istio's metrics"}?${gone}`
        : ownQuery
          ? `no edge: does --query answer anything in this Prometheus?${gone}`
          : `no edge: does --selector match istio_request_duration_milliseconds_bucket, with reporter="source", in this Prometheus?${gone}`,
  }
}

function logChanges(logger: Runtime['logger'], { changes, changed }: Scored): void {
  for (const { pair, was, evaluation } of changes) {
    const { verdict, quantiles } = evaluation
    const line = { ...shownPair(pair), was, verdict, quantiles: quantiles.map(shownQuantile) }
    logger.info(line, verdict === 'anomalous' ? 'edge became anomalous' : 'edge is no longer anomalous')
  }
  if (changed > changes.length) logger.info({ edges: changed - changes.length }, 'more edges changed likewise')
}

function shownHot({ pair, evaluation, score: heat }: Hot): object {
  return { ...shownPair(pair), verdict: evaluation.verdict, score: round(heat) }
}

function shownPair({ source, destination }: Pair): Pair {
  return { source: plainName(source), destination: plainName(destination) }
}

function shownQuantile({ quantile, yMs, yhatMs, yMaxMs }: Evaluation['quantiles'][number]): object {
  return { quantile, yMs, yhatMs: round(yhatMs), yMaxMs: round(yMaxMs) }
}

/** Digits for people. */
function round(value: number): number {
  return Number(value.toPrecision(4))
}
