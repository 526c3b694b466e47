import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { Expected, Fault } from '../src/experiment/experiment-file.js'
import { createEffectWatch } from '../src/experiment/fault-effect.js'
import { type Happened, outcomeOf, outcomeTable, type PairEffect } from '../src/experiment/outcome.js'
import { fakeRuntime, vectorAnswer } from './helpers/fake-runtime.js'

const PAIR = { source: 'a', destination: 'b' }
const FAULT: Fault = {
  name: 'delay',
  fromSeconds: 0,
  toSeconds: 10,
  pairs: [PAIR],
  manifest: '',
  delayMs: 200,
  percent: 100,
}
const SEEN: PairEffect = { boundMs: 100, shareBefore: 0.01, shareSince: 1, seenAfterSeconds: 3 }

/** A fault from 1000 to 1300, found after 200 s, and over 100 s after its end. */
const SEV2: Happened = {
  transitions: [
    { timestampSeconds: 1_200, transition: 'opened', severity: 2 },
    { timestampSeconds: 1_400, transition: 'resolved', severity: null },
  ],
  anomalies: 25,
  faults: { fromSeconds: 1_000, toSeconds: 1_300 },
  effects: [{ fault: FAULT, pairs: [SEEN] }],
}
const EXPECT_SEV2: Expected = { severity: 2, sev2WithinSeconds: 200, resolvedWithinSeconds: 100, anomalies: true }
const QUIET: Happened = { transitions: [], anomalies: 0, faults: null, effects: [] }

/** What of the checks is not as expected, in one text each. */
function differences(expected: Expected, happened: Happened): readonly string[] {
  const { checks, asExpected } = outcomeOf(expected, happened)
  const different = checks.filter(({ agrees }) => !agrees)
  assert.equal(asExpected, different.length === 0)
  return different.map(({ what, expected: wanted, seen }) => `${what}: ${wanted}, ${seen}`)
}

test('outcome: a Sev 2 in time, resolved in time, is as expected, and says when', () => {
  const outcome = outcomeOf(EXPECT_SEV2, SEV2)
  assert.deepEqual(outcome, {
    asExpected: true,
    severity: 2,
    sev2Seconds: 200,
    sev1Seconds: null,
    resolvedSeconds: 100,
    anomalies: 25,
    checks: outcome.checks,
  })
  assert.deepEqual(outcomeTable(outcome), {
    title: 'Expected and seen',
    columns: ['what', 'expected', 'seen', ''],
    rows: [
      ['highest severity', 'Sev 2', 'Sev 2', 'ok'],
      ['Sev 2', 'within 200 s', '200 s after the fault came', 'ok'],
      ['resolved', 'within 100 s', '100 s after the fault went', 'ok'],
      ['anomalies', 'some', '25', 'ok'],
      [
        'fault "delay"',
        'takes effect: 200 ms for 100 % of requests',
        'a -> b: after 3 s, 100 % of requests slower than 100 ms, 1 % in training',
        'ok',
      ],
    ],
    note: 'Everything was as expected.',
  })
})

