import assert from 'node:assert/strict'
import test from 'node:test'

import type { EdgeFacts, MeshFacts, PairGauges } from '../src/core/edge-facts.js'
import {
  type Evidence,
  evidenceOf,
  evidenceText,
  type Findings,
  type Happened,
  happenedBetween,
  incidentId,
  MAX_COURSE,
  nextTrails,
  noTrails,
  type Trail,
} from '../src/core/evidence.js'
import { coldState, type IncidentRules, type IncidentState, next, type PairVerdict } from '../src/core/incident.js'
import { MAX_INCIDENTS, MAX_TRANSITIONS, withTransition, type IncidentHistory } from '../src/core/incident-history.js'
import { pairKey } from '../src/core/pair.js'

/** A multiple of five: 2026-11-21T05:00:00Z. */
const T0 = 1_795_237_200
const CART = { source: 'frontend', destination: 'cart' }
const PAYMENT = { source: 'checkout', destination: 'payment' }
const RULES: IncidentRules = {
  pairs: [
    { ...CART, accumulatorThreshold: 5 },
    { ...PAYMENT, accumulatorThreshold: 5 },
  ],
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const ISTIO = {
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  window: { text: '1m', seconds: 60 },
} as const

const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }
const OK: PairVerdict = { kind: 'ok' }

interface Run {
  readonly state: IncidentState
  readonly trails: readonly Trail[]
  readonly happened: readonly Happened[]
}

/** Polls of five seconds from T0 on; `verdicts` says what the k-th one finds. */
function run(polls: number, verdicts: (k: number) => readonly PairVerdict[]): Run {
  let state = coldState(RULES)
  let trails = noTrails(RULES)
  const happened: Happened[] = []
  for (let k = 0; k < polls; k++) {
    const poll = { timestampSeconds: T0 + 5 * k, verdicts: verdicts(k) }
    const after = next(state, poll, RULES)
    trails = nextTrails(trails, { before: state, after, poll })
    const found = happenedBetween(state, after, { timestampSeconds: poll.timestampSeconds, trails })
    if (found !== null) happened.push(found)
    state = after
  }
  return { state, trails, happened }
}

const GAUGES: PairGauges = {
  quantile: 0.5,
  latencyMs: 208.1234,
  yhatMs: 8,
  yMinMs: 5,
  yMaxMs: 12.5,
  requestsPerSecond: 43.21,
}
const FACTS: EdgeFacts = {
  ...CART,
  quantile: 0.5,
  callerSide: { beforeMs: 8, nowMs: 208 },
  calleeSide: { beforeMs: 7, nowMs: 7.2 },
  requestsPerSecond: { before: 40, now: 43 },
  versions: [],
}
const MESH: MeshFacts = {
  edges: new Map([[pairKey(CART), FACTS]]),
  injected: [{ ...CART, fault: 'delay', share: 1 }],
}
const FOUND: Findings = { gauges: new Map([[pairKey(CART), GAUGES]]), facts: MESH }

function packet(happened: Happened | undefined, findings: Findings = FOUND): Evidence {
  assert.ok(happened)
  return evidenceOf(happened, findings, { rules: RULES, istio: ISTIO })
}

const SIDES =
  'histogram_quantile(0.5, sum by (le, reporter) (rate(istio_request_duration_milliseconds_bucket{reporter=~"source|destination",source_app="frontend",destination_app="cart"}[1m])))'

