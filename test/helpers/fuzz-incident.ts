import assert from 'node:assert/strict'

import fc from 'fast-check'

import { readPolls } from '../../src/core/anomaly-history.js'
import { type Evidence, nextTrails, noTrails, type Trail, unknownTrails } from '../../src/core/evidence.js'
import {
  type IncidentHistory,
  MAX_INCIDENTS,
  MAX_TRANSITIONS,
  withTransition,
} from '../../src/core/incident-history.js'
import {
  coldState,
  hottestState,
  type IncidentRules,
  type IncidentState,
  next,
  type PairVerdict,
  type Poll,
  temperatureOf,
  transition,
} from '../../src/core/incident.js'
import {
  COLD_MESH,
  hottestMesh,
  meshNext,
  type MeshPoll,
  type MeshRules,
  type MeshState,
  sameMesh,
} from '../../src/core/mesh-incident.js'
import { type Pair, pairKey } from '../../src/core/pair.js'
import { parseAnswer } from '../../src/core/series.js'
import { matrixAnswer } from './fake-runtime.js'
import { type FuzzProperty, property } from './fuzz.js'
import {
  type Heard,
  type OracleIncident,
  oracleMeshPoll,
  type OracleMesh,
  type OraclePair,
  oraclePoll,
} from './incident-oracle.js'

const T0 = 1_700_000_000
const POLL_SECONDS = 5

/** Halves, so that sums are exact in whatever order. */
const halves = (min: number, max: number): fc.Arbitrary<number> =>
  fc.integer({ min: 2 * min, max: 2 * max }).map((twice) => twice / 2)

const limits = fc
  .record({
    incidentThreshold: fc.oneof(fc.constant(10), halves(0, 30)),
    clear: fc.double({ min: 0, max: 1, noNaN: true }),
    coolBy: fc.oneof(fc.constant(2), halves(1, 6)),
    accumulatorMax: fc.oneof(fc.constant(20), halves(1, 25)),
    noDataTimeoutSeconds: fc.constantFrom(600, 600, 20, 60, 1),
  })
  .map(({ clear, ...rules }) => ({ ...rules, clearThreshold: Math.floor(clear * 2 * rules.incidentThreshold) / 2 }))

const PAIRS: readonly Pair[] = [
  { source: 'frontend', destination: 'cart' },
  { source: 'checkout', destination: 'payment' },
  { source: 'cart', destination: 'redis' },
  { source: 'a,b', destination: '"}' },
]

const rules: fc.Arbitrary<IncidentRules> = fc
  .tuple(limits, fc.array(fc.oneof(fc.constant(5), halves(0, 12)), { minLength: 1, maxLength: 4 }))
  .map(([shared, thresholds]) => ({
    ...shared,
    pairs: thresholds.map((accumulatorThreshold, i) => ({ ...PAIRS[i]!, accumulatorThreshold })),
  }))

const heard: fc.Arbitrary<Heard> = fc.constantFrom<Heard>(
  { anomalies: 1 },
  { anomalies: 1 },
  { anomalies: 2 },
  { anomalies: 0 },
  { anomalies: 0 },
  'silence',
)

/** Weather: what each of the pairs has for a while, one after the other. */
function weather(pairs: number, most: number): fc.Arbitrary<readonly (readonly Heard[])[]> {
  return fc
    .array(
      fc.record({
        polls: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 30 })),
        all: fc.array(heard, { minLength: pairs, maxLength: pairs }),
      }),
      { maxLength: most },
    )
    .map((spells) => spells.flatMap(({ polls, all }) => Array.from({ length: polls }, () => all)))
}

function verdictOf(said: Heard): PairVerdict {
  if (said === 'silence') return { kind: 'unknown', reason: 'no_data' }
  return said.anomalies > 0 ? { kind: 'anomalous', anomalyCount: said.anomalies } : { kind: 'ok' }
}

function pollsOf(history: readonly (readonly Heard[])[], startSeconds = T0): readonly Poll[] {
  return history.map((all, i) => ({ timestampSeconds: startSeconds + i * POLL_SECONDS, verdicts: all.map(verdictOf) }))
}

const rulesAndWeather = rules.chain((some) => fc.tuple(fc.constant(some), weather(some.pairs.length, 8)))

function fold(from: IncidentState, polls: readonly Poll[], some: IncidentRules): IncidentState {
  return polls.reduce((state, poll) => next(state, poll, some), from)
}

/** Polls until the hottest pair is cold. */
const toCold = ({ accumulatorMax, coolBy }: Pick<IncidentRules, 'accumulatorMax' | 'coolBy'>): number =>
  Math.ceil(accumulatorMax / coolBy)

