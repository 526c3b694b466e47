import assert from 'node:assert/strict'
import test from 'node:test'

import { Counter, Gauge, Registry } from 'prom-client'

import { createEdgeText, EDGE_FAMILY_HEADS } from '../src/core/exposition-text.js'
import { PAIR_GAUGES, pairValues, QUANTILE_GAUGES, quantileValues } from '../src/core/gauge-values.js'
import { MONITOR_COUNTERS, MONITOR_GAUGES } from '../src/core/metric-names.js'
import type { Pair } from '../src/core/pair.js'
import { type Evaluation, type ScoredQuantile, VERDICTS } from '../src/core/score.js'
import { type Random, seededRandom } from '../src/testbed/random.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

const QUANTILES = [0.5, 0.99]

const PIECES = [
  'cart',
  '"',
  '\\',
  '\n',
  '}',
  '{',
  ' ',
  '#',
  '購物',
  '\u0000',
  '\u2028',
  '😀',
  '=',
  "'",
  '\t',
  '\\n',
  'é',
]

function hostileName(random: Random): string {
  return Array.from({ length: 1 + Math.floor(random() * 5) }, () => PIECES[Math.floor(random() * PIECES.length)]).join(
    '',
  )
}

/** A number of any size, or none. */
function anyValue(random: Random): number | null {
  const kind = Math.floor(random() * 8)
  if (kind === 0) return null
  if (kind === 1) return NaN
  if (kind === 2) return Infinity
  if (kind === 3) return Math.floor(random() * 10)
  if (kind === 4) return -0
  return (random() - 0.2) * 10 ** Math.floor(random() * 60 - 30)
}

function anyEvaluation(random: Random): Evaluation {
  const value = (): number | null => anyValue(random)
  return {
    verdict: VERDICTS[Math.floor(random() * VERDICTS.length)]!,
    timestampSeconds: value(),
    requestsPerSecond: value(),
    anomalyCount: value(),
    quantiles: QUANTILES.filter(() => random() < 0.8).map((quantile): ScoredQuantile => ({
      quantile,
      yMs: value(),
      yhatMs: value() ?? 0,
      yMinMs: value() ?? 0,
      yMaxMs: value() ?? 0,
      maeMs: value(),
      mape: value(),
      score: value(),
      anomalous: random() < 0.5,
      saturated: random() < 0.5,
      driftRatio: value(),
      beyondTraining: random() < 0.5,
    })),
  }
}

interface Edge {
  readonly pair: Pair
  readonly evaluation: Evaluation
  readonly anomalies: number
}

/** Edges with names that are all different. */
function anyEdges(seed: number, count: number): readonly Edge[] {
  const random = seededRandom(seed)
  const edges = new Map<string, Edge>()
  while (edges.size < count) {
    const pair = { source: hostileName(random), destination: hostileName(random) }
    // prom-client takes `,` and `:` for its own, and mixes such series up.
    edges.set(JSON.stringify(pair), { pair, evaluation: anyEvaluation(random), anomalies: Math.floor(random() * 1e6) })
  }
  return [...edges.values()]
}

function ours(edges: readonly Edge[], slice: number): string {
  const text = createEdgeText(QUANTILES)
  const families = EDGE_FAMILY_HEADS.map((head): Uint8Array[] => [Buffer.from(head)])
  const hand = (): void => text.take().forEach((lines, i) => families[i]!.push(lines))
  edges.forEach(({ pair, evaluation, anomalies }, i) => {
    text.add(pair, evaluation, anomalies)
    if (i % slice === 0) hand()
  })
  hand()
  return Buffer.concat(families.flat()).toString()
}