test('evidence: the packet of an opened incident, whole', () => {
  const { happened } = run(14, (k) => [k >= 2 ? BAD : OK, OK])
  assert.equal(happened.length, 1)
  const evidence = packet(happened[0])
  const began = T0 + 60
  assert.deepEqual(evidence, {
    id: '20261121T050100Z-44ea902d',
    transition: 'opened',
    severity: 2,
    previousSeverity: null,
    startedSeconds: began,
    timestampSeconds: began,
    temperature: 11,
    pairs: [
      {
        ...CART,
        accumulator: 11,
        accumulatorThreshold: 5,
        hot: true,
        ...GAUGES,
        ratio: 208.1234 / 8,
        firstAnomalousSeconds: T0 + 10,
        course: Array.from({ length: 11 }, (_, i) => [T0 + 10 + 5 * i, i + 1]),
      },
    ],
    suspect: {
      kind: 'between',
      ...CART,
      because:
        "only the caller's side is slow, measured on both sides: frontend's 8 ms before, 208 ms now; cart's own 7 ms before, 7.2 ms now; on it delays (response_flags DI) are injected into 100 % of requests",
    },
    hints: ['fault injected: Envoy reports delays (response_flags DI) for 100 % of requests on frontend -> cart'],
    queries: [
      { expression: SIDES, startSeconds: T0 + 10 - 300, endSeconds: began },
      {
        expression: '{__name__=~"lab7_y|lab7_yhat|lab7_y_min|lab7_y_max",source="frontend",destination="cart"}',
        startSeconds: T0 + 10 - 300,
        endSeconds: began,
      },
    ],
  })
  assert.deepEqual(JSON.parse(JSON.stringify(evidence)), evidence, 'nothing is lost in JSON')
  assert.deepEqual(evidenceText(evidence), [
    'Incident 20261121T050100Z-44ea902d opened (Sev 2) at 2026-11-21T05:01:00Z, began 2026-11-21T05:01:00Z, temperature 11: frontend -> cart p50 208 ms, 26 times the expected 8 ms, band 5 to 12.5, 43.2 requests/s, accumulator 11, hot, anomalous since 2026-11-21T05:00:10Z',
    "Suspect: the way from frontend to cart (network, proxy, retries, an injected fault), because only the caller's side is slow, measured on both sides: frontend's 8 ms before, 208 ms now; cart's own 7 ms before, 7.2 ms now; on it delays (response_flags DI) are injected into 100 % of requests",
    `See it again from 2026-11-21T04:55:10Z to 2026-11-21T05:01:00Z: ${SIDES} (and 1 more in the JSON)`,
  ])
})

test('evidence: an incident is one id from its beginning to its end, and says what it was', () => {
  const { happened } = run(60, (k) => [k >= 2 && k < 30 ? BAD : OK, k >= 16 && k < 30 ? BAD : OK])
  const packets = happened.map((one) => packet(one))
  assert.deepEqual(
    packets.map(({ transition, severity, previousSeverity }) => [transition, severity, previousSeverity]),
    [
      ['opened', 2, null],
      ['escalated', 1, 2],
      ['de-escalated', 2, 1],
      ['resolved', null, 2],
    ],
  )
  assert.equal(new Set(packets.map(({ id }) => id)).size, 1)
  assert.deepEqual(
    packets.map((evidence) => evidenceText(evidence)[0].split(' at ')[0]?.split(' ').slice(2).join(' ')),
    ['opened (Sev 2)', 'escalated (Sev 1, was Sev 2)', 'de-escalated (Sev 2, was Sev 1)', 'resolved (was Sev 2)'],
  )
  const end = packets.at(-1)
  assert.deepEqual(end?.suspect, { kind: 'none', because: 'the incident is over: its earlier transitions tell' })
  assert.deepEqual(
    end.pairs.map(({ source, firstAnomalousSeconds }) => [source, firstAnomalousSeconds]),
    [
      ['frontend', T0 + 10],
      ['checkout', T0 + 80],
    ],
  )
})

test('evidence: the id knows when it began and which pairs are watched, not in which order', () => {
  const id = incidentId(T0, [CART, PAYMENT])
  assert.equal(incidentId(T0, [PAYMENT, CART]), id)
  assert.match(id, /^20261121T050000Z-[0-9a-f]{8}$/)
  assert.match(incidentId(T0 + 2.5, [CART]), /^20261121T050002\.500Z-/)
  for (const other of [
    incidentId(T0 + 5, [CART, PAYMENT]),
    incidentId(T0, [CART]),
    incidentId(T0, [{ source: 'frontend","cart', destination: '' }, PAYMENT]),
  ]) {
    assert.notEqual(other, id)
  }
  // FNV-1a's published value for the bytes of the empty text.
  assert.match(incidentId(T0, []), /-811c9dc5$/)
})

