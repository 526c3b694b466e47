/*
 * What the monitors of a whole mesh exported, as far as the incident rule can tell it from nothing: the anomalies of all edges,
 * and everything of the warm ones. Of a cold edge without anomaly, ok and silence are the same.
 *
 * Two questions, since Prometheus's work is to find the series, hardly to go through their steps. Measured on Prometheus 2.42 with
 * 10,000 edges, 0.5 % of them anomalous at random and 100 warm, CPU of Prometheus per poll: 420 ms for all counts and sample
 * times; 420 ms for those of edges with an anomaly within the range, found by a join with max_over_time, in one query; 90 ms for
 * the counts above 0 with the warm edges by name, and 5 ms to 20 ms for those that the answer was the first to name. Over five
 * minutes of history it was 1,820 ms, 1,590 ms, and 160 ms with 40 ms.
 */
import {
  type EdgeVerdicts,
  historyExpressions,
  POLL_EXPRESSION,
  readEdges,
  SETTLE_MS,
  SILENCE,
  stepsIn,
} from './anomaly-history.js'
import type { PairVerdict } from './incident.js'
import type { MeshPoll } from './mesh-incident.js'
import { MONITOR_GAUGES, SELF_METRICS } from './metric-names.js'
import { type Pair, pairKey } from './pair.js'
import { SERIES_LABEL } from './promql.js'
import type { Matrix } from './series.js'

const { anomalyCount, sampleTimestamp } = MONITOR_GAUGES
const MONITORS = 'monitors'

/** Where in time is asked. */
export interface MeshRange {
  readonly rangeMs: number
  readonly stepMs: number
  /** The last moment, unix seconds by Prometheus's clock; null for the newest that is settled. */
  readonly atSeconds: number | null
}

/** Of more edges than these not the names are given, but all are asked for. */
export const MAX_NAMED = 2_000

/**
 * The anomalies of all edges, and the whole history of the warm ones, at each multiple of the step. One more series tells
 * silence from no answer, one how many monitors Prometheus knows.
 *
 * @param selector - matchers that the monitors' series have to match, as between braces; empty for none
 */
export function meshHistoryQuery(warm: readonly Pair[], selector: string, range: MeshRange): string {
  const monitors = `count(${SELF_METRICS.buildInfo.name}{${joined('command="monitor"', selector)}})`
  return subquery(
    [
      // First: `or` drops what has the labels of something on its left, whatever its name, and with them the sample times.
      ...wholeHistory(warm, selector),
      `${anomalyCount.name}${selector === '' ? '' : `{${selector}}`} > 0`,
      `label_replace(${monitors}, "${SERIES_LABEL}", "${MONITORS}", "", "")`,
      POLL_EXPRESSION,
    ],
    range,
  )
}

/** The whole history of some edges. */
export function edgeHistoryQuery(edges: readonly Pair[], selector: string, range: MeshRange): string {
  return subquery([...wholeHistory(edges, selector), POLL_EXPRESSION], range)
}

function wholeHistory(edges: readonly Pair[], selector: string): readonly string[] {
  if (edges.length === 0) return []
  if (edges.length <= MAX_NAMED) return historyExpressions(edges, selector)
  return [`{${joined(`__name__=~"${anomalyCount.name}|${sampleTimestamp.name}"`, selector)}}`]
}

function joined(matcher: string, selector: string): string {
  return selector === '' ? matcher : `${matcher},${selector}`
}

function subquery(expressions: readonly string[], { rangeMs, stepMs, atSeconds }: MeshRange): string {
  const when = atSeconds === null ? `offset ${SETTLE_MS}ms` : `@ ${atSeconds}`
  return `(${expressions.join(' or ')})[${rangeMs}ms:${stepMs}ms] ${when}`
}

/** The edges with an anomaly after `afterSeconds` that are not among the warm ones: they have to be asked for. */
export function newlyAnomalous(
  { result }: Matrix,
  { warm, afterSeconds }: { readonly warm: ReadonlySet<string>; readonly afterSeconds: number },
): readonly Pair[] {
  const found = new Map<string, Pair>()
  for (const { labels, timesSeconds, values } of result) {
    const [source, destination] = [labels.get('source'), labels.get('destination')]
    if (labels.get('__name__') !== anomalyCount.name || !source || !destination) continue
    const key = pairKey({ source, destination })
    if (warm.has(key) || found.has(key)) continue
    if (values.some((value, i) => value > 0 && (timesSeconds[i] ?? 0) > afterSeconds))
      found.set(key, { source, destination })
  }
  return [...found.values()]
}

export interface MeshHistory {
  /** In time order. */
  readonly polls: readonly MeshPoll[]
  /** How many monitors Prometheus knew of at the last poll. */
  readonly monitors: number
}

/**
 * @param answer - to `meshHistoryQuery`
 * @param more - to `edgeHistoryQuery` for the edges that were newly anomalous in it; null when there were none
 */
export function readMeshHistory(
  answer: Matrix,
  more: Matrix | null,
  rules: { readonly staleAfterSeconds: number },
): MeshHistory {
  const { timesSeconds, edges } = readEdges(answer, rules)
  const known = new Map<string, EdgeVerdicts>([...edges, ...(more === null ? [] : readEdges(more, rules).edges)])
  const verdictsOf = (timestampSeconds: number): MeshPoll['verdicts'] => {
    const verdicts = new Map<string, Pair & { readonly verdict: PairVerdict }>()
    for (const [key, { source, destination, verdicts: byTime }] of known) {
      verdicts.set(key, { source, destination, verdict: byTime.get(timestampSeconds) ?? SILENCE })
    }
    return verdicts
  }
  const monitors = answer.result.find(({ labels }) => labels.get(SERIES_LABEL) === MONITORS)
  const last = [...stepsIn(answer).keys()].at(-1)
  return {
    polls: timesSeconds.map((timestampSeconds) => ({ timestampSeconds, verdicts: verdictsOf(timestampSeconds) })),
    monitors: monitors?.values[monitors.timesSeconds.findIndex((time) => time === last)] ?? 0,
  }
}