async function promClients(edges: readonly Edge[]): Promise<string> {
  const registry = new Registry()
  const gauge = (key: keyof typeof MONITOR_GAUGES): Gauge => {
    const { name, help, labels } = MONITOR_GAUGES[key]
    return new Gauge({ name, help, labelNames: [...labels], registers: [registry] })
  }
  const gauges = Object.fromEntries(
    (Object.keys(MONITOR_GAUGES) as (keyof typeof MONITOR_GAUGES)[]).map((key) => [key, gauge(key)]),
  ) as Record<keyof typeof MONITOR_GAUGES, Gauge>
  const { name, help, labels: labelNames } = MONITOR_COUNTERS.anomalies
  const counter = new Counter({ name, help, labelNames: [...labelNames], registers: [registry] })
  const set = (key: keyof typeof MONITOR_GAUGES, labels: Record<string, string>, value: number | null): void => {
    if (value !== null && Number.isFinite(value)) gauges[key].set(labels, value)
  }
  for (const { pair, evaluation, anomalies } of edges) {
    const labels = { source: pair.source, destination: pair.destination }
    const values = pairValues(evaluation)
    for (const key of PAIR_GAUGES) set(key, labels, values[key])
    for (const quantile of QUANTILES) {
      const scored = quantileValues(evaluation, quantile)
      for (const key of QUANTILE_GAUGES) set(key, { ...labels, quantile: String(quantile) }, scored[key])
    }
    for (const verdict of VERDICTS) set('verdict', { ...labels, verdict }, verdict === evaluation.verdict ? 1 : 0)
    counter.inc(labels, anomalies)
  }
  return registry.metrics()
}

/** Lines of a text whose line ends are no part of a name, in an order of their own. */
const linesOf = (text: string): readonly string[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .sort()

for (const slice of [1, 7, 10_000]) {
  test(`mesh exposition: the lines are those of prom-client, byte for byte, handed over ${slice} edges at a time`, async () => {
    for (const seed of [1, 2, 3]) {
      const edges = anyEdges(seed, 300)
      const lines = linesOf(ours(edges, slice))
      assert.ok(lines.length > 300 * 8)
      assert.deepEqual(lines, linesOf(await promClients(edges)))
    }
  })
}

test('mesh exposition: a family is one block under its help and type', () => {
  const names = ours(anyEdges(4, 50), 3)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => /^(?:# (?:HELP|TYPE) )?(\w+)/.exec(line)?.[1])
  const blocks = names.filter((name, i) => name !== names[i - 1])
  assert.deepEqual(blocks, [...new Set(names)])
  assert.equal(blocks.length, EDGE_FAMILY_HEADS.length)
})

test('mesh exposition: many distinct edges make as many series, `,` and `:` in their names or not', () => {
  const names = ['a', 'b', 'a,destination:b', 'a:b', ',', 'b,', ':']
  const edges = names.flatMap((source) =>
    names.map((destination): Edge => ({ pair: { source, destination }, evaluation: EMPTY, anomalies: 1 })),
  )
  const series = ours(edges, 10)
    .split('\n')
    .filter((line) => line.startsWith('lab7_anomalies_total{'))
  assert.equal(new Set(series).size, names.length ** 2)
})

const EMPTY: Evaluation = {
  verdict: 'no_data',
  timestampSeconds: null,
  requestsPerSecond: null,
  quantiles: [],
  anomalyCount: null,
}

test('mesh exposition: promtool accepts it, hostile names and all', { skip: noPromtool() }, () => {
  assertPromtoolAccepts(ours(anyEdges(5, 200), 9))
})

test('mesh exposition: what is taken is gone, and does not change when more is added', () => {
  const text = createEdgeText([0.5])
  text.add({ source: 'a', destination: 'b' }, EMPTY, 1)
  const taken = text.take()
  const before = Buffer.concat([...taken]).toString()
  text.add({ source: 'c', destination: 'd' }, EMPTY, 2)
  assert.equal(Buffer.concat([...taken]).toString(), before)
  assert.match(before, /^lab7_verdict\{source="a",destination="b",verdict="ok"\} 0$/m)
  const next = Buffer.concat([...text.take()]).toString()
  assert.doesNotMatch(next, /"a"/)
  assert.deepEqual(Buffer.concat([...text.take()]).toString(), '')
})