for (const { name, expected, happened, different } of [
  { name: 'nothing, as expected', expected: { severity: null, anomalies: false }, happened: QUIET, different: [] },
  {
    name: 'anomalies that nobody asked about',
    expected: { severity: null },
    happened: { ...QUIET, anomalies: 9 },
    different: [],
  },
  {
    name: 'no incident where one was expected',
    expected: EXPECT_SEV2,
    happened: { ...SEV2, transitions: [] },
    different: [
      'highest severity: Sev 2, no incident',
      'Sev 2: within 200 s, not reached',
      'resolved: within 100 s, no incident',
    ],
  },
  {
    name: 'an incident where none was expected',
    expected: { severity: null },
    happened: { ...SEV2, faults: null, effects: [] },
    different: ['highest severity: no incident, Sev 2'],
  },
  {
    name: 'a Sev 2 that is late',
    expected: { ...EXPECT_SEV2, sev2WithinSeconds: 199 },
    happened: SEV2,
    different: ['Sev 2: within 199 s, 200 s after the fault came'],
  },
  {
    name: 'a Sev 2 before the fault came',
    expected: { severity: 2 },
    happened: { ...SEV2, faults: { fromSeconds: 1_210, toSeconds: 1_300 } },
    different: ['Sev 2: any time, 10 s before the fault came'],
  },
  {
    name: 'a Sev 1 that was to be a Sev 2',
    expected: EXPECT_SEV2,
    happened: {
      ...SEV2,
      transitions: [{ timestampSeconds: 1_100, transition: 'opened', severity: 1 }, ...SEV2.transitions.slice(1)],
    },
    different: ['highest severity: Sev 2, Sev 1'],
  },
  {
    name: 'a Sev 1 by escalation, in time',
    expected: { severity: 1, sev2WithinSeconds: 200, sev1WithinSeconds: 290, resolvedWithinSeconds: 100 },
    happened: {
      ...SEV2,
      transitions: [
        ...SEV2.transitions.slice(0, 1),
        { timestampSeconds: 1_290, transition: 'escalated', severity: 1 },
        { timestampSeconds: 1_350, transition: 'de-escalated', severity: 2 },
        ...SEV2.transitions.slice(1),
      ],
    },
    different: [],
  },
  {
    name: 'a Sev 1 that did not come',
    expected: { severity: 1, sev1WithinSeconds: 290 },
    happened: SEV2,
    different: ['highest severity: Sev 1, Sev 2', 'Sev 1: within 290 s, not reached'],
  },
  {
    name: 'an incident that is still open',
    expected: EXPECT_SEV2,
    happened: { ...SEV2, transitions: SEV2.transitions.slice(0, 1) },
    different: ['resolved: within 100 s, still open'],
  },
  {
    name: 'one that is still open where nobody asked',
    expected: { severity: 2 },
    happened: { ...SEV2, transitions: SEV2.transitions.slice(0, 1) },
    different: [],
  },
  {
    name: 'one that expired',
    expected: EXPECT_SEV2,
    happened: {
      ...SEV2,
      transitions: [
        ...SEV2.transitions.slice(0, 1),
        { timestampSeconds: 1_350, transition: 'expired', severity: null },
      ],
    },
    different: ['resolved: within 100 s, expired'],
  },
  {
    name: 'one that is resolved late',
    expected: { ...EXPECT_SEV2, resolvedWithinSeconds: 99 },
    happened: SEV2,
    different: ['resolved: within 99 s, 100 s after the fault went'],
  },
  {
    name: 'one that is resolved while the fault is in force',
    expected: EXPECT_SEV2,
    happened: { ...SEV2, faults: { fromSeconds: 1_000, toSeconds: 1_410 } },
    different: ['resolved: within 100 s, 10 s before the fault went'],
  },
  {
    name: 'no anomaly where some were expected',
    expected: { severity: null, anomalies: true },
    happened: QUIET,
    different: ['anomalies: some, 0'],
  },
  {
    name: 'a fault that does nothing',
    expected: EXPECT_SEV2,
    happened: { ...SEV2, effects: [{ fault: FAULT, pairs: [{ ...SEEN, shareSince: 0.02, seenAfterSeconds: null }] }] },
    different: [
      'fault "delay": takes effect: 200 ms for 100 % of requests, a -> b: NO EFFECT: 2 % of requests slower than 100 ms, 1 % in training',
    ],
  },
  {
    name: 'a fault on a pair without requests',
    expected: EXPECT_SEV2,
    happened: { ...SEV2, effects: [{ fault: FAULT, pairs: [{ ...SEEN, shareSince: null, seenAfterSeconds: null }] }] },
    different: ['fault "delay": takes effect: 200 ms for 100 % of requests, a -> b: no request while it was in force'],
  },
] satisfies { name: string; expected: Expected; happened: Happened; different: readonly string[] }[]) {
  test(`outcome: ${name}`, () => {
    assert.deepEqual(differences(expected, happened), different)
  })
}

/** Prometheus's answer to how many requests lie at or below each bound. */
function buckets(counts: Readonly<Record<string, number>>): string {
  return vectorAnswer(Object.entries(counts).map(([le, count]) => ({ metric: { le }, value: String(count) })))
}

