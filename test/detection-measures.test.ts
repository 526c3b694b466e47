import assert from 'node:assert/strict'
import test from 'node:test'

import { courseOf, type JudgedSample, pollsOf } from '../src/core/backtest.js'
import { measure, type Measures } from '../src/core/detection-measures.js'
import type { FaultWindow, GroundTruth, Window } from '../src/core/ground-truth.js'
import type { IncidentRules } from '../src/core/incident.js'
import { pairKey } from '../src/core/pair.js'

/** A sample and a poll each ten seconds, from this time on. */
const T0 = 1_700_000_000
const STEP = 10

const A = { source: 'a', destination: 'x', accumulatorThreshold: 1 }
const B = { source: 'b', destination: 'x', accumulatorThreshold: 1 }

/** The third anomaly in a row opens, and three calm polls after a long one close: 4, 3, 2, 1. */
const RULES: Omit<IncidentRules, 'pairs'> = {
  incidentThreshold: 2,
  clearThreshold: 1,
  coolBy: 1,
  accumulatorMax: 4,
  noDataTimeoutSeconds: 50,
}

/** `.` ok, `A` anomalous, `?` no value; a list for each pair. */
function measured(
  series: readonly string[],
  truth: GroundTruth | null,
  rules: { readonly tailSeconds?: number; readonly transientAfterSeconds?: number } = {},
): Measures {
  const pairs = [A, B].slice(0, series.length)
  const samples = series.map((verdicts) =>
    Array.from(verdicts, (char, i): JudgedSample => {
      const judged = { timestampSeconds: T0 + STEP * i, quantiles: [] }
      if (char === '?') return { ...judged, verdict: 'no_data', anomalyCount: null }
      return char === 'A'
        ? { ...judged, verdict: 'anomalous', anomalyCount: 1 }
        : { ...judged, verdict: 'ok', anomalyCount: 0 }
    }),
  )
  const polls = pollsOf(samples, { pollIntervalSeconds: STEP, staleAfterSeconds: series.map(() => 9) })
  const course = courseOf(polls, { pairs, ...RULES })
  const { tailSeconds = 0, transientAfterSeconds = 50 } = rules
  return measure({
    ...{ pairs, samples, polls, course, truth },
    rules: { pollIntervalSeconds: STEP, tailSeconds, transientAfterSeconds },
  })
}

/** Times by the number of the sample. */
function window(name: string, from: number, to: number): Window {
  return { name, fromSeconds: T0 + STEP * from, toSeconds: T0 + STEP * to }
}

function fault(name: string, from: number, to: number, ...pairs: readonly (typeof A)[]): FaultWindow {
  return { ...window(name, from, to), pairs }
}

function outcomes({ faults }: Measures): readonly (readonly (string | number | boolean | null)[])[] {
  return faults.map(({ fault: { name }, found, ...at }) => [
    name,
    found,
    at.toAnomalySeconds,
    at.toSev2Seconds,
    at.toSev1Seconds,
    at.toResolvedSeconds,
  ])
}

const CALM = '.'.repeat(20)

test('measures: of one fault and one stray anomaly, worked out by hand', () => {
  // Samples 0 to 59. The fault holds from 10 to 20; anomalies 11 to 19; opens at 13, closes at 22; a stray one at 40.
  const series = `${'.'.repeat(11)}${'A'.repeat(9)}${CALM}A${'.'.repeat(19)}`
  assert.equal(series.length, 60)
  const truth = { faults: [fault('delay', 10, 20)], transients: [] }
  const { faults, transients, ...numbers } = measured([series], truth)
  assert.deepEqual(outcomes({ faults } as Measures), [['delay', true, 10, 30, null, 20]])
  assert.deepEqual(transients, [])
  assert.deepEqual(numbers, {
    observedSeconds: 600,
    incidents: 1,
    incidentsPerWeek: 1008, // a week is 1008 times 600 s
    eventRecall: 1,
    toAnomalySeconds: 10,
    toSev2Seconds: 30,
    toSev1Seconds: null,
    toResolvedSeconds: 20,
    falseAnomaliesPerThousand: 20, // one of the 50 samples outside the fault
    normalSeconds: 500,
    falseIncidents: 0,
    falseIncidentsPerDay: 0,
    toleratedShare: null,
  })
})

test('measures: an incident in normal traffic is false, and counts per day of normal polls', () => {
  const series = `${CALM}AAAA${CALM}${'A'.repeat(10)}${'.'.repeat(36)}`
  assert.equal(series.length, 90)
  const { falseIncidents, falseIncidentsPerDay, incidents, falseAnomaliesPerThousand, eventRecall } = measured(
    [series],
    { faults: [fault('delay', 44, 54)], transients: [] },
  )
  // 80 normal polls are 800 s, of which a day has 108.
  assert.deepEqual(
    { incidents, falseIncidents, falseIncidentsPerDay, falseAnomaliesPerThousand, eventRecall },
    { incidents: 2, falseIncidents: 1, falseIncidentsPerDay: 108, falseAnomaliesPerThousand: 50, eventRecall: 1 },
  )
})

