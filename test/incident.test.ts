import assert from 'node:assert/strict'
import test from 'node:test'

import {
  coldState,
  hottestState,
  type IncidentRules,
  type IncidentState,
  next,
  type PairVerdict,
  temperatureOf,
  timingContract,
  transition,
} from '../src/core/incident.js'

const T0 = 1_700_000_000
const POLL_SECONDS = 5

/** Two pairs and the defaults of the command line. */
const RULES: IncidentRules = {
  pairs: [
    { source: 'frontend', destination: 'cart', accumulatorThreshold: 5 },
    { source: 'checkout', destination: 'payment', accumulatorThreshold: 5 },
  ],
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const ONE_PAIR: IncidentRules = { ...RULES, pairs: RULES.pairs.slice(0, 1) }

const OK: PairVerdict = { kind: 'ok' }
const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }
const NO_DATA: PairVerdict = { kind: 'unknown', reason: 'no_data' }

/** The states after each poll, five seconds apart; each poll is a verdict per pair. */
function fold(
  polls: readonly (readonly PairVerdict[])[],
  { rules = RULES, from = coldState(rules) }: { rules?: IncidentRules; from?: IncidentState } = {},
): readonly IncidentState[] {
  let state = from
  return polls.map((verdicts, i) => (state = next(state, { timestampSeconds: T0 + i * POLL_SECONDS, verdicts }, rules)))
}

function times<T>(count: number, value: T): readonly T[] {
  return Array.from({ length: count }, () => value)
}

function last(states: readonly IncidentState[]): IncidentState {
  return states.at(-1) ?? assert.fail('no poll')
}

/** As opened by one pair, at its maximum. */
const SEV_2: IncidentState = {
  accumulators: [20, 0],
  heardSeconds: [T0 - 5, T0 - 5],
  open: { startedSeconds: T0 - 100, severity: 2 },
  expired: false,
}

test('incident: an anomaly raises its own pair by the anomaly count', () => {
  const { accumulators, heardSeconds } = last(fold([[{ kind: 'anomalous', anomalyCount: 3 }, OK]]))
  assert.deepEqual(accumulators, [3, 0])
  assert.deepEqual(heardSeconds, [T0, T0])
})

test('incident: an accumulator stops at its maximum', () => {
  assert.deepEqual(last(fold(times(7, [{ kind: 'anomalous', anomalyCount: 3 }, BAD]))).accumulators, [20, 7])
  assert.deepEqual(last(fold(times(100, [BAD, BAD]))).accumulators, [20, 20])
})

test('incident: an ok poll cools by two, never below zero', () => {
  const from = { ...coldState(RULES), accumulators: [5, 1] }
  assert.deepEqual(
    fold(times(4, [OK, OK]), { from }).map(({ accumulators }) => accumulators),
    [
      [3, 0],
      [1, 0],
      [0, 0],
      [0, 0],
    ],
  )
})

for (const reason of ['low_traffic', 'no_data', 'warming', 'stale'] as const) {
  test(`incident: ${reason} neither raises nor cools, and is not being heard of`, () => {
    const from = { ...coldState(RULES), accumulators: [4, 2], heardSeconds: [T0 - 5, null] }
    const unknown: PairVerdict = { kind: 'unknown', reason }
    assert.deepEqual(last(fold(times(50, [unknown, unknown]), { from: { ...from } })), { ...from, expired: false })
  })
}

test('incident: a verdict that is not there at all is silence', () => {
  assert.deepEqual(last(fold([[]], { from: SEV_2 })), SEV_2)
})

test('incident: no answer from Prometheus is no poll, so nothing cools meanwhile', () => {
  const before = last(fold(times(8, [BAD, OK])))
  const after = next(before, { timestampSeconds: T0 + 3600, verdicts: [BAD, OK] }, RULES)
  assert.deepEqual(after.accumulators, [9, 0])
})