const SOURCE = { prometheusUrl: 'http://prometheus', sourceLabel: 'source_app', destinationLabel: 'destination_app' }

async function looked(
  fault: Fault,
  answers: readonly string[],
  inForceSeconds: readonly number[],
): Promise<{ readonly effect: PairEffect | undefined; readonly queries: readonly string[] }> {
  const runtime = fakeRuntime(answers)
  const watch = createEffectWatch(runtime, { source: SOURCE, windowSeconds: 60 })
  await watch.learn([PAIR], 1_800)
  for (const seconds of inForceSeconds) await watch.look(fault, seconds)
  return { effect: watch.effects()[0]?.pairs[0], queries: runtime.queries }
}

const NORMAL = buckets({ '5': 40, '10': 90, '50': 100, '100': 100, '250': 100, '+Inf': 100 })

test('fault effect: asks the callers’ sidecars, of the training and then of the time that the fault is in force', async () => {
  const { queries } = await looked(FAULT, [NORMAL], [15, 90])
  const asked = (range: string): string =>
    `sum by (le) (increase(istio_request_duration_milliseconds_bucket{reporter="source",source_app="a",destination_app="b"}[${range}]))`
  assert.deepEqual(queries, [asked('1800000ms'), asked('15000ms'), asked('60000ms')])
})

for (const { name, fault = FAULT, normal = NORMAL, later, expected } of [
  {
    name: 'all requests slower than the delay: seen at the first look at which half of them are',
    later: [
      buckets({ '5': 60, '10': 70, '50': 70, '100': 70, '250': 100, '+Inf': 100 }),
      buckets({ '5': 10, '10': 20, '50': 20, '100': 20, '250': 100, '+Inf': 100 }),
    ],
    expected: { boundMs: 100, shareBefore: 0, shareSince: 0.8, seenAfterSeconds: 30 },
  },
  {
    name: 'as fast as ever: never seen',
    later: [NORMAL],
    expected: { boundMs: 100, shareBefore: 0, shareSince: 0, seenAfterSeconds: null },
  },
  {
    name: 'no requests: nothing is known',
    later: [vectorAnswer([])],
    expected: { boundMs: 100, shareBefore: 0, shareSince: null, seenAfterSeconds: null },
  },
  {
    name: 'a delay of a tenth of the requests: a twentieth of them is enough',
    fault: { ...FAULT, percent: 10 },
    later: [buckets({ '10': 94, '100': 94, '250': 100, '+Inf': 100 })],
    expected: { boundMs: 100, shareBefore: 0, shareSince: 0.06, seenAfterSeconds: 15 },
  },
  {
    name: 'a service that is slow by itself: a bound that it does not cross without the fault',
    normal: buckets({ '100': 5, '250': 95, '500': 100, '+Inf': 100 }),
    later: [buckets({ '100': 0, '250': 5, '500': 95, '+Inf': 100 })],
    expected: { boundMs: 250, shareBefore: 0.05, shareSince: 0.95, seenAfterSeconds: 15 },
  },
  {
    name: 'bounds as Prometheus 3 writes them',
    normal: buckets({ '5.0': 40, '10.0': 100, '100.0': 100, '250.0': 100, '+Inf': 100 }),
    later: [buckets({ '5.0': 0, '10.0': 0, '100.0': 0, '250.0': 100, '+Inf': 100 })],
    expected: { boundMs: 100, shareBefore: 0, shareSince: 1, seenAfterSeconds: 15 },
  },
]) {
  test(`fault effect: ${name}`, async () => {
    const { effect } = await looked(fault, [normal, ...later], [15, 30])
    assert.deepEqual(rounded(effect), expected)
  })
}

function rounded(effect: PairEffect | undefined): PairEffect | undefined {
  if (effect === undefined) return undefined
  const hundredth = (share: number | null): number | null => (share === null ? null : Math.round(share * 100) / 100)
  return { ...effect, shareBefore: hundredth(effect.shareBefore), shareSince: hundredth(effect.shareSince) }
}
