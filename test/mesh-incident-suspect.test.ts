import assert from 'node:assert/strict'
import test from 'node:test'

import type { EdgeFacts, MeshFacts } from '../src/core/edge-facts.js'
import {
  askedPairs,
  evidenceOf,
  evidenceText,
  type Happened,
  MAX_ASKED,
  MAX_COURSE,
  MAX_TOLD,
  nextTrail,
  NO_TRAIL,
  toldPairs,
  type Trail,
} from '../src/core/evidence.js'
import type { IncidentRules, IncidentState } from '../src/core/incident.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { type HotPair, suspectOf } from '../src/core/suspect.js'

const T0 = 1_700_000_000

function pair(text: string): Pair {
  const [source = '', destination = ''] = text.split('>')
  return { source, destination }
}

/** @param measured - which of the pairs' facts are known: both sides are slow */
function hot(texts: readonly string[], measured: readonly string[] = []): readonly HotPair[] {
  return texts.map((text) => ({
    ...pair(text),
    facts: measured.includes(text) ? factsOf(pair(text)) : null,
    injected: [],
  }))
}

function factsOf({ source, destination }: Pair, calleeNowMs = 210): EdgeFacts {
  return {
    source,
    destination,
    quantile: 0.5,
    callerSide: { beforeMs: 10, nowMs: 210 },
    calleeSide: { beforeMs: 10, nowMs: calleeNowMs },
    requestsPerSecond: { before: 1, now: 1 },
    versions: [],
  }
}

const CALLERS = Array.from({ length: 30 }, (_, i) => `caller-${i}>db`)
const UPSTREAM = Array.from({ length: 30 }, (_, i) => `gateway>caller-${i}`)