test('incident: it opens when the temperature is above the threshold, and not at it', () => {
  const states = fold(times(11, [BAD, OK]))
  assert.deepEqual(
    states.map(({ open }) => open?.severity ?? 0),
    [...times(10, 0), 2],
  )
  assert.deepEqual(last(states).open, { startedSeconds: T0 + 50, severity: 2 })
})

test('incident: the temperature is the sum of the pairs', () => {
  const { open, accumulators } = last(
    fold([
      [
        { kind: 'anomalous', anomalyCount: 5 },
        { kind: 'anomalous', anomalyCount: 6 },
      ],
    ]),
  )
  assert.equal(temperatureOf(accumulators), 11)
  // Warm together, but only one is above its own threshold of 5.
  assert.deepEqual(open, { startedSeconds: T0, severity: 2 })
})

test('incident: it closes when the temperature is at the clear threshold, and not above it', () => {
  const rules = { ...RULES, coolBy: 5 }
  const open = fold(times(3, [OK, OK]), { rules, from: SEV_2 }).map((state) => [
    temperatureOf(state.accumulators),
    state.open?.severity ?? 0,
  ])
  assert.deepEqual(open, [
    [15, 2],
    [10, 2],
    [5, 0],
  ])
})

test('incident: between the thresholds an open one stays open and a closed one stays closed', () => {
  const from = { ...coldState(RULES), accumulators: [8, 0] }
  const hold = times(20, [BAD, OK]).flatMap(() => [
    [BAD, OK],
    [BAD, OK],
    [OK, OK],
  ])
  // +1 +1 -2: from 8 it goes to 9, 10, 8 and so on.
  assert.deepEqual([...new Set(fold(hold, { from }).map(({ open }) => open))], [null])
  const started = { ...from, open: { startedSeconds: T0 - 100, severity: 2 as const } }
  assert.ok(fold(hold, { from: started }).every(({ open }) => open?.startedSeconds === T0 - 100 && open.severity === 2))
})

for (const { accumulators, severity } of [
  { accumulators: [20, 0], severity: 2 },
  { accumulators: [20, 5], severity: 2 },
  { accumulators: [20, 6], severity: 1 },
  { accumulators: [6, 6], severity: 1 },
  { accumulators: [5, 6], severity: 2 },
  { accumulators: [5, 5], severity: 2 },
]) {
  test(`incident: open at ${accumulators.join(' and ')} it is a Sev ${severity}`, () => {
    const from = { ...SEV_2, accumulators }
    assert.equal(last(fold([[NO_DATA, NO_DATA]], { from })).open?.severity, severity)
  })
}

test('incident: the severity of two hot pairs does not wait for both to be the same or a third to be cold', () => {
  const three: IncidentRules = {
    ...RULES,
    pairs: [...RULES.pairs, { source: 'a', destination: 'b', accumulatorThreshold: 5 }],
  }
  assert.equal(last(fold(times(6, [BAD, OK, BAD]), { rules: three })).open?.severity, 1)
  assert.equal(last(fold(times(6, [BAD, BAD, BAD]), { rules: three })).open?.severity, 1)
})

test('incident: each pair is hot above its own threshold', () => {
  const rules = { ...RULES, pairs: [RULES.pairs[0]!, { ...RULES.pairs[1]!, accumulatorThreshold: 9 }] }
  const severities = fold(times(11, [BAD, BAD]), { rules }).map(({ open }) => open?.severity ?? 0)
  assert.deepEqual(severities, [0, 0, 0, 0, 0, 2, 2, 2, 2, 1, 1])
})

test('incident: the severity is computed afresh each poll and not latched', () => {
  const states = fold([...times(20, [BAD, BAD]), ...times(30, [OK, OK])])
  const severities = states.map(({ open }) => open?.severity ?? 0)
  // Heat 20 + 20, minus 4 a poll: both above 5 for 7 polls, then temperature 8 with none above 5, then 4 and closed.
  assert.deepEqual(severities, [...times(5, 0), ...times(15, 1), ...times(7, 1), 2, ...times(22, 0)])
  assert.deepEqual(last(states).accumulators, [0, 0])
})

