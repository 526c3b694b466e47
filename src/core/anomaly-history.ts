import type { PairVerdict, Poll } from './incident.js'
import { MONITOR_GAUGES } from './metric-names.js'
import { type Pair, pairKey } from './pair.js'
import { promqlOneOf, SERIES_LABEL } from './promql.js'
import type { Matrix } from './series.js'
import { VERDICTS } from './score.js'

const { anomalyCount, sampleTimestamp, verdict } = MONITOR_GAUGES

/**
 * The newest moment is not asked for: a scrape that just happened may not be stored yet, and what is read once must be
 * what a restart, or another replica, reads again.
 */
export const SETTLE_MS = 1_000

/** By default VictoriaMetrics answers what was 30 s ago, and nothing of a shorter range. */
const HINT = 'VictoriaMetrics needs -search.latencyOffset=1s'

/** What a poll of the history comes to that holds no time at all, or for a while no new one. */
export const NO_TIME = { outcome: 'empty', detail: `Prometheus answered without a single time; ${HINT}` } as const
export const NO_NEW_TIME = {
  outcome: 'stale',
  detail: `Prometheus answers with the same times again and again; ${HINT}`,
} as const

/** The series that tells silence from no answer: it is there at every step, with the step's own time. */
const POLL = 'poll'
export const POLL_EXPRESSION = `label_replace(vector(time()), "${SERIES_LABEL}", "${POLL}", "", "")`

/**
 * What the monitors exported, at each multiple of the poll interval within the last `rangeMs`, by Prometheus's clock. A
 * subquery's steps lie at the same times whoever asks and whenever, so polls are the same for every replica and every
 * restart. One more series, `poll`, is there at every step: it tells silence from no answer.
 */
export function anomalyHistoryQuery(
  pairs: readonly Pair[],
  { rangeMs, stepMs }: { rangeMs: number; stepMs: number },
): string {
  const steps = [...historyExpressions(pairs), POLL_EXPRESSION]
  return `(${steps.join(' or ')})[${rangeMs}ms:${stepMs}ms] offset ${SETTLE_MS}ms`
}

/**
 * What `readEdges` reads of some pairs. Of more edges than these, where the names of two pairs make up a third.
 *
 * @param selector - matchers that every series has to match besides, as between braces; empty for none
 */
export function historyExpressions(pairs: readonly Pair[], selector = ''): readonly string[] {
  const distinct = (names: readonly string[]): string => promqlOneOf([...new Set(names)])
  const matchers = [
    ...(selector === '' ? [] : [selector]),
    `source=~${distinct(pairs.map(({ source }) => source))}`,
    `destination=~${distinct(pairs.map(({ destination }) => destination))}`,
  ].join(',')
  return [`{__name__=~"${anomalyCount.name}|${sampleTimestamp.name}",${matchers}}`, `${verdict.name}{${matchers}} == 1`]
}

export interface HistoryRules {
  readonly pairs: readonly Pair[]
  /** A sample older than this at the time of a poll is stale: its monitor is gone, whatever Prometheus still serves. */
  readonly staleAfterSeconds: number
}

/** What one monitor exported at one time. */
interface Exported {
  anomalyCount?: number
  sampleSeconds?: number
  verdict?: string
}

/** One edge's verdicts by time, unix seconds; a time that is not there is silence. */
export interface EdgeVerdicts extends Pair {
  readonly verdicts: ReadonlyMap<number, PairVerdict>
}

export interface EdgeHistory {
  /** Of the polls, rising. */
  readonly timesSeconds: readonly number[]
  /** By pair key. */
  readonly edges: ReadonlyMap<string, EdgeVerdicts>
}

/** Of the polls in an answer, rising; none for an answer that says nothing. */
export function pollTimes(matrix: Matrix): readonly number[] {
  return [...stepsIn(matrix).values()]
}

/** A step's time in an answer and in the value of `time()` may differ by how they are rounded. */
const SAME_TIME_SECONDS = 0.01

/**
 * The steps of an answer, rising: the time that it gives -> the multiple of the step, at which Prometheus takes a subquery.
 * VictoriaMetrics counts from when it was asked, which is put right here; and it repeats what it takes for settled at every
 * step after it, which is told by the time that such a step holds, and is none.
 */
export function stepsIn({ result }: Matrix): ReadonlyMap<number, number> {
  const { timesSeconds = [], values = [] } = result.find(({ labels }) => labels.get(SERIES_LABEL) === POLL) ?? {}
  const stepMs = Math.round(1000 * ((timesSeconds[1] ?? NaN) - (timesSeconds[0] ?? NaN)))
  const steps = new Map<number, number>()
  for (const [i, timeSeconds] of timesSeconds.entries()) {
    const held = values[i] ?? NaN
    const slotSeconds = (Math.floor(Math.round(1000 * timeSeconds) / stepMs) * stepMs) / 1000
    // Answers of Prometheus's that were kept from before hold a 1 everywhere.
    if (held === 1) steps.set(timeSeconds, timeSeconds)
    else if (Math.abs(held - timeSeconds) <= SAME_TIME_SECONDS)
      steps.set(timeSeconds, stepMs > 0 ? slotSeconds : timeSeconds)
  }
  return steps
}