interface Course {
  readonly state: IncidentState
  readonly trails: readonly Trail[]
}

function walk(from: Course, polls: readonly Poll[], some: IncidentRules): Course {
  return polls.reduce(({ state, trails }, poll) => {
    const after = next(state, poll, some)
    return { state: after, trails: nextTrails(trails, { before: state, after, poll }) }
  }, from)
}

const told = ({ state: { accumulators, open }, trails }: Course): string => JSON.stringify([accumulators, open, trails])

// --- meshes

const meshRules: fc.Arbitrary<MeshRules> = fc
  .tuple(limits, fc.oneof(fc.constant(5), halves(0, 12)))
  .map(([shared, accumulatorThreshold]) => ({ ...shared, accumulatorThreshold }))

const SERVICES = ['a', 'b', 'c', 'd', '"e,'] as const
const edge: fc.Arbitrary<Pair> = fc.record({
  source: fc.constantFrom(...SERVICES),
  destination: fc.constantFrom(...SERVICES),
})
const someEdges = fc.uniqueArray(edge, { minLength: 1, maxLength: 7, selector: pairKey })

const meshWeather = someEdges.chain((edges) => fc.tuple(fc.constant(edges), weather(edges.length, 7)))

function meshPoll(edges: readonly Pair[], all: readonly Heard[], timestampSeconds: number): MeshPoll {
  const verdicts = new Map(edges.map((pair, i) => [pairKey(pair), { ...pair, verdict: verdictOf(all[i]!) }]))
  return { timestampSeconds, verdicts }
}

function meshFold(from: MeshState, polls: readonly MeshPoll[], some: MeshRules): MeshState {
  return polls.reduce((state, poll) => meshNext(state, poll, some).state, from)
}

function checkMesh({ edges, incidents }: MeshState, { accumulatorMax, clearThreshold }: MeshRules): void {
  for (const { accumulator } of edges) assert.ok(accumulator > 0 && accumulator <= accumulatorMax)
  assert.equal(new Set(incidents.map(({ key }) => key)).size, incidents.length)
  for (const { key, startedSeconds } of incidents) {
    assert.ok(startedSeconds >= T0)
    const members = edges.filter(({ incident }) => incident === key)
    assert.ok(temperatureOf(members.map(({ accumulator }) => accumulator)) > clearThreshold)
  }
}

const seen = ({ edges, incidents }: MeshState): unknown => [
  edges.map(({ key, accumulator, heardSeconds, incident }) => [key, accumulator, heardSeconds, incident]),
  incidents.map(({ key, startedSeconds, severity }) => [key, startedSeconds, severity]),
]

const foretold = ({ edges, incidents }: OracleMesh): unknown => [
  [...edges.values()]
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ key, level, heardSeconds, incident }) => [key, level, heardSeconds, incident]),
  [...incidents]
    .sort(([keyA, a], [keyB, b]) => a.startedSeconds - b.startedSeconds || (keyA < keyB ? -1 : 1))
    .map(([key, { startedSeconds, severity }]) => [key, startedSeconds, severity]),
]

// --- what the monitors export

const exportedWeather = fc.tuple(
  rules,
  fc.array(
    fc.array(
      fc.record({
        count: fc.constantFrom(null, 0, 0, 1, 1, 2, NaN, -1),
        age: fc.constantFrom(0, 5, 59, 60, 61, 3_600, null),
        verdict: fc.constantFrom(null, 'ok', 'low_traffic', 'warming', 'no_data'),
      }),
      { minLength: 4, maxLength: 4 },
    ),
    { minLength: 1, maxLength: 30 },
  ),
)

type Exported = typeof exportedWeather extends fc.Arbitrary<readonly [unknown, infer T]> ? T : never