test('mesh suspect: the dependency that all share is named, though few of the pairs were measured', () => {
  const suspect = suspectOf(hot([...UPSTREAM, ...CALLERS], CALLERS.slice(0, 3)))
  assert.equal(suspect.kind, 'service')
  assert.deepEqual(suspect.name, 'db')
  assert.match(
    suspect.because,
    /^the pairs caller-0 -> db, .*25 more share it as their destination; gateway -> caller-0, .*25 more wait for it \(caller-0 -> db: both sides are slow/,
  )
})

test('mesh suspect: where all that was measured is lost on the way, that is said', () => {
  const slowWay = hot(CALLERS).map((one, i) => (i < 3 ? { ...one, facts: factsOf(one, 10) } : one))
  const suspect = suspectOf(slowWay)
  assert.equal(suspect.kind, 'service')
  assert.match(suspect.because, /share it as their destination, on the way into it/)
})

for (const { name, strays, named } of [
  { name: 'one', strays: ['caller-3>cache'], named: true },
  { name: 'two', strays: ['caller-3>cache', 'caller-3>queue'], named: true },
  { name: 'two that call each other', strays: ['left>right', 'right>left'], named: true },
  { name: 'a tenth', strays: ['caller-3>cache', 'caller-4>queue', 'caller-5>mail'], named: false },
]) {
  test(`mesh suspect: of thirty pairs that share a destination and ${name} beside them, it is ${named ? '' : 'not '}named`, () => {
    const suspect = suspectOf(hot([...CALLERS, ...strays]))
    assert.equal(suspect.kind, named ? 'service' : 'none')
    if (suspect.kind !== 'service') return
    assert.equal(suspect.name, 'db')
    const told = strays.map((text) => text.replace('>', ' -> ')).join(', ')
    assert.ok(suspect.because.endsWith(`; ${told} lead elsewhere`), suspect.because)
  })
}

test('mesh suspect: in a small incident every pair has to be explained', () => {
  const suspect = suspectOf(hot(['a>db', 'b>db', 'c>db', 'c>cache']))
  assert.equal(suspect.kind, 'none')
  assert.match(suspect.because, /^4 places, and nothing that they share/)
})

test('mesh suspect: five thousand pairs in long chains take little time', () => {
  const chains = Array.from({ length: 4_970 }, (_, i) => (i % 71 === 70 ? `s${i}>caller-${i % 30}` : `s${i}>s${i + 1}`))
  const startMs = performance.now()
  const suspect = suspectOf(hot([...chains, ...CALLERS], CALLERS.slice(0, 5)))
  const tookMs = performance.now() - startMs
  assert.deepEqual([suspect.kind, suspect.kind === 'service' ? suspect.name : ''], ['service', 'db'])
  assert.ok(tookMs < 1_000, `${tookMs} ms`)
})

const RULES: Omit<IncidentRules, 'pairs'> = {
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const ISTIO = { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: { text: '1m', seconds: 60 } }

function trailOf(level: number): Trail {
  let trail = NO_TRAIL
  for (let k = 1; k <= level; k++) {
    trail = nextTrail(trail, { anomalous: true, timestampSeconds: T0 + 5 * k, accumulator: k })
  }
  return trail
}

/** A hundred pairs, hotter the later they come, and the last thirty lead to the database. */
function opened(): { readonly happened: Happened; readonly rules: IncidentRules } {
  const texts = [...Array.from({ length: 70 }, (_, i) => `front>caller-${i % 30}-${i}`), ...CALLERS]
  const levels = texts.map((_, i) => 6 + (i % 14))
  const pairs = texts.map((text) => ({ ...pair(text), accumulatorThreshold: 5 }))
  const after: IncidentState = {
    accumulators: levels,
    heardSeconds: levels.map(() => T0),
    open: { startedSeconds: T0, severity: 1 },
    expired: false,
  }
  const before = { ...after, open: null }
  const trails = levels.map(trailOf)
  const happened: Happened = { transition: 'opened', startedSeconds: T0, before, after, timestampSeconds: T0, trails }
  return { happened, rules: { ...RULES, pairs } }
}

test('mesh evidence: of a hundred pairs ten are asked about, those that lead to what most of them share', () => {
  const { happened, rules } = opened()
  const asked = askedPairs(happened, rules)
  assert.deepEqual(
    asked.map(({ source, destination }) => `${source}>${destination}`),
    CALLERS.slice(0, 10),
  )
  const few = { ...rules, pairs: rules.pairs.slice(0, MAX_ASKED) }
  assert.deepEqual(askedPairs(happened, few), few.pairs, 'of few pairs all, as they stand')
})

test('mesh evidence: a packet tells of twenty pairs, the hottest, and how many it leaves out', () => {
  const { happened, rules } = opened()
  const told = toldPairs(happened, rules)
  assert.equal(told.length, MAX_TOLD + MAX_ASKED)
  const facts: MeshFacts = { edges: new Map(told.map((one) => [pairKey(one), factsOf(one)])), injected: [] }
  const packet = evidenceOf(happened, { gauges: new Map(), facts }, { rules, istio: ISTIO })
  assert.deepEqual([packet.pairs.length, packet.pairsLeftOut], [MAX_TOLD, 80])
  assert.ok(packet.pairs.every(({ accumulator }) => accumulator >= 17))
  assert.equal(packet.pairs.filter(({ course }) => course.length > 0).length, MAX_ASKED)
  assert.equal(
    packet.temperature,
    happened.after.accumulators.reduce((sum, level) => sum + level, 0),
  )
  assert.equal(packet.queries.length, 2 * MAX_ASKED)
  assert.deepEqual([packet.suspect.kind, packet.suspect.kind === 'service' && packet.suspect.name], ['none', false])
  assert.match(evidenceText(packet)[0], /; 96 more$/)
})

test('mesh evidence: the course of a trail is bounded, evenly spread, and ends with the newest poll', () => {
  for (const limit of [60, MAX_COURSE]) {
    let trail = NO_TRAIL
    for (let k = 0; k < 1_000; k++) {
      trail = nextTrail(
        trail,
        { anomalous: true, timestampSeconds: T0 + 5 * k, accumulator: Math.min(20, k + 1) },
        limit,
      )
      assert.ok(trail.kept.length < 2 * limit, `poll ${k}`)
    }
    const times = trail.kept.filter((_, i) => i % 2 === 0)
    const gaps = times.slice(1).map((time, i) => time - times[i]!)
    assert.deepEqual([...new Set(gaps)], [5 * trail.stride])
    assert.deepEqual([times[0], trail.last], [T0, [T0 + 4_995, 20]])
  }
})

test('mesh evidence: the packet of one that has merged names the older', () => {
  const { happened, rules } = opened()
  const merged: Happened = {
    ...happened,
    transition: 'merged',
    id: 'younger',
    mergedInto: 'older',
    before: { ...happened.after },
    after: { ...happened.after, open: null },
  }
  const packet = evidenceOf(
    merged,
    { gauges: new Map(), facts: { edges: new Map(), injected: [] } },
    { rules, istio: ISTIO },
  )
  assert.deepEqual(
    [packet.id, packet.mergedInto, packet.severity, packet.previousSeverity],
    ['younger', 'older', null, 1],
  )
  assert.deepEqual(packet.suspect, { kind: 'none', because: 'incident older goes on with it' })
  assert.match(evidenceText(packet)[0], /^Incident younger merged \(was Sev 1\)/)
})
