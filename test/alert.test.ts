import assert from 'node:assert/strict'
import test from 'node:test'

import {
  type Alerting,
  alertsOf,
  nextAlerting,
  NOTHING_RAISED,
  RESOLVED_FOR_SECONDS,
  retryDelayMs,
  stableLabels,
} from '../src/core/alert.js'
import type { IncidentRules, IncidentState, Severity } from '../src/core/incident.js'

const T0 = 1_700_000_000

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

/** What a poll says: an incident of that severity that began at T0, none, or one that silence ended. */
type Said = Severity | null | 'expired'

function stateOf(said: Said, startedSeconds = T0): IncidentState {
  const severity = said === 'expired' ? null : said
  return {
    accumulators: severity === null ? [0, 0] : severity === 1 ? [12, 9] : [12, 0],
    heardSeconds: [startedSeconds, startedSeconds],
    open: severity === null ? null : { startedSeconds, severity },
    expired: said === 'expired',
  }
}

interface Step {
  readonly at: number
  readonly said: Said
  readonly expected?: string
  readonly started?: number
}

function fold(steps: readonly Step[]): Alerting {
  return steps.reduce(
    (alerting, { at, said, expected = null, started = T0 }) =>
      nextAlerting(alerting, { state: stateOf(said, started), timestampSeconds: T0 + at, expected }),
    NOTHING_RAISED,
  )
}

const sev = (severity: Severity, startedSeconds = T0): { startedSeconds: number; severity: Severity } => ({
  startedSeconds,
  severity,
})

for (const { name, steps, alerting } of [
  { name: 'no incident: nothing', steps: [{ at: 0, said: null }], alerting: NOTHING_RAISED },
  { name: 'opened: it fires', steps: [{ at: 0, said: 2 }], alerting: { firing: sev(2), ended: [] } },
  {
    name: 'escalated: Sev 1 fires from the start of the incident, Sev 2 has ended',
    steps: [
      { at: 0, said: 2 },
      { at: 20, said: 1 },
    ],
    alerting: { firing: sev(1), ended: [{ ...sev(2), endedSeconds: T0 + 20, how: 'escalated' }] },
  },
  {
    name: 'de-escalated: Sev 2 fires again and is no longer ended',
    steps: [
      { at: 0, said: 2 },
      { at: 20, said: 1 },
      { at: 40, said: 2 },
    ],
    alerting: { firing: sev(2), ended: [{ ...sev(1), endedSeconds: T0 + 40, how: 'de-escalated' }] },
  },
  {
    name: 'resolved: both have ended',
    steps: [
      { at: 0, said: 2 },
      { at: 20, said: 1 },
      { at: 60, said: null },
    ],
    alerting: {
      firing: null,
      ended: [
        { ...sev(2), endedSeconds: T0 + 20, how: 'escalated' },
        { ...sev(1), endedSeconds: T0 + 60, how: 'resolved' },
      ],
    },
  },
  {
    name: 'expired: it has ended, and that says so',
    steps: [
      { at: 0, said: 2 },
      { at: 600, said: 'expired' },
    ],
    alerting: { firing: null, ended: [{ ...sev(2), endedSeconds: T0 + 600, how: 'expired' }] },
  },
  {
    name: 'an end is remembered for five minutes',
    steps: [
      { at: 0, said: 2 },
      { at: 10, said: null },
      { at: 10 + RESOLVED_FOR_SECONDS - 1, said: null },
    ],
    alerting: { firing: null, ended: [{ ...sev(2), endedSeconds: T0 + 10, how: 'resolved' }] },
  },
  {
    name: 'and then forgotten',
    steps: [
      { at: 0, said: 2 },
      { at: 10, said: null },
      { at: 10 + RESOLVED_FOR_SECONDS, said: null },
    ],
    alerting: NOTHING_RAISED,
  },
  {
    name: 'opened again: the end before is not repeated beside it',
    steps: [
      { at: 0, said: 2 },
      { at: 10, said: null },
      { at: 30, said: 2, started: T0 + 30 },
    ],
    alerting: { firing: sev(2, T0 + 30), ended: [] },
  },
  {
    name: 'maintenance: nothing new is raised',
    steps: [
      { at: 0, said: null, expected: 'upgrade' },
      { at: 10, said: 2, expected: 'upgrade' },
      { at: 20, said: 1, expected: 'upgrade' },
    ],
    alerting: NOTHING_RAISED,
  },
  {
    name: 'maintenance: what came and went in a window was never raised, so it has no end',
    steps: [
      { at: 0, said: 2, expected: 'upgrade' },
      { at: 10, said: null, expected: 'upgrade' },
    ],
    alerting: NOTHING_RAISED,
  },
  {
    name: 'maintenance: what is still open when the window ends is raised then, as it then is',
    steps: [
      { at: 0, said: 2, expected: 'upgrade' },
      { at: 10, said: 1 },
    ],
    alerting: { firing: sev(1), ended: [] },
  },
  {
    name: 'maintenance: what fired before the window stays as it was',
    steps: [
      { at: 0, said: 2 },
      { at: 10, said: 2, expected: 'upgrade' },
      { at: 20, said: 1, expected: 'upgrade' },
    ],
    alerting: { firing: sev(2), ended: [] },
  },
  {
    name: 'maintenance: and is raised to its severity when the window ends',
    steps: [
      { at: 0, said: 2 },
      { at: 20, said: 1, expected: 'upgrade' },
      { at: 30, said: 1 },
    ],
    alerting: { firing: sev(1), ended: [{ ...sev(2), endedSeconds: T0 + 30, how: 'escalated' }] },
  },
  {
    name: 'maintenance: and ends with its incident, window or no window',
    steps: [
      { at: 0, said: 2 },
      { at: 10, said: 2, expected: 'upgrade' },
      { at: 20, said: null, expected: 'upgrade' },
    ],
    alerting: { firing: null, ended: [{ ...sev(2), endedSeconds: T0 + 20, how: 'resolved' }] },
  },
  {
    name: 'maintenance: a second incident in the window is not the one that fired before it',
    steps: [
      { at: 0, said: 2 },
      { at: 20, said: null, expected: 'upgrade' },
      { at: 40, said: 2, started: T0 + 40, expected: 'upgrade' },
    ],
    alerting: { firing: null, ended: [{ ...sev(2), endedSeconds: T0 + 20, how: 'resolved' }] },
  },
] satisfies readonly { name: string; steps: readonly Step[]; alerting: Alerting }[]) {
  test(`alert: ${name}`, () => {
    assert.deepEqual(fold(steps), alerting)
  })
}