/** What Prometheus answers of the polls from one to another, both included. */
function answerTo(
  pairs: readonly Pair[],
  exported: Exported,
  from: number,
  to: number,
): ReturnType<typeof parseAnswer> {
  const slots = exported.map((all, i) => ({ all, seconds: T0 + i * POLL_SECONDS })).slice(from, to + 1)
  const series = pairs.flatMap(({ source, destination }, k) => {
    const of = (
      metric: Record<string, string>,
      value: (one: Exported[number][number], seconds: number) => string | null,
    ) => ({
      metric: { ...metric, source, destination },
      values: slots.flatMap(({ all, seconds }) => {
        const text = value(all[k]!, seconds)
        return text === null ? [] : [[seconds, text] as const]
      }),
    })
    return [
      of({ __name__: 'lab7_anomaly_count' }, ({ count }) => (count === null ? null : String(count))),
      of({ __name__: 'lab7_sample_timestamp_seconds' }, ({ age }, seconds) =>
        age === null ? null : String(seconds - age),
      ),
      ...['ok', 'low_traffic', 'warming', 'no_data'].map((held) =>
        of({ __name__: 'lab7_verdict', verdict: held }, ({ verdict }) => (verdict === held ? '1' : null)),
      ),
    ]
  })
  const poll = { metric: { series: 'poll' }, values: slots.map(({ seconds }) => [seconds, '1'] as const) }
  return parseAnswer(JSON.parse(matrixAnswer([...series.filter(({ values }) => values.length > 0), poll])), 'matrix')
}