test('evidence: the course is bounded, spreads over all of the time, and ends with the last poll', () => {
  assert.equal(MAX_COURSE, 120)
  for (const polls of [1, 2, 119, 120, 121, 240, 241, 5_000]) {
    const { happened, trails } = run(polls + 40, (k) => [k < polls ? BAD : OK, OK])
    const end = happened.at(-1)
    if (end?.transition !== 'resolved') {
      assert.ok(polls < 11)
      continue
    }
    const course = packet(end).pairs[0]?.course ?? []
    assert.ok(course.length <= MAX_COURSE, `${course.length} of ${polls}`)
    assert.ok(course.length >= Math.min(polls, MAX_COURSE / 2 - 1), `${course.length} of ${polls}`)
    assert.equal(course[0]?.[0], T0)
    assert.equal(course.at(-1)?.[0], end.timestampSeconds)
    const gaps = course.slice(1, -1).map(([at], i) => at - (course[i]?.[0] ?? NaN))
    assert.equal(new Set(gaps).size <= 1, true, `even: ${[...new Set(gaps)].join()}`)
    assert.deepEqual(trails, noTrails(RULES), 'cold again, nothing is kept')
  }
})

test('evidence: a pair that cooled down within an incident keeps its first anomalous poll', () => {
  // The cart stays hot; the payment is hot, cold, and hot again.
  const { happened } = run(60, (k) => [k >= 2 ? BAD : OK, (k >= 10 && k < 20) || k >= 45 ? BAD : OK])
  const escalated = happened.filter(({ transition }) => transition === 'escalated').map((one) => packet(one))
  assert.equal(escalated.length, 2)
  for (const { pairs } of escalated) assert.equal(pairs[1]?.firstAnomalousSeconds, T0 + 50)
})

for (const { name, findings, hints, suspect } of [
  {
    name: 'Istio metrics',
    findings: { ...FOUND, facts: { unanswered: 'timeout: no complete answer within 2 s' } },
    hints: ["not answered: Istio's own metrics (timeout: no complete answer within 2 s)"],
    suspect: "neither side's measurement was answered",
  },
  {
    name: 'the monitors',
    findings: { ...FOUND, gauges: { unanswered: 'conn: \u001b[31m\nrefused\u202e' } },
    hints: [
      "not answered: the monitors' values (conn:  [31m refused )",
      'fault injected: Envoy reports delays (response_flags DI) for 100 % of requests on frontend -> cart',
    ],
    suspect: null,
  },
] satisfies readonly { name: string; findings: Findings; hints: readonly string[]; suspect: string | null }[]) {
  test(`evidence: without an answer about ${name} there is a packet all the same, which says so`, () => {
    const evidence = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0], findings)
    assert.deepEqual(evidence.hints, hints)
    if (suspect !== null) assert.deepEqual(evidence.suspect, { kind: 'none', because: suspect })
    const [pair] = evidence.pairs
    assert.deepEqual([pair?.accumulator, pair?.course.length], [11, 11])
    assert.equal(evidence.queries.length, 2)
    if (suspect === null) {
      assert.deepEqual([pair?.latencyMs, pair?.ratio, pair?.requestsPerSecond], [null, null, null])
      assert.match(evidenceText(evidence)[0], /frontend -> cart latency unknown, accumulator 11/)
    }
  })
}

test('evidence: a roll-out and a change of load are told as they were measured', () => {
  const edge: EdgeFacts = {
    ...FACTS,
    requestsPerSecond: { before: 20, now: 64 },
    versions: [
      { version: 'v1', share: 0.75, latencyMs: 8.04 },
      { version: 'v2\u0007\n', share: 0.25, latencyMs: null },
    ],
  }
  const evidence = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0], {
    ...FOUND,
    facts: { edges: new Map([[pairKey(CART), edge]]), injected: [] },
  })
  assert.deepEqual(evidence.hints, [
    '2 versions of the destination carry traffic on frontend -> cart: v1 (75 % of requests, p50 8.04 ms), v2   (25 % of requests)',
    'load on frontend -> cart: 64 requests/s, 3.2 times the 20/s before',
  ])
})