test('measures: without ground truth nothing is said that needs it, and never 0', () => {
  const { faults, transients, ...numbers } = measured([`${CALM}AAAA${CALM}`], null)
  assert.deepEqual([faults, transients], [[], []])
  assert.deepEqual(numbers, {
    observedSeconds: 440,
    incidents: 1,
    incidentsPerWeek: 604_800 / 440,
    eventRecall: null,
    toAnomalySeconds: null,
    toSev2Seconds: null,
    toSev1Seconds: null,
    toResolvedSeconds: null,
    falseAnomaliesPerThousand: null,
    normalSeconds: null,
    falseIncidents: null,
    falseIncidentsPerDay: null,
    toleratedShare: null,
  })
})

test('measures: with ground truth that nothing happened, all that happened is false, and there is no recall', () => {
  const { eventRecall, toleratedShare, falseIncidents } = measured([`${CALM}AAAA${CALM}`], {
    faults: [],
    transients: [],
  })
  assert.deepEqual(
    { eventRecall, toleratedShare, falseIncidents },
    {
      eventRecall: null,
      toleratedShare: null,
      falseIncidents: 1,
    },
  )
})

test('measures: silence is not observed, and a fault in it is neither missed nor found', () => {
  const series = `${CALM}${'?'.repeat(10)}${CALM}${'A'.repeat(10)}${CALM}..........`
  const truth = { faults: [fault('unseen', 20, 30), fault('seen', 50, 60), fault('missed', 65, 75)], transients: [] }
  const { observedSeconds, eventRecall, ...rest } = measured([series], truth)
  assert.deepEqual(outcomes(rest as Measures), [
    ['unseen', null, null, null, null, null],
    ['seen', true, 0, 20, null, 20],
    ['missed', false, null, null, null, null],
  ])
  assert.deepEqual({ observedSeconds, eventRecall }, { observedSeconds: 800, eventRecall: 0.5 })
})

test('measures: a fault of pairs that are not watched cannot be found, and its time is not normal', () => {
  const elsewhere = { source: 'c', destination: 'd', accumulatorThreshold: 1 }
  const { faults, eventRecall, falseIncidents, falseAnomaliesPerThousand } = measured([`${CALM}AAAA${CALM}`], {
    faults: [fault('elsewhere', 18, 30, elsewhere)],
    transients: [],
  })
  assert.deepEqual(
    { found: faults[0]?.found, eventRecall, falseIncidents, falseAnomaliesPerThousand },
    { found: null, eventRecall: null, falseIncidents: 0, falseAnomaliesPerThousand: 0 },
  )
})

test('measures: a fault that was under way at the first poll, or had not been found when the last one came, is unknown', () => {
  const truth = {
    faults: [
      fault('under way', -2, 5),
      fault('at the start', -1, 5),
      fault('cut short', 40, 60),
      fault('ended', 40, 45),
    ],
    transients: [],
  }
  const { faults, eventRecall } = measured([`AAAAA${'.'.repeat(40)}`], truth)
  assert.deepEqual(
    faults.map(({ found }) => found),
    [null, true, null, false],
  )
  assert.equal(eventRecall, 0.5)
  const found = measured([`${'.'.repeat(40)}AAAAA`], { faults: [fault('cut short', 40, 60)], transients: [] })
  assert.deepEqual(outcomes(found), [['cut short', true, 0, 20, null, null]])
})

test('measures: a fault shows for its tail: what opens in it is its own, and is no normal traffic', () => {
  const series = `${CALM}${'A'.repeat(5)}${CALM}`
  const truth = { faults: [fault('short', 18, 21)], transients: [] }
  assert.deepEqual(outcomes(measured([series], truth, { tailSeconds: 20 })), [['short', true, 20, 40, null, 60]])
  const without = measured([series], truth)
  assert.deepEqual(outcomes(without), [['short', false, 20, null, null, null]])
  assert.equal(without.falseIncidents, 1)
  assert.equal(measured([series], truth, { tailSeconds: 20 }).falseIncidents, 0)
})

test('measures: an incident is found on the pairs of the fault, and one on another pair in its window is not held against it', () => {
  const truth = { faults: [fault('of a', 20, 30, A)], transients: [] }
  const other = measured([CALM + CALM, `${CALM}AAAAA${'.'.repeat(15)}`], truth)
  assert.deepEqual(outcomes(other), [['of a', false, null, null, null, null]])
  assert.equal(other.falseIncidents, 0)
  const own = measured([`${CALM}.AAAA${'.'.repeat(15)}`, `${CALM}AAAAA${'.'.repeat(15)}`], truth)
  assert.deepEqual(
    outcomes(own),
    [['of a', true, 10, 10, 20, null]],
    'opens by both: 2 + 1; hot on both at the next poll',
  )
})