export const properties: readonly FuzzProperty[] = [
  property(
    { name: 'pairs: every poll is what the rule says, and no accumulator leaves its bounds', runs: 1_500 },
    rulesAndWeather,
    ([some, history]) => {
      let state = coldState(some)
      let open: OracleIncident | null = null
      const pairs = some.pairs.map(({ accumulatorThreshold }): OraclePair => ({
        level: 0,
        heardSeconds: null,
        threshold: accumulatorThreshold,
      }))
      pollsOf(history).forEach((poll, i) => {
        const before = state
        state = next(state, poll, some)
        const after = oraclePoll(pairs, history[i]!, { seconds: poll.timestampSeconds, open, rules: some })
        const ended = open !== null && after.open === null
        open = after.open
        assert.deepEqual(
          state.accumulators,
          pairs.map(({ level }) => level),
        )
        assert.deepEqual(
          state.heardSeconds,
          pairs.map(({ heardSeconds }) => heardSeconds),
        )
        assert.deepEqual(state.open, open)
        assert.equal(state.expired, after.expired)
        for (const level of state.accumulators) assert.ok(level >= 0 && level <= some.accumulatorMax)
        const happened = transition(before, state)
        assert.equal(happened === 'resolved' || happened === 'expired', ended)
        if (ended) assert.equal(happened === 'expired', after.expired)
      })
    },
  ),

  property(
    { name: 'pairs: no latch: while all is well every incident cools down and closes in time', runs: 700 },
    rulesAndWeather,
    ([some, history]) => {
      const polls = pollsOf(history)
      const well = pollsOf(
        Array.from({ length: toCold(some) + 1 }, () => some.pairs.map((): Heard => ({ anomalies: 0 }))),
        T0 + polls.length * POLL_SECONDS,
      )
      let state = fold(coldState(some), polls, some)
      well.forEach((poll, i) => {
        const before = temperatureOf(state.accumulators)
        state = next(state, poll, some)
        assert.ok(before === 0 || temperatureOf(state.accumulators) < before)
        if (i + 1 >= toCold(some))
          assert.deepEqual(
            state.accumulators,
            some.pairs.map(() => 0),
          )
        if (temperatureOf(state.accumulators) <= some.clearThreshold) assert.equal(state.open, null)
      })
      assert.equal(state.open, null)
    },
  ),

  property(
    { name: 'pairs: no gap: anomalies that go on open an incident and keep it open', runs: 700 },
    rulesAndWeather,
    ([some, history]) => {
      let state = coldState(some)
      const row = some.pairs.map(() => 0)
      pollsOf(history).forEach((poll, i) => {
        const before = state
        state = next(state, poll, some)
        history[i]!.forEach(
          (said, k) => (row[k] = said !== 'silence' && said.anomalies > 0 ? row[k]! + said.anomalies : 0),
        )
        // What a pair has gathered in a row stands, whatever became of the others.
        const sure = row.reduce((sum, gathered) => sum + Math.min(some.accumulatorMax, gathered), 0)
        if (sure > some.incidentThreshold || (before.open !== null && sure > some.clearThreshold))
          assert.notEqual(state.open, null)
        const anyOk = history[i]!.some((said) => said !== 'silence' && said.anomalies === 0)
        if (transition(before, state) === 'resolved') assert.ok(anyOk)
        if (before.open !== null && state.open !== null)
          assert.equal(state.open.startedSeconds, before.open.startedSeconds)
      })
    },
  ),

  property(
    { name: 'pairs: silence neither heats nor cools', runs: 500 },
    fc.tuple(rulesAndWeather, fc.integer({ min: 1, max: 20 })),
    ([[some, history], polls]) => {
      const patient = { ...some, noDataTimeoutSeconds: 1e9 }
      const before = fold(coldState(patient), pollsOf(history), patient)
      const silence = Array.from({ length: polls }, () => some.pairs.map((): Heard => 'silence'))
      const after = fold(before, pollsOf(silence, T0 + history.length * POLL_SECONDS), patient)
      assert.deepEqual(after, before)
    },
  ),

  property(
    { name: 'pairs: polls read one by one, some late, are the polls read at once', runs: 600 },
    fc.tuple(exportedWeather, fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 })),
    ([[some, exported], strides]) => {
      const rulesOfReading = { pairs: some.pairs, staleAfterSeconds: 60 }
      const polls = (from: number, to: number): readonly Poll[] =>
        readPolls(answerTo(some.pairs, exported, from, to), rulesOfReading)
      const atOnce = fold(coldState(some), polls(0, exported.length - 1), some)
      let state = coldState(some)
      let lastSeconds = -Infinity
      let slot = -1
      for (let i = 0; slot < exported.length - 1; i++) {
        const from = Math.max(0, slot - 2)
        slot = Math.min(exported.length - 1, slot + strides[i % strides.length]!)
        const fresh = polls(from, slot).filter(({ timestampSeconds }) => timestampSeconds > lastSeconds)
        state = fold(state, fresh, some)
        lastSeconds = fresh.at(-1)?.timestampSeconds ?? lastSeconds
      }
      assert.deepEqual(state, atOnce)
    },
  ),

  property(
    { name: 'pairs: a restart whose warm-up is certain of itself is no restart', runs: 1_000 },
    fc.tuple(rulesAndWeather, fc.double({ min: 0, max: 1, noNaN: true })),
    ([[some, history], share]) => {
      const polls = pollsOf(history)
      const restart = Math.floor(share * polls.length)
      const window = polls.slice(restart)
      const cold: Course = { state: coldState(some), trails: noTrails(some) }
      const started = window[0]?.timestampSeconds ?? T0
      let warmed = cold
      let hottest: Course = { state: hottestState(some, started), trails: unknownTrails(some) }
      let lived = walk(cold, polls.slice(0, restart), some)
      for (const poll of window) {
        ;[warmed, hottest, lived] = [walk(warmed, [poll], some), walk(hottest, [poll], some), walk(lived, [poll], some)]
        if (told(warmed) === told(hottest)) assert.equal(told(warmed), told(lived))
      }
    },
  ),

  property(
    { name: 'a mesh: every poll is what the rule says of its parts', runs: 2_000 },
    fc.tuple(meshRules, meshWeather),
    ([some, [edges, history]]) => {
      let state = COLD_MESH
      const oracle: OracleMesh = { edges: new Map(), incidents: new Map() }
      history.forEach((all, i) => {
        const seconds = T0 + i * POLL_SECONDS
        state = meshNext(state, meshPoll(edges, all, seconds), some).state
        const said = new Map(
          edges.map(({ source, destination }, k) => [
            pairKey({ source, destination }),
            { ends: [source, destination] as const, heard: all[k]! },
          ]),
        )
        oracleMeshPoll(oracle, said, { seconds, threshold: some.accumulatorThreshold, rules: some })
        assert.deepEqual(seen(state), foretold(oracle))
        checkMesh(state, some)
      })
    },
  ),

  property(
    { name: 'a mesh: an incident opens, changes and ends once, and all end while all is well', runs: 600 },
    fc.tuple(meshRules, meshWeather),
    ([some, [edges, history]]) => {
      const well = Array.from({ length: toCold(some) }, () => edges.map((): Heard => ({ anomalies: 0 })))
      let state = COLD_MESH
      const open = new Map<string, 1 | 2>()
      ;[...history, ...well].forEach((all, i) => {
        const { state: after, incidents } = meshNext(state, meshPoll(edges, all, T0 + i * POLL_SECONDS), some)
        for (const { incident, happened, mergedInto } of incidents) {
          const { key } = incident
          const now = after.incidents.find(
            (candidate) => candidate.key === key && candidate.startedSeconds === incident.startedSeconds,
          )
          assert.equal(open.has(key), happened !== 'opened', `${key} ${String(happened)}`)
          if (happened === 'resolved' || happened === 'expired' || happened === 'merged') {
            open.delete(key)
            assert.equal(now, undefined)
            assert.equal(mergedInto !== null, happened === 'merged')
          } else {
            assert.ok(now !== undefined)
            const was = open.get(key)
            if (was !== undefined)
              assert.equal(happened, now.severity === was ? null : now.severity === 1 ? 'escalated' : 'de-escalated')
            open.set(key, now.severity)
          }
        }
        assert.deepEqual([...open.keys()].sort(), after.incidents.map(({ key }) => key).sort())
        state = after
      })
      assert.deepEqual(state, COLD_MESH)
    },
  ),

  property(
    { name: 'a mesh of one part is the rule for pairs', runs: 700 },
    fc
      .tuple(limits, fc.uniqueArray(fc.constantFrom(...SERVICES), { minLength: 1, maxLength: 4 }))
      .chain(([shared, callees]) => fc.tuple(fc.constant(shared), fc.constant(callees), weather(callees.length, 7))),
    ([shared, callees, history]) => {
      // With a threshold of 0 every warm edge is lit, and all share the caller.
      const edges = callees
        .map((destination) => ({ source: 'caller', destination }))
        .sort((a, b) => (pairKey(a) < pairKey(b) ? -1 : 1))
      const pairRules: IncidentRules = { ...shared, pairs: edges.map((pair) => ({ ...pair, accumulatorThreshold: 0 })) }
      let mesh = COLD_MESH
      let state = coldState(pairRules)
      for (const [i, poll] of pollsOf(history).entries()) {
        state = next(state, poll, pairRules)
        const members = mesh.edges.filter(({ incident }) => incident !== null).map(({ key }) => key)
        mesh = meshNext(mesh, meshPoll(edges, history[i]!, poll.timestampSeconds), {
          ...shared,
          accumulatorThreshold: 0,
        }).state
        const levels = new Map(mesh.edges.map(({ key, accumulator }) => [key, accumulator]))
        // What is hot from the poll in which an incident's last edge is cold is no part of it, but begins another.
        if (members.length > 0 && members.every((key) => !levels.has(key)) && levels.size > 0) return
        assert.deepEqual(
          edges.map((pair) => levels.get(pairKey(pair)) ?? 0),
          state.accumulators,
        )
        assert.deepEqual(
          mesh.incidents.map(({ startedSeconds, severity }) => ({ startedSeconds, severity })),
          state.open === null ? [] : [state.open],
        )
      }
    },
  ),

  property(
    { name: 'a mesh: a restart whose warm-up is certain of itself is no restart', runs: 400 },
    fc.tuple(meshRules, meshWeather, fc.double({ min: 0, max: 1, noNaN: true })),
    ([some, [edges, history], share]) => {
      const polls = history.map((all, i) => meshPoll(edges, all, T0 + i * POLL_SECONDS))
      const restart = Math.floor(share * polls.length)
      let lived = meshFold(COLD_MESH, polls.slice(0, restart), some)
      let warmed = COLD_MESH
      let hottest = hottestMesh(edges, some, polls[restart]?.timestampSeconds ?? T0)
      for (const poll of polls.slice(restart)) {
        ;[warmed, hottest, lived] = [
          meshFold(warmed, [poll], some),
          meshFold(hottest, [poll], some),
          meshFold(lived, [poll], some),
        ]
        if (sameMesh(warmed, hottest)) assert.ok(sameMesh(warmed, lived), JSON.stringify([warmed, lived]))
      }
    },
  ),

  property(
    { name: 'the list of incidents is bounded, and holds each once with the worst it had', runs: 100 },
    fc.array(
      fc.record({
        id: fc.integer({ min: 0, max: 130 }).map(String),
        transition: fc.constantFrom<Evidence['transition']>(
          'opened',
          'escalated',
          'de-escalated',
          'resolved',
          'expired',
          'merged',
        ),
        severity: fc.constantFrom<1 | 2 | null>(1, 2, null),
        previousSeverity: fc.constantFrom<1 | 2 | null>(1, 2, null),
      }),
      { minLength: 1, maxLength: 300, size: 'max' },
    ),
    (events) => {
      let history: IncidentHistory = []
      events.forEach((event, i) => {
        history = withTransition(history, { ...event, startedSeconds: T0, timestampSeconds: T0 + i } as Evidence)
        assert.equal(history[0]?.id, event.id)
      })
      assert.ok(history.length <= MAX_INCIDENTS)
      assert.equal(new Set(history.map(({ id }) => id)).size, history.length)
      for (const { transitions, transitionsLeftOut, severity, outcome } of history) {
        assert.ok(transitions.length <= MAX_TRANSITIONS)
        assert.ok(transitionsLeftOut === 0 || transitions.length === MAX_TRANSITIONS)
        if (transitions.some((one) => one.severity === 1)) assert.equal(severity, 1)
        assert.equal(outcome === 'open', !['resolved', 'expired', 'merged'].includes(transitions.at(-1)!.transition))
      }
    },
  ),
]