/** One monitor of an edge, several of which may be replicas, by time. */
type Monitor = Map<number, Exported>

/** All edges in an answer. Of several monitors of one edge the strongest verdict holds. */
export function readEdges(matrix: Matrix, { staleAfterSeconds }: Pick<HistoryRules, 'staleAfterSeconds'>): EdgeHistory {
  const steps = stepsIn(matrix)
  const edges = new Map<string, Pair & { readonly monitors: Map<string, Monitor> }>()
  for (const { labels, timesSeconds: times, values } of matrix.result) {
    const [source, destination] = [labels.get('source'), labels.get('destination')]
    if (!source || !destination) continue
    const name = labels.get('__name__')
    const held = labels.get('verdict')
    const key = pairKey({ source, destination })
    let edge = edges.get(key)
    if (edge === undefined) edges.set(key, (edge = { source, destination, monitors: new Map<string, Monitor>() }))
    const monitorKey = monitorOf(labels)
    let monitor = edge.monitors.get(monitorKey)
    if (monitor === undefined) edge.monitors.set(monitorKey, (monitor = new Map<number, Exported>()))
    for (const [i, timeSeconds] of times.entries()) {
      const time = steps.get(timeSeconds)
      if (time === undefined) continue
      let entry = monitor.get(time)
      if (entry === undefined) monitor.set(time, (entry = {}))
      if (name === anomalyCount.name) entry.anomalyCount = values[i] ?? NaN
      else if (name === sampleTimestamp.name) entry.sampleSeconds = values[i] ?? NaN
      else if (held !== undefined) entry.verdict = held
    }
  }
  return {
    timesSeconds: [...steps.values()],
    edges: new Map(
      [...edges].map(([key, { source, destination, monitors }]) => {
        const verdicts = new Map<number, PairVerdict>()
        for (const monitor of monitors.values()) {
          for (const [time, entry] of monitor) {
            const verdict = verdictOf(entry, time, staleAfterSeconds)
            verdicts.set(time, stronger(verdicts.get(time) ?? SILENCE, verdict))
          }
        }
        return [key, { source, destination, verdicts }]
      }),
    ),
  }
}

/** What tells a monitor from others: all that its series are labelled with, but for what they say. */
function monitorOf(labels: Matrix['result'][number]['labels']): string {
  const own: string[] = []
  for (const [name, value] of labels) {
    if (name === '__name__' || name === 'source' || name === 'destination' || name === 'verdict') continue
    own.push(JSON.stringify([name, value]))
  }
  return own.sort().join()
}

export const SILENCE: PairVerdict = { kind: 'unknown', reason: 'no_data' }

/** The polls in an answer to `anomalyHistoryQuery`, in time order. */
export function readPolls(matrix: Matrix, { pairs, staleAfterSeconds }: HistoryRules): readonly Poll[] {
  const { timesSeconds, edges } = readEdges(matrix, { staleAfterSeconds })
  const watched = pairs.map((pair) => edges.get(pairKey(pair)))
  return timesSeconds.map((timestampSeconds) => ({
    timestampSeconds,
    verdicts: watched.map((edge) => edge?.verdicts.get(timestampSeconds) ?? SILENCE),
  }))
}

function verdictOf(
  { anomalyCount: count, sampleSeconds, verdict: held }: Exported,
  atSeconds: number,
  staleAfterSeconds: number,
): PairVerdict {
  if (count === undefined) {
    const known = VERDICTS.find((candidate) => candidate === held)
    return { kind: 'unknown', reason: known === 'low_traffic' || known === 'warming' ? known : 'no_data' }
  }
  const ageSeconds = sampleSeconds === undefined ? Infinity : atSeconds - sampleSeconds
  if (!(Math.abs(ageSeconds) <= staleAfterSeconds)) return { kind: 'unknown', reason: 'stale' }
  if (!(count >= 0 && Number.isFinite(count))) return { kind: 'unknown', reason: 'no_data' }
  return count > 0 ? { kind: 'anomalous', anomalyCount: count } : { kind: 'ok' }
}

/** Replicas watch the same pair and are not added up: an anomaly seen by one stands, and anything known beats silence. */
function stronger(a: PairVerdict, b: PairVerdict): PairVerdict {
  return rankOf(b) > rankOf(a) ? b : a
}

function rankOf(verdict: PairVerdict): number {
  switch (verdict.kind) {
    case 'anomalous':
      return 10 + verdict.anomalyCount
    case 'ok':
      return 9
    case 'unknown':
      return ['no_data', 'stale', 'warming', 'low_traffic'].indexOf(verdict.reason)
  }
}