test('evidence: text is three lines whatever names from outside hold', () => {
  const evidence = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0])
  const hostile = '\u001b[31m\r\n\u2028\u202eevil'
  const lines = evidenceText({
    ...evidence,
    hints: [hostile],
    suspect: { kind: 'service', name: hostile, because: hostile },
    pairs: evidence.pairs.map((pair) => ({ ...pair, source: hostile })),
    queries: [{ expression: hostile, startSeconds: T0, endSeconds: T0 }],
  })
  assert.equal(lines.length, 3)
  for (const line of lines) {
    assert.doesNotMatch(line, /[\p{C}\p{Zl}\p{Zp}]/u)
    assert.match(line, /evil/)
  }
})

test('evidence: with many pairs the first line tells the hottest and counts the others', () => {
  const evidence = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0])
  const [pair] = evidence.pairs
  assert.ok(pair)
  const pairs = Array.from({ length: 30 }, (_, i) => ({ ...pair, source: `caller-${i}`, accumulator: i % 20 }))
  const [line] = evidenceText({ ...evidence, pairs })
  assert.match(
    line,
    /: caller-19 -> cart .*; caller-18 -> cart .*; caller-17 -> cart .*; caller-16 -> cart .*; 26 more$/,
  )
  assert.equal(evidenceText({ ...evidence, queries: [] })[2], 'See it again: nothing to ask for')
})

test('evidence history: an incident from its opening to its end, newest first', () => {
  const { happened } = run(120, (k) => [(k >= 2 && k < 30) || k >= 70 ? BAD : OK, k >= 16 && k < 30 ? BAD : OK])
  const packets = happened.map((one) => packet(one))
  const history = packets.reduce<IncidentHistory>(withTransition, [])
  assert.deepEqual(
    history.map(({ severity, startedSeconds, endedSeconds, outcome, transitions }) => ({
      severity,
      startedSeconds,
      endedSeconds,
      outcome,
      transitions: transitions.map(({ transition }) => transition),
    })),
    [
      { severity: 2, startedSeconds: T0 + 400, endedSeconds: null, outcome: 'open', transitions: ['opened'] },
      {
        severity: 1,
        startedSeconds: T0 + 60,
        endedSeconds: packets[3]?.timestampSeconds,
        outcome: 'resolved',
        transitions: ['opened', 'escalated', 'de-escalated', 'resolved'],
      },
    ],
  )
})

test('evidence history: bounded in incidents and in transitions, and what is left out is counted', () => {
  const opened = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0])
  let history: IncidentHistory = []
  for (let i = 0; i < MAX_INCIDENTS + 5; i++) history = withTransition(history, { ...opened, id: String(i) })
  assert.deepEqual(
    [history.length, history[0]?.id, history.at(-1)?.id],
    [MAX_INCIDENTS, String(MAX_INCIDENTS + 4), '5'],
  )

  history = withTransition([], opened)
  for (let i = 1; i <= 2 * MAX_TRANSITIONS; i++) {
    const transition = i % 2 === 1 ? 'escalated' : 'de-escalated'
    history = withTransition(history, {
      ...opened,
      transition,
      timestampSeconds: T0 + i,
      severity: i % 2 === 1 ? 1 : 2,
    })
  }
  const [record] = history
  assert.deepEqual(
    [record?.transitions.length, record?.transitionsLeftOut, record?.severity],
    [MAX_TRANSITIONS, MAX_TRANSITIONS + 1, 1],
  )
  assert.equal(record?.transitions[0]?.transition, 'opened')
  assert.equal(record.transitions.at(-1)?.timestampSeconds, T0 + 2 * MAX_TRANSITIONS)
})

test('evidence history: an end whose beginning nobody knows, and one that expired', () => {
  const opened = packet(run(14, (k) => [k >= 2 ? BAD : OK, OK]).happened[0])
  const [record] = withTransition([], { ...opened, transition: 'expired', severity: null, previousSeverity: 1 })
  assert.deepEqual([record?.outcome, record?.severity, record?.endedSeconds], ['expired', 1, opened.timestampSeconds])
})