test('incident: when a second pair joins there is no poll without a severity (the lab had six)', () => {
  const states = fold([...times(20, [BAD, OK]), ...times(10, [BAD, BAD])])
  const severities = states.map(({ open }) => open?.severity ?? 0)
  assert.deepEqual(severities, [...times(10, 0), ...times(15, 2), ...times(5, 1)])
})

test('incident: after cooling down nothing is left on (the lab kept sev2_incident at 1)', () => {
  const states = fold([...times(20, [BAD, OK]), ...times(30, [OK, OK])])
  assert.deepEqual(last(states), {
    accumulators: [0, 0],
    heardSeconds: [T0 + 49 * POLL_SECONDS, T0 + 49 * POLL_SECONDS],
    open: null,
    expired: false,
  })
})

test('incident: an hour of heat cools in as many polls as a minute of it (the lab took 29 minutes)', () => {
  const closing = times(10, [OK, OK])
  for (const hot of [20, 720]) {
    const states = fold([...times(hot, [BAD, OK]), ...closing])
    assert.equal(states.findIndex(({ open }, i) => i >= hot && open === null) - hot + 1, 8, `${hot} hot polls`)
  }
})

test('incident: a tenfold step that lasts six hours is one incident for six hours', () => {
  const hours = 6
  const hot = (hours * 3600) / POLL_SECONDS
  const states = fold([...times(20, [OK, OK]), ...times(hot, [BAD, OK]), ...times(8, [OK, OK])])
  const open = states.flatMap(({ open: incident }, i) => (incident === null ? [] : [{ i, ...incident }]))
  assert.deepEqual([...new Set(open.map(({ startedSeconds }) => startedSeconds))], [T0 + 30 * POLL_SECONDS])
  // Open from the 11th bad poll until the 8th good one.
  assert.deepEqual([open[0]?.i, open.at(-1)?.i, open.length], [30, 20 + hot + 6, hot - 10 + 7])
})

test('incident: after the timeout of silence on all hot pairs it closes as expired, not as resolved', () => {
  const silent = times(122, [NO_DATA, NO_DATA])
  const states = fold(silent, { from: SEV_2 })
  const at = states.findIndex(({ open }) => open === null)
  // Last heard 5 s before the first silent poll, so 600 s are over at poll number 119.
  assert.equal(at, 119)
  assert.deepEqual(states[at], { ...SEV_2, accumulators: [0, 0], open: null, expired: true })
  assert.equal(transition(states[at - 1]!, states[at]), 'expired')
  assert.deepEqual(states[at + 1], { ...states[at], expired: false }, 'said once')
})

test('incident: cold pairs need not be silent for it to expire, hot ones must', () => {
  const coldTalks = fold(times(125, [NO_DATA, OK]), { from: SEV_2 })
  assert.equal(
    coldTalks.some(({ expired }) => expired),
    true,
  )
  const bothHot = { ...SEV_2, accumulators: [20, 20] }
  const oneTalks = fold(times(1000, [NO_DATA, BAD]), { from: bothHot })
  assert.ok(oneTalks.every(({ open, expired }) => open !== null && !expired))
})

test('incident: heat that never made an incident is forgotten in silence, too', () => {
  const from = { ...coldState(RULES), accumulators: [3, 0], heardSeconds: [T0 - 600, null] }
  assert.deepEqual(last(fold([[NO_DATA, NO_DATA]], { from })), {
    accumulators: [0, 0],
    heardSeconds: [T0 - 600, null],
    open: null,
    expired: true,
  })
})

test('incident: silence short of the timeout keeps an incident as it is, and it resolves afterwards', () => {
  const states = fold([...times(100, [NO_DATA, NO_DATA]), ...times(8, [OK, OK])], { from: SEV_2 })
  assert.ok(states.slice(0, 100).every(({ open }) => open?.severity === 2))
  assert.equal(transition(states.at(-2)!, last(states)), 'resolved')
})

