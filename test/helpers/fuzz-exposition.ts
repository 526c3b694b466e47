import assert from 'node:assert/strict'

import fc from 'fast-check'
import { Registry } from 'prom-client'

import { createEdgeText, EDGE_FAMILY_HEADS } from '../../src/core/exposition-text.js'
import { coldState, type IncidentRules } from '../../src/core/incident.js'
import { NO_TRAIL } from '../../src/core/evidence.js'
import type { MeshState } from '../../src/core/mesh-incident.js'
import { MONITOR_GAUGES } from '../../src/core/metric-names.js'
import { type Pair, pairKey } from '../../src/core/pair.js'
import { type Evaluation, type ScoredQuantile, VERDICTS } from '../../src/core/score.js'
import { createIncidentGauges, createMeshIncidentGauges, createMonitorGauges } from '../../src/io/gauges.js'
import { type FuzzProperty, property } from './fuzz.js'
import { checkedExposition, labelSets } from './fuzz-exposition-checks.js'
import { anyEdge, anyName, anyNumber, damaged, serviceName } from './fuzz-inputs.js'
import { noPromtool, promtoolParses } from './promtool.js'
import { parseStrictly } from './strict-exposition.js'

const QUANTILES = [0.5, 0.99]

const orNull = (number: fc.Arbitrary<number>): fc.Arbitrary<number | null> =>
  fc.oneof({ weight: 5, arbitrary: number }, { weight: 1, arbitrary: fc.constant(null) })

/** Worse than any that a poll comes to: its numbers may be anything. */
const evaluation: fc.Arbitrary<Evaluation> = fc.record({
  verdict: fc.constantFrom(...VERDICTS),
  timestampSeconds: orNull(anyNumber),
  requestsPerSecond: orNull(anyNumber),
  anomalyCount: fc.constantFrom(null, 0, 1, 2),
  quantiles: fc.subarray(QUANTILES).chain((quantiles) =>
    fc.tuple(
      ...quantiles.map((quantile) =>
        fc.record<ScoredQuantile>({
          quantile: fc.constant(quantile),
          yMs: orNull(anyNumber),
          yhatMs: anyNumber,
          yMinMs: anyNumber,
          yMaxMs: anyNumber,
          maeMs: orNull(anyNumber),
          mape: orNull(anyNumber),
          score: orNull(anyNumber),
          anomalous: fc.constantFrom(true, false, null),
          saturated: fc.boolean(),
          driftRatio: orNull(anyNumber),
          beyondTraining: fc.boolean(),
        }),
      ),
    ),
  ),
})

/** What the contract says stands there of one quantile: what was measured, and nothing that was not. */
function toldOf({ quantiles }: Evaluation, key: keyof typeof FIELDS): ReadonlyMap<string, number> {
  const told = new Map<string, number>()
  for (const scored of quantiles) {
    const value = scored[FIELDS[key]]
    if (scored.yMs !== null && value !== null && Number.isFinite(value)) told.set(String(scored.quantile), value + 0) // -0 is written as 0
  }
  return told
}
const FIELDS = {
  y: 'yMs',
  yhat: 'yhatMs',
  yMin: 'yMinMs',
  yMax: 'yMaxMs',
  mae: 'maeMs',
  mape: 'mape',
  score: 'score',
  drift: 'driftRatio',
} as const

function checkTold(
  families: ReturnType<typeof checkedExposition>,
  { source, destination }: Pair,
  told: Evaluation,
): void {
  const own = (name: string): readonly (readonly [ReadonlyMap<string, string>, number])[] =>
    (families.get(name)?.samples ?? []).flatMap(({ labels, value }) =>
      labels.get('source') === source && labels.get('destination') === destination ? [[labels, value]] : [],
    )
  for (const key of Object.keys(FIELDS) as (keyof typeof FIELDS)[]) {
    const shown = new Map(own(MONITOR_GAUGES[key].name).map(([labels, value]) => [labels.get('quantile'), value]))
    assert.deepEqual(shown, toldOf(told, key))
  }
  const held = own('lab7_verdict')
    .filter(([, value]) => value === 1)
    .map(([labels]) => labels.get('verdict'))
  assert.deepEqual(held, [told.verdict])
  const { anomalyCount } = told
  assert.deepEqual(
    own('lab7_anomaly_count').map(([, value]) => value),
    anomalyCount === null ? [] : [anomalyCount],
  )
  assert.equal(own('lab7_anomalies_total').length, 1)
}

const wellFormed = ({ source, destination }: Pair): boolean => !/\p{Surrogate}/u.test(source + '|' + destination)

/** Edges of different names, none of which a mesh's monitor would refuse for its letters. */
const edges = fc.uniqueArray(anyEdge.filter(wellFormed), { maxLength: 12, selector: pairKey })

const pairs = fc.uniqueArray(fc.record({ source: serviceName, destination: serviceName }), {
  minLength: 1,
  maxLength: 8,
  selector: pairKey,
})

const RULES: Omit<IncidentRules, 'pairs'> = {
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}

const keysOf = (all: readonly Pair[]): readonly string[] =>
  all.map(({ source, destination }) => JSON.stringify([source, destination])).sort()

const noTool = noPromtool() !== false