const ESCALATED = [
  { at: 0, said: 2 },
  { at: 20, said: 1 },
] satisfies readonly Step[]

function posted(steps: readonly Step[], evidence: readonly string[] = []) {
  const { at, said } = steps.at(-1)!
  return alertsOf(fold(steps), {
    labels: stableLabels(RULES.pairs),
    rules: RULES,
    state: stateOf(said),
    timestampSeconds: T0 + at,
    lastsSeconds: 600,
    evidence,
  })
}

test('alert: an escalation posts the new severity firing, then the old one resolved, alike but for the severity', () => {
  const labels = { alertname: 'MeshfeverIncident', pairs: 'checkout -> payment, frontend -> cart' }
  const started = '2023-11-14T22:13:20.000Z'
  assert.deepEqual(posted(ESCALATED, ['one', 'two', 'three']), [
    {
      labels: { ...labels, severity: 'sev1' },
      annotations: {
        summary: 'Sev 1: latency of frontend -> cart, checkout -> payment is abnormal, temperature 21',
        description: 'one\ntwo\nthree',
        started,
      },
      startsAt: started,
      endsAt: '2023-11-14T22:23:40.000Z',
    },
    {
      labels: { ...labels, severity: 'sev2' },
      annotations: { summary: 'Sev 2 escalated after 20 s', started },
      startsAt: started,
      endsAt: '2023-11-14T22:13:40.000Z',
    },
  ])
})

for (const { said, summary } of [
  { said: null, summary: 'Sev 2 resolved after 60 s' },
  { said: 'expired', summary: 'Sev 2 expired after 60 s: nothing is known of the pairs any more' },
] as const) {
  test(`alert: the end tells that it is ${said ?? 'resolved'}, with the evidence`, () => {
    const [alert, ...others] = posted(
      [
        { at: 0, said: 2 },
        { at: 60, said },
      ],
      ['why'],
    )
    assert.deepEqual(others, [])
    assert.deepEqual(
      [alert?.annotations['summary'], alert?.annotations['description'], alert?.endsAt],
      [summary, 'why', '2023-11-14T22:14:20.000Z'],
    )
  })
}

for (const { name, line, ends } of [
  { name: 'ASCII', line: 'a'.repeat(10_000), ends: 'a…' },
  { name: 'characters of four bytes', line: '🔥'.repeat(5_000), ends: '🔥…' },
]) {
  test(`alert: an annotation of ${name} is cut at 4 kB between code points`, () => {
    const text = posted([{ at: 0, said: 2 }], [line])[0]?.annotations['description'] ?? ''
    const { length } = Buffer.from(text)
    assert.ok(length <= 4_096 && length > 4_090, `${length} bytes`)
    assert.ok(text.endsWith(ends))
    assert.equal(Buffer.from(text).toString(), text)
  })
}

test('alert: an annotation of exactly 4 kB is left alone', () => {
  const line = 'é'.repeat(2_048)
  assert.equal(posted([{ at: 0, said: 2 }], [line])[0]?.annotations['description'], line)
})

test('alert: the labels do not depend on the order of the pairs, and many pairs become a short name that is their own', () => {
  assert.deepEqual(stableLabels(RULES.pairs.toReversed()), stableLabels(RULES.pairs))
  const many = (last: string) =>
    Array.from({ length: 50 }, (_, i) => ({ source: `service${i}`, destination: i === 49 ? last : 'b' }))
  const { pairs = '' } = stableLabels(many('b'))
  assert.match(pairs, /^service0 -> b and 49 more \([0-9a-f]{8}\)$/)
  assert.notEqual(stableLabels(many('c'))['pairs'], pairs)
})

for (const { failures, fromMs, toMs } of [
  { failures: 1, fromMs: 1_000, toMs: 2_000 },
  { failures: 2, fromMs: 2_000, toMs: 4_000 },
  { failures: 4, fromMs: 8_000, toMs: 16_000 },
  { failures: 5, fromMs: 15_000, toMs: 30_000 },
  { failures: 5_000, fromMs: 15_000, toMs: 30_000 },
]) {
  test(`alert: after ${failures} failures the next try comes in ${fromMs} to ${toMs} ms`, () => {
    assert.deepEqual([retryDelayMs(failures, 0), retryDelayMs(failures, 1)], [fromMs, toMs])
  })
}