const CLOSED = coldState(RULES)
const SEV_1: IncidentState = { ...SEV_2, accumulators: [20, 20], open: { startedSeconds: T0, severity: 1 } }

for (const { name, before, after, happened } of [
  { name: 'nothing happens to no incident', before: CLOSED, after: CLOSED, happened: null },
  { name: 'a Sev 2 opens', before: CLOSED, after: SEV_2, happened: 'opened' },
  { name: 'a Sev 1 opens', before: CLOSED, after: SEV_1, happened: 'opened' },
  { name: 'a Sev 2 stays', before: SEV_2, after: { ...SEV_2, accumulators: [15, 0] }, happened: null },
  { name: 'a Sev 2 becomes a Sev 1', before: SEV_2, after: SEV_1, happened: 'escalated' },
  { name: 'a Sev 1 becomes a Sev 2', before: SEV_1, after: SEV_2, happened: 'de-escalated' },
  { name: 'a Sev 1 is over', before: SEV_1, after: CLOSED, happened: 'resolved' },
  { name: 'a Sev 2 is over', before: SEV_2, after: CLOSED, happened: 'resolved' },
  { name: 'a Sev 2 is forgotten', before: SEV_2, after: { ...CLOSED, expired: true }, happened: 'expired' },
  { name: 'mere heat is forgotten', before: CLOSED, after: { ...CLOSED, expired: true }, happened: null },
]) {
  test(`incident transition: ${name}`, () => {
    assert.equal(transition(before, after), happened)
  })
}

for (const { name, rules, contract } of [
  {
    name: 'the defaults with two pairs',
    rules: RULES,
    contract: { toSev2: 11, toSev1: 6, tolerated: 10, onePairToClosed: 8, allPairsToClosed: 9 },
  },
  {
    name: 'the defaults with one pair',
    rules: ONE_PAIR,
    contract: { toSev2: 11, toSev1: null, tolerated: 10, onePairToClosed: 8, allPairsToClosed: 8 },
  },
  {
    name: 'a threshold of zero: the first anomaly is an incident, and the last heat must be gone',
    rules: { ...ONE_PAIR, incidentThreshold: 0, clearThreshold: 0 },
    contract: { toSev2: 1, toSev1: null, tolerated: 0, onePairToClosed: 10, allPairsToClosed: 10 },
  },
  {
    name: 'a maximum below the threshold: one pair alone never makes an incident',
    rules: { ...RULES, accumulatorMax: 8 },
    contract: { toSev2: null, toSev1: 6, tolerated: null, onePairToClosed: 2, allPairsToClosed: 3 },
  },
  {
    name: 'a pair threshold beyond the maximum: there is no Sev 1',
    rules: { ...RULES, pairs: RULES.pairs.map((pair) => ({ ...pair, accumulatorThreshold: 20 })) },
    contract: { toSev2: 11, toSev1: null, tolerated: 10, onePairToClosed: 8, allPairsToClosed: 9 },
  },
  {
    name: 'cooling slower than a float can tell: it never closes',
    rules: { ...ONE_PAIR, coolBy: Number.MIN_VALUE },
    contract: { toSev2: 11, toSev1: null, tolerated: 10, onePairToClosed: null, allPairsToClosed: null },
  },
]) {
  test(`timing contract: ${name}`, () => {
    assert.deepEqual(timingContract(rules), contract)
  })
}

test('timing contract: what it promises is what the fold does', () => {
  const { toSev2, toSev1, tolerated } = timingContract(RULES)
  const severityAfter = (polls: number, verdicts: readonly PairVerdict[]): number =>
    last(fold(times(polls, verdicts))).open?.severity ?? 0
  assert.deepEqual([severityAfter(toSev2! - 1, [BAD, OK]), severityAfter(toSev2!, [BAD, OK])], [0, 2])
  assert.deepEqual([severityAfter(toSev1! - 1, [BAD, BAD]), severityAfter(toSev1!, [BAD, BAD])], [0, 1])
  const transient = fold([...times(tolerated!, [BAD, OK]), ...times(20, [OK, OK])])
  assert.ok(transient.every(({ open }) => open === null))
})