test('measures: of two faults that overlap, the second is found by the escalation, and keeps the first from an end', () => {
  const truth = { faults: [fault('first', 10, 25, A), fault('second', 15, 30, B)], transients: [] }
  const { toSev1Seconds, toSev2Seconds, ...rest } = measured(
    [`${'.'.repeat(10)}${'A'.repeat(15)}${'.'.repeat(15)}`, `${'.'.repeat(15)}${'A'.repeat(15)}${'.'.repeat(10)}`],
    truth,
  )
  assert.deepEqual(outcomes(rest as Measures), [
    ['first', true, 0, 20, 60, null], // open at 12, Sev 1 at 16
    ['second', true, 0, null, 10, 20], // 4, 3, 2, 1: closed at 32
  ])
  assert.deepEqual({ toSev1Seconds, toSev2Seconds }, { toSev1Seconds: 35, toSev2Seconds: 20 })
})

test('measures: an incident that was open before the fault has not found it, but its end is the end of the fault, too', () => {
  const series = `${'.'.repeat(10)}${'A'.repeat(20)}${CALM}`
  const { falseIncidents, ...rest } = measured([series], { faults: [fault('late', 20, 30)], transients: [] })
  assert.deepEqual(outcomes(rest as Measures), [['late', false, 0, null, null, 20]])
  assert.equal(falseIncidents, 1)
})

test('measures: an incident that expires is not resolved', () => {
  const series = `${'.'.repeat(10)}${'A'.repeat(10)}${'?'.repeat(10)}${CALM}`
  const [outcome] = outcomes(measured([series], { faults: [fault('f', 10, 20)], transients: [] }))
  assert.deepEqual(outcome, ['f', true, 0, 20, null, null])
})

test('measures: a transient is tolerated when no incident is put down to it, while it shows or soon after', () => {
  const transients = [
    window('short', 10, 12), // two anomalies: no incident
    window('long', 20, 24), // opens in it
    window('before', 40, 42), // opens at 46, within 50 s of its end
    window('long before', 60, 62), // opens at 68, later than that
    window('unseen', 80, 84),
  ]
  const series = [
    '.'.repeat(10),
    'AA........',
    'AAAA......',
    '.'.repeat(10),
    '....AAA...',
    '.'.repeat(10),
    '......AAA.',
    '.'.repeat(10),
    '??????????',
    '.'.repeat(10),
  ].join('')
  const result = measured([series], { faults: [], transients })
  assert.deepEqual(
    result.transients.map(({ transient: { name }, tolerated, anomalies }) => [name, tolerated, anomalies]),
    [
      ['short', true, 2],
      ['long', false, 4],
      ['before', false, 0],
      ['long before', true, 0],
      ['unseen', null, 0],
    ],
  )
  assert.deepEqual([result.toleratedShare, result.falseIncidents, result.incidents], [0.5, 1, 3])
})

test('measures: an incident after two transients is put down to the later one, and one in a fault to the fault', () => {
  const transients = [window('one', 7, 8), window('two', 8, 9), window('in the fault', 20, 24)]
  const series = `..........AAA.......AAAA${CALM}`
  const { falseIncidents, eventRecall, ...result } = measured([series], {
    faults: [fault('f', 20, 24)],
    transients,
  })
  assert.deepEqual(
    result.transients.map(({ tolerated }) => tolerated),
    [true, false, null],
  )
  assert.deepEqual({ falseIncidents, eventRecall }, { falseIncidents: 0, eventRecall: 1 })
})

test('measures: the tail belongs to a transient, too', () => {
  const truth = { faults: [], transients: [window('t', 10, 12)] }
  const series = `${'.'.repeat(12)}AA${'.'.repeat(26)}`
  assert.equal(measured([series], truth).falseAnomaliesPerThousand, (1000 * 2) / 38)
  const { falseAnomaliesPerThousand, transients } = measured([series], truth, { tailSeconds: 20 })
  assert.deepEqual([falseAnomaliesPerThousand, transients[0]?.anomalies], [0, 2])
})

test('measures: pairs are told apart by both of their names', () => {
  assert.notEqual(pairKey(A), pairKey(B))
  const truth = { faults: [fault('of b', 20, 30, B)], transients: [] }
  const { faults } = measured([`${CALM}AAAAA${'.'.repeat(15)}`, CALM + CALM], truth)
  assert.deepEqual(
    faults.map(({ found, toAnomalySeconds }) => [found, toAnomalySeconds]),
    [[false, null]],
  )
})