/** Small ones, so that what happens to them happens at a place that matters. */
const EXPOSITIONS = [
  '# HELP a_total Some\\nhelp\n# TYPE a_total counter\na_total{b="c",d="e \\"\\\\\\n"} 1\na_total{b="f"} 2.5e-3\n',
  '# HELP h h\n# TYPE h histogram\nh_bucket{le="0.5"} 1\nh_bucket{le="+Inf"} 2\nh_sum 1\nh_count 2\n# TYPE g gauge\ng -0.5\n',
]

export const properties: readonly FuzzProperty[] = [
  property(
    { name: 'edges: label sets and values come out as they went in, and nothing that is no number', runs: 1_500 },
    fc.tuple(
      edges.chain((all) => fc.tuple(...all.map((pair) => fc.tuple(fc.constant(pair), evaluation)))),
      fc.integer({ min: 1, max: 5 }),
    ),
    ([all, slice]) => {
      const text = createEdgeText(QUANTILES)
      const families = EDGE_FAMILY_HEADS.map((head): Uint8Array[] => [Buffer.from(head)])
      const hand = (): void => text.take().forEach((lines, i) => families[i]!.push(lines))
      all.forEach(([pair, told], i) => {
        text.add(pair, told, told.anomalyCount ?? 0)
        if (i % slice === 0) hand()
      })
      hand()
      const shown = checkedExposition(Buffer.concat(families.flat()))
      assert.deepEqual(labelSets(shown.get('lab7_verdict'), 'source', 'destination'), keysOf(all.map(([pair]) => pair)))
      for (const [pair, told] of all) checkTold(shown, pair, told)
    },
  ),

  property(
    { name: "a pair's gauges show the last evaluation and nothing of those before", runs: 800 },
    fc.tuple(
      fc.record({ source: serviceName, destination: serviceName }),
      fc.array(evaluation, { minLength: 1, maxLength: 4 }),
    ),
    async ([pair, told]) => {
      const registry = new Registry()
      const gauges = createMonitorGauges(registry, pair, QUANTILES)
      for (const one of told) {
        gauges.publish(one)
        const shown = checkedExposition(await registry.metrics())
        checkTold(shown, pair, one)
      }
    },
  ),

  property(
    { name: 'the incident daemon shows every pair it watches', runs: 700 },
    fc.tuple(
      pairs,
      fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 8, maxLength: 8 }),
      fc.constantFrom(1, 2, null),
    ),
    async ([all, levels, severity]) => {
      const registry = new Registry()
      const rules = { ...RULES, pairs: all.map((pair) => ({ ...pair, accumulatorThreshold: 5 })) }
      const gauges = createIncidentGauges(registry, rules)
      const accumulators = all.map((_, i) => levels[i] ?? 0)
      const open = severity === null ? null : ({ startedSeconds: 1_700_000_000, severity } as const)
      gauges.publish({ ...coldState(rules), accumulators, open })
      const shown = checkedExposition(await registry.metrics())
      const { samples = [] } = shown.get('lab7_incident_accumulator') ?? {}
      assert.deepEqual(
        samples.map(({ labels, value }) => [labels.get('source'), labels.get('destination'), value]),
        all.map(({ source, destination }, i) => [source, destination, accumulators[i]]),
      )
      const started = shown.get('lab7_incident_started_timestamp_seconds')?.samples.length
      assert.equal(started, open === null ? 0 : 1)
    },
  ),

  property(
    { name: 'the incident daemon shows every warm edge of a mesh, whatever its name', runs: 1_000 },
    fc.tuple(edges, fc.array(fc.double({ min: 0.1, max: 20, noNaN: true }), { minLength: 12, maxLength: 12 })),
    async ([all, levels]) => {
      const registry = new Registry()
      const gauges = createMeshIncidentGauges(registry)
      const state: MeshState = {
        edges: all.map((pair, i) => ({
          ...pair,
          key: pairKey(pair),
          accumulator: levels[i]!,
          accumulatorThreshold: 5,
          heardSeconds: null,
          incident: i < 4 ? pairKey(all[0]!) : null,
          trail: NO_TRAIL,
        })),
        incidents: all
          .slice(0, 1)
          .map((first) => ({ key: pairKey(first), first, startedSeconds: 1_700_000_000, severity: 1 })),
      }
      gauges.publish(state, 1)
      const own = Buffer.from(`${await registry.metrics()}\n`)
      const shown = checkedExposition(Buffer.concat([own, ...gauges.rendered()]))
      const { samples = [] } = shown.get('lab7_incident_accumulator') ?? {}
      assert.deepEqual(
        samples.map(({ labels, value }) => [labels.get('source'), labels.get('destination'), value]),
        all.map(({ source, destination }, i) => [source, destination, levels[i]]),
      )
      assert.equal(shown.get('lab7_incident_component_temperature')?.samples.length ?? 0, state.incidents.length)
    },
  ),

  property(
    { name: 'what these tests take for an exposition, promtool takes for one', runs: 100 },
    fc.oneof(
      damaged(EXPOSITIONS),
      damaged(EXPOSITIONS),
      anyName.map((name) => Buffer.from(`# TYPE a gauge\na{b="${name}"} 1\n`)),
    ),
    (bytes) => {
      if (noTool) return
      let taken = true
      try {
        parseStrictly(bytes)
      } catch {
        taken = false
      }
      if (taken) assert.equal(promtoolParses(bytes), null)
    },
  ),
]