test('incident: the hottest state is as hot as it gets, and cold and hottest meet', () => {
  assert.deepEqual(hottestState(RULES, T0), {
    accumulators: [20, 20],
    heardSeconds: [T0, T0],
    open: { startedSeconds: T0, severity: 1 },
    expired: false,
  })
  const polls = times(11, [OK, OK])
  const [cold, hot] = [coldState(RULES), hottestState(RULES, T0)].map((from) => last(fold(polls, { from })))
  assert.deepEqual(cold, hot)
})

/** Mulberry32: the same numbers every time. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

test('incident: over 40,000 random polls no state breaks a promise', () => {
  let opened = 0
  let expired = 0
  for (let seed = 1; seed <= 80; seed++) {
    const dice = random(seed)
    const pick = (n: number): number => Math.floor(dice() * n)
    const pairs = Array.from({ length: 1 + pick(4) }, (_, i) => ({
      source: `s${i}`,
      destination: 'd',
      accumulatorThreshold: pick(10),
    }))
    const incidentThreshold = pick(15)
    const rules: IncidentRules = {
      pairs,
      incidentThreshold,
      clearThreshold: pick(incidentThreshold + 1),
      coolBy: 0.5 + 0.5 * pick(6),
      accumulatorMax: incidentThreshold + 1 + pick(20),
      noDataTimeoutSeconds: 20 + pick(100),
    }
    // Weather changes now and then, so that long runs of each kind come up.
    let weather = 0
    let state = coldState(rules)
    for (let i = 0; i < 500; i++) {
      if (dice() < 0.05) weather = pick(3)
      const verdicts = pairs.map((): PairVerdict => {
        const roll = dice() < 0.8 ? weather : pick(3)
        return roll === 0 ? OK : roll === 1 ? { kind: 'anomalous', anomalyCount: 1 + pick(2) } : NO_DATA
      })
      const before = state
      state = next(before, { timestampSeconds: T0 + i * POLL_SECONDS, verdicts }, rules)
      const told = `seed ${seed}, poll ${i}: ${JSON.stringify({ rules, before, verdicts, state })}`
      const temperature = temperatureOf(state.accumulators)
      assert.ok(
        state.accumulators.every((level) => level >= 0 && level <= rules.accumulatorMax),
        told,
      )
      const hot = state.accumulators.filter((level, k) => level > pairs[k]!.accumulatorThreshold).length
      if (state.open !== null) {
        assert.equal(state.open.severity, hot >= 2 ? 1 : 2, `latched, ${told}`)
        assert.ok(temperature > rules.clearThreshold, told)
        assert.equal(state.open.startedSeconds, before.open?.startedSeconds ?? T0 + i * POLL_SECONDS, told)
      } else {
        assert.ok(temperature <= rules.incidentThreshold, told)
      }
      const happened = transition(before, state)
      assert.equal(happened === 'opened', before.open === null && state.open !== null, told)
      assert.equal(happened === 'resolved' || happened === 'expired', before.open !== null && state.open === null, told)
      if (happened === 'resolved')
        assert.ok(
          verdicts.some(({ kind }) => kind === 'ok'),
          `resolved by silence, ${told}`,
        )
      if (verdicts.every(({ kind }) => kind === 'unknown') && !state.expired) {
        assert.deepEqual(state.accumulators, before.accumulators, told)
      }
      if (happened === 'opened') opened++
      if (happened === 'expired') expired++
    }
  }
  assert.ok(opened > 100 && expired > 10, `${opened} opened, ${expired} expired: the run does not show enough`)
})
