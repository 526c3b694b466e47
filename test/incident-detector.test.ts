import assert from 'node:assert/strict'
import test from 'node:test'

import { Registry } from 'prom-client'

import type { IncidentRules } from '../src/core/incident.js'
import type { IncidentHistoryJson } from '../src/core/incident-history.js'
import { createIncidentDetector, type IncidentConfig } from '../src/io/incident-detector.js'
import type { PollResult } from '../src/io/serve-daemon.js'
import { samplesNamed } from './helpers/exposition.js'
import { type History, historyAnswer } from './helpers/fake-history.js'
import {
  type FakeAnswer,
  type FakeRuntime,
  fakeRuntime,
  matrixAnswer,
  vectorAnswer,
  without,
} from './helpers/fake-runtime.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

/** The manual clock begins here; a multiple of the poll interval. */
const T0 = 1_700_000_000
const INTERVAL_MS = 5_000

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
const CONFIG: IncidentConfig = {
  rules: RULES,
  prometheusUrl: 'http://prometheus:9090',
  pollIntervalMs: INTERVAL_MS,
  staleAfterSeconds: 60,
  notifier: { update: () => undefined, expectedAt: () => null, idle: () => Promise.resolve() },
  istio: { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: { text: '1m', seconds: 60 } },
}

type Exported = Readonly<Record<string, number>>

interface Detector {
  readonly runtime: FakeRuntime
  readonly poll: () => Promise<PollResult>
  /** Polls once in each slot, `count` times, and returns what was exported after each. */
  readonly polls: (count: number) => Promise<readonly Exported[]>
  readonly exported: () => Promise<Exported>
  readonly text: () => Promise<string>
  /** From now on, or no longer, Prometheus answers 503. */
  readonly outage: (on: boolean) => void
  readonly history: () => IncidentHistoryJson
}

/** Whether a query is the one of every poll, and not one about a transition. */
const isPoll = (query: string): boolean => query.endsWith('offset 1000ms')

/** What a transition is told: values that depend on the time asked for and on nothing else. */
function evidenceAnswer(query: string): string {
  const atSeconds = Number(/ @ ([\d.]+)/.exec(query)?.[1])
  const labels = { ...CART, quantile: '0.5' }
  if (query.includes('lab7_y')) {
    return vectorAnswer([
      { metric: { __name__: 'lab7_y', ...labels }, value: String(200 + ((atSeconds - T0) % 100)) },
      { metric: { __name__: 'lab7_yhat', ...labels }, value: '10' },
      { metric: { __name__: 'lab7_y_max', ...labels }, value: '20' },
    ])
  }
  const edge = { source_app: 'frontend', destination_app: 'cart' }
  return vectorAnswer(
    ['source', 'destination'].flatMap((reporter) => [
      { metric: { series: 'before_ms', reporter, ...edge }, value: '10' },
      { metric: { series: 'now_ms', reporter, ...edge }, value: '210' },
    ]),
  )
}

/** @param startSeconds - when the daemon starts, after T0 */
function detector(
  history: History,
  {
    startSeconds = 0,
    about = evidenceAnswer,
    rules = RULES,
  }: { startSeconds?: number; about?: (query: string) => FakeAnswer; rules?: IncidentRules } = {},
): Detector {
  let down = false
  const runtime: FakeRuntime = fakeRuntime((query): FakeAnswer => {
    if (down) return { status: 503, body: 'Service Unavailable' }
    if (!isPoll(query)) return about(query)
    // A little into the slot, as a daemon that started at any moment is.
    const nowMs = runtime.clock.nowMs() + startSeconds * 1000 + 2_300
    return historyAnswer(query, { pairs: RULES.pairs, nowMs, history })
  })
  const registry = new Registry()
  const { poll, history: incidents } = createIncidentDetector({ ...CONFIG, rules }, runtime, registry)
  const exported = async (): Promise<Exported> => samplesNamed(await registry.metrics(), 'lab7_')
  return {
    runtime,
    poll,
    exported,
    history: incidents,
    text: () => registry.metrics(),
    outage: (on) => (down = on),
    polls: async (count) => {
      const seen: Exported[] = []
      for (let i = 0; i < count; i++) {
        if (runtime.queries.length > 0) await runtime.clock.advance(INTERVAL_MS)
        await poll()
        seen.push(await exported())
      }
      return seen
    },
  }
}

/** Seconds after T0 in [from, to) are anomalous for the pair. */
function bad(...spans: readonly (readonly [pair: { readonly source: string }, from: number, to: number])[]): History {
  return ({ source }, seconds) =>
    spans.some(([pair, from, to]) => pair.source === source && seconds >= T0 + from && seconds < T0 + to) ? 1 : 0
}

function transitions({ runtime }: Detector): readonly unknown[] {
  return runtime.logged
    .filter(({ msg }) => msg === 'incident transition')
    .map(({ transition, severity, timestampSeconds }) => [transition, severity, Number(timestampSeconds) - T0])
}

const COLD: Exported = {
  'lab7_incident_accumulator{source="frontend",destination="cart"}': 0,
  'lab7_incident_accumulator{source="checkout",destination="payment"}': 0,
  lab7_incident_temperature: 0,
  lab7_incident_severity: 0,
  lab7_incident_sev1: 0,
  lab7_incident_sev2: 0,
  'lab7_incidents_total{severity="1"}': 0,
  'lab7_incidents_total{severity="2"}': 0,
}

test('incident detector: before the first answer nothing is exported but counters at 0', async () => {
  const { exported, poll, outage } = detector(() => 0)
  const counters = { 'lab7_incidents_total{severity="1"}': 0, 'lab7_incidents_total{severity="2"}': 0 }
  assert.deepEqual(await exported(), counters)
  outage(true)
  assert.equal((await poll()).outcome, 'http_5xx')
  assert.deepEqual(await exported(), counters)
})

test('incident detector: a quiet mesh is cold, and says so once a poll', async () => {
  const quiet = detector(() => 0)
  const [first, second] = await quiet.polls(2)
  assert.deepEqual(first, COLD)
  assert.deepEqual(second, COLD)
  assert.deepEqual(
    quiet.runtime.logged.map(({ msg }) => msg),
    ['warmed up from history', 'No incident detected', 'No incident detected'],
  )
})

test('incident detector: from the first anomaly to Sev 2, to Sev 1 and back again', async () => {
  const mesh = detector(bad([CART, 5, 105], [PAYMENT, 80, 130]))
  const seen = await mesh.polls(45)
  // A poll at second 0, then every 5 s; what was exported at second 5 is read at second 5 (now is 2.3 s on, 1 s of it settling).
  const severities = seen.map((exported) => exported['lab7_incident_severity'])
  assert.deepEqual(severities.indexOf(2), 11, 'the 11th bad poll')
  assert.deepEqual(transitions(mesh), [
    ['opened', 2, 55],
    ['escalated', 1, 105],
    ['de-escalated', 2, 140],
    ['resolved', null, 145],
  ])
  assert.deepEqual(seen.at(-1), {
    ...COLD,
    'lab7_incidents_total{severity="1"}': 1,
    'lab7_incidents_total{severity="2"}': 1,
  })
})

test('incident detector: severity, sev1, sev2 and start belong together in every poll', async () => {
  for (const exported of await detector(bad([CART, 5, 105], [PAYMENT, 80, 130])).polls(45)) {
    const severity = exported['lab7_incident_severity']
    const told = JSON.stringify(exported)
    assert.equal(exported['lab7_incident_sev1'], severity === 1 ? 1 : 0, told)
    assert.equal(exported['lab7_incident_sev2'], severity === 2 ? 1 : 0, told)
    assert.equal(exported['lab7_incident_started_timestamp_seconds'], severity === 0 ? undefined : T0 + 55, told)
    const levels = RULES.pairs.map(
      ({ source, destination }) =>
        exported[`lab7_incident_accumulator{source="${source}",destination="${destination}"}`] ?? NaN,
    )
    assert.equal(
      exported['lab7_incident_temperature'],
      levels.reduce((sum, level) => sum + level, 0),
      told,
    )
  }
})

test('incident detector: the words that people search the log for', async () => {
  const mesh = detector(bad([CART, 5, 60], [PAYMENT, 5, 60]))
  await mesh.polls(8)
  const lines = mesh.runtime.logged.map(({ msg, level }) => [msg, level])
  assert.deepEqual(lines.slice(1, 3), [
    ['No incident detected', 30],
    ['No incident detected', 30],
  ])
  assert.deepEqual(lines.slice(-3), [
    ['incident transition', 40],
    ['Incident detected! Severity: Sev 1', 40],
    ['Incident detected! Severity: Sev 1', 40],
  ])
  assert.deepEqual(without(mesh.runtime.logged.at(-1), 'time'), {
    level: 40,
    timestampSeconds: T0 + 35,
    temperature: 14,
    accumulators: { 'frontend -> cart': 7, 'checkout -> payment': 7 },
    severity: 1,
    msg: 'Incident detected! Severity: Sev 1',
  })
})

const counted = (exported: Exported): Exported =>
  Object.fromEntries(Object.entries(exported).filter(([series]) => !series.startsWith('lab7_incidents_total')))

for (const { name, history } of [
  { name: 'in quiet', history: bad() },
  { name: 'with heat that is no incident', history: bad([CART, 560, 590]) },
  { name: 'in a Sev 2', history: bad([CART, 450, 900]) },
  { name: 'in a Sev 1', history: bad([CART, 500, 900], [PAYMENT, 530, 640]) },
  { name: 'in an incident that is cooling', history: bad([CART, 450, 588]) },
  { name: 'in an incident of more than the first window', history: bad([CART, -1_500, 900]) },
  {
    name: 'in an incident about which there is silence',
    history: (({ source }, at) =>
      at >= T0 + 550 ? null : source === CART.source && at >= T0 + 400 ? 1 : 0) satisfies History,
  },
  {
    name: 'in heat between the thresholds that an older incident left open',
    // Up to the maximum, then two bad polls to one good one for half an hour: the accumulator stays between 18 and 20.
    history: (({ source }, at) =>
      source === CART.source && at >= T0 - 1_300 && (at < T0 - 1_200 || (at / 5) % 3 !== 0) ? 1 : 0) satisfies History,
  },
]) {
  test(`incident detector: a restart ${name} is no restart`, async () => {
    const restartSeconds = 600
    const continuous = detector(history, { startSeconds: -2_000 })
    await continuous.polls(1 + (restartSeconds + 2_000) / 5)
    const restarted = detector(history, { startSeconds: restartSeconds })
    await restarted.polls(1)
    assert.deepEqual(counted(await restarted.exported()), counted(await continuous.exported()))
    const before = [transitions(continuous).length, transitions(restarted).length] as const
    for (let i = 0; i < 100; i++) {
      const [expected] = await continuous.polls(1)
      const [actual] = await restarted.polls(1)
      assert.deepEqual(counted(actual!), counted(expected!), `poll ${i} after the restart`)
    }
    assert.equal(before[1], 0, 'what happened before the start is not announced again')
    assert.deepEqual(transitions(restarted), transitions(continuous).slice(before[0]))
    assert.equal(restarted.runtime.logged[0]?.['certain'], true)
  })
}

const packets = ({ runtime }: Detector): readonly string[] =>
  runtime.logged.filter(({ msg }) => msg === 'incident transition').map(({ evidence }) => JSON.stringify(evidence))

test('incident detector: replicas that started at different times tell the same packets, byte for byte', async () => {
  const history = bad([CART, 5, 105], [PAYMENT, 80, 130], [PAYMENT, 400, 520])
  const [early, late] = [detector(history, { startSeconds: -700 }), detector(history, { startSeconds: 57 })]
  await early.polls(1 + (700 + 57) / 5)
  const before = packets(early).length
  assert.equal(before, 1, 'the late one starts just after the opening')
  await Promise.all([early.polls(130), late.polls(131)])
  assert.equal(packets(late).length, 5)
  assert.deepEqual(packets(late), packets(early).slice(before))
  assert.deepEqual(late.history(), early.history(), 'the opening, too, is known to the one that replayed it')
  assert.deepEqual(
    late.history().incidents.map(({ id, outcome, transitions: told }) => [id.slice(0, 17), outcome, told.length]),
    [
      ['20231114T222050Z-', 'resolved', 2],
      ['20231114T221415Z-', 'resolved', 4],
    ],
  )
})

test('incident detector: a start looks back to the first anomaly, not just until the temperature is certain', async () => {
  // One pair alone is held at 8, where it opens nothing; what it is now is soon known, since when is not.
  const rules = { ...RULES, accumulatorMax: 8, clearThreshold: 8 }
  const history = bad([CART, -3_000, 900], [PAYMENT, 105, 300])
  const [early, late] = [-3_500, 90].map((startSeconds) => detector(history, { startSeconds, rules }))
  assert.ok(early && late)
  await early.polls(1 + (3_500 + 90) / 5)
  await late.polls(1)
  assert.equal(late.runtime.logged[0]?.['windowSeconds'], 3_600)
  await Promise.all([early.polls(60), late.polls(60)])
  assert.equal(packets(late).length, 4)
  assert.deepEqual(packets(late), packets(early))
})

test('incident detector: the line of a transition has its fields, the packet, and three lines of text', async () => {
  const mesh = detector(bad([CART, 5, 105]))
  await mesh.polls(13)
  const line = mesh.runtime.logged.find(({ msg }) => msg === 'incident transition')
  const { evidence, text } = line as { readonly evidence: unknown; readonly text: readonly string[] }
  assert.deepEqual(without(line, 'evidence', 'text', 'time'), {
    level: 40,
    transition: 'opened',
    severity: 2,
    startedSeconds: T0 + 55,
    timestampSeconds: T0 + 55,
    temperature: 11,
    accumulators: { 'frontend -> cart': 11, 'checkout -> payment': 0 },
    msg: 'incident transition',
  })
  assert.equal(text.length, 3)
  assert.match(
    text[0] ?? '',
    /^Incident 20231114T221415Z-\w{8} opened \(Sev 2\) .* frontend -> cart p50 255 ms, 25\.5 times/,
  )
  assert.match(text[1] ?? '', /^Suspect: cart, because both sides are slow/)
  assert.deepEqual(mesh.history().incidents[0]?.transitions, [evidence])
})

test('incident detector: queries about a transition are asked once, and pinned to its poll', async () => {
  const mesh = detector(bad([CART, 5, 105]))
  await mesh.polls(13)
  const about = mesh.runtime.queries.filter((query) => !isPoll(query))
  assert.equal(about.length, 2)
  for (const query of about) assert.ok(query.includes(` @ ${T0 + 55}`), query)
})

for (const { name, about, unanswered } of [
  { name: 'is refused', about: { status: 503, body: 'no' }, unanswered: /http_5xx/ },
  { name: 'is not JSON', about: { status: 200, body: '<html>' }, unanswered: /bad_json/ },
  { name: 'cannot be sent', about: { code: 'ECONNREFUSED' }, unanswered: /conn: ECONNREFUSED/ },
] satisfies readonly { name: string; about: FakeAnswer; unanswered: RegExp }[]) {
  test(`incident detector: where what is asked about a transition ${name}, it is told all the same`, async () => {
    const mesh = detector(bad([CART, 5, 105]), { about: () => about })
    const seen = await mesh.polls(14)
    assert.deepEqual(transitions(mesh), [['opened', 2, 55]])
    const [packet] = mesh.history().incidents[0]?.transitions ?? []
    assert.deepEqual(
      packet?.hints.map((hint) => hint.split(' (')[0]),
      ["not answered: the monitors' values", "not answered: Istio's own metrics"],
    )
    for (const hint of packet.hints) assert.match(hint, unanswered)
    assert.equal(packet.suspect.kind, 'none')
    assert.equal(packet.pairs[0]?.accumulator, 11)
    assert.equal(seen.at(-1)?.['lab7_incident_severity'], 2)
  })
}

test('incident detector: a Prometheus that hangs holds a transition up for no longer than a poll may take', async () => {
  const mesh = detector(bad([CART, 5, 105]), { about: () => ({ never: true }) })
  await mesh.polls(11)
  await mesh.runtime.clock.advance(INTERVAL_MS)
  const polled = mesh.poll()
  await mesh.runtime.clock.advance(0) // until it asks about the transition
  // Half of the poll's 4 s for each of the two.
  await mesh.runtime.clock.advance(2_000)
  assert.deepEqual(transitions(mesh), [])
  await mesh.runtime.clock.advance(2_000)
  assert.equal((await polled).outcome, 'ok')
  assert.deepEqual(transitions(mesh), [['opened', 2, 55]])
  assert.match(mesh.history().incidents[0]?.transitions[0]?.hints.join() ?? '', /timeout.*timeout/)
})

test('incident detector: a transition that is being asked about when the process is stopped is not lost', async () => {
  const mesh = detector(bad([CART, 5, 105]), { about: () => ({ never: true }) })
  await mesh.polls(11)
  await mesh.runtime.clock.advance(INTERVAL_MS)
  const polled = mesh.poll()
  await mesh.runtime.clock.advance(0)
  mesh.runtime.stop()
  await polled
  assert.deepEqual(transitions(mesh), [['opened', 2, 55]])
})

for (const { name, startSeconds, outcomes } of [
  { name: 'in the middle of it', startSeconds: 90, outcomes: [['open', 1]] },
  { name: 'after it', startSeconds: 400, outcomes: [['resolved', 2]] },
  { name: 'long after it', startSeconds: 2_000, outcomes: [] },
] as const) {
  test(`incident detector: a restart ${name} knows of an incident what the warm-up holds, and tells nobody again`, async () => {
    const mesh = detector(bad([CART, 5, 105]), { startSeconds })
    await mesh.polls(1)
    assert.deepEqual(
      mesh.history().incidents.map(({ outcome, transitions: told }) => [outcome, told.length]),
      outcomes,
    )
    assert.deepEqual(packets(mesh), [])
  })
}

test('incident detector: what was under way before all that is known of began is not told as something new', async () => {
  // Hot since before the first window, over within it: from cold it looks as if it opened later than it did.
  const mesh = detector(bad([CART, -1_000, 30]), { startSeconds: 100 })
  await mesh.polls(1)
  assert.equal(mesh.runtime.logged[0]?.['windowSeconds'], 900)
  assert.deepEqual(mesh.history(), { incidents: [] })
})

test('incident detector: a start looks back further while the past still matters', async () => {
  const windows = (mesh: Detector): readonly string[] =>
    mesh.runtime.queries.filter(isPoll).map((query) => /\[(\d+)ms:/.exec(query)?.[1] ?? '')
  const quiet = detector(bad())
  await quiet.polls(1)
  assert.deepEqual(windows(quiet), ['900000'])
  // Bad for 50 minutes and still: when it opened is known only with an hour of history.
  const hot = detector(bad([CART, -3_000, 900]))
  await hot.polls(1)
  assert.deepEqual(windows(hot), ['900000', '3600000'])
  assert.equal((await hot.exported())['lab7_incident_started_timestamp_seconds'], T0 - 3_000 + 50)
  // Bad for longer than any window: it takes what it has, and says that it is not certain.
  const forever = detector(bad([CART, -200_000, 900]))
  await forever.polls(1)
  assert.deepEqual(windows(forever), ['900000', '3600000', '21600000', '86400000'])
  assert.equal(forever.runtime.logged[0]?.['certain'], false)
  assert.equal((await forever.exported())['lab7_incident_severity'], 2)
})

test('incident detector: while Prometheus is out nothing cools, and afterwards it catches up', async () => {
  const history = bad([CART, 5, 205])
  const [steady, outage] = [detector(history), detector(history)]
  await steady.polls(61)
  await outage.polls(21)
  const during = await outage.exported()
  assert.equal(during['lab7_incident_severity'], 2)
  outage.outage(true)
  for (const exported of await outage.polls(30)) assert.deepEqual(exported, during)
  outage.outage(false)
  await outage.polls(10)
  assert.deepEqual(await outage.exported(), await steady.exported())
  assert.deepEqual(transitions(outage), transitions(steady))
  assert.deepEqual(transitions(outage), [
    ['opened', 2, 55],
    ['resolved', null, 240],
  ])
})

test('incident detector: an outage longer than a day asks for no more than a day', async () => {
  const mesh = detector(bad())
  await mesh.polls(1)
  await mesh.runtime.clock.advance(3 * 86_400_000)
  await mesh.poll()
  assert.match(mesh.runtime.queries.at(-1) ?? '', /\[86415000ms:5000ms\]/)
})

test('incident detector: an incident that nothing more is heard of expires, and does not resolve', async () => {
  const mesh = detector(({ source }, at) =>
    source === CART.source ? (at >= T0 + 105 ? null : at >= T0 + 5 ? 1 : 0) : 0,
  )
  const seen = await mesh.polls(150)
  assert.deepEqual(transitions(mesh), [
    ['opened', 2, 55],
    // Last heard at 100 s, and 600 s later it is forgotten.
    ['expired', null, 700],
  ])
  assert.deepEqual(counted(seen.at(-1)!), counted(COLD))
  const silent = mesh.runtime.logged.find(({ timestampSeconds }) => timestampSeconds === T0 + 300)
  assert.deepEqual(
    [silent?.['unknown'], silent?.['msg']],
    [{ 'frontend -> cart': 'no_data' }, 'Incident detected! Severity: Sev 2'],
  )
})

test('incident detector: low traffic is told from silence, and with nothing known of any pair the poll is empty', async () => {
  const mesh = detector(({ source }) => (source === CART.source ? 'low_traffic' : null))
  assert.deepEqual(await mesh.poll(), {
    outcome: 'empty',
    detail: 'nothing is known of any pair: frontend -> cart: low_traffic, checkout -> payment: no_data',
  })
  assert.deepEqual(await mesh.exported(), COLD)
})

test('incident detector: an answer without a single time is empty and no evidence of calm', async () => {
  const runtime = fakeRuntime([matrixAnswer([])])
  const registry = new Registry()
  const { poll } = createIncidentDetector(CONFIG, runtime, registry)
  assert.equal((await poll()).outcome, 'empty')
  const exported = samplesNamed(await registry.metrics(), 'lab7_incident_')
  assert.deepEqual(exported, {})
})

test('incident detector: an answer that is no matrix is an outcome and not a crash', async () => {
  const runtime = fakeRuntime([{ status: 200, body: '<html>' }, JSON.stringify({ status: 'success', data: [] })])
  const { poll } = createIncidentDetector(CONFIG, runtime, new Registry())
  assert.equal((await poll()).outcome, 'bad_json')
  assert.equal((await poll()).outcome, 'bad_shape')
})

test('incident detector: a late poll misses no slot', async () => {
  const history = bad([CART, 5, 60])
  const mesh = detector(history)
  await mesh.polls(1)
  await mesh.runtime.clock.advance(57_000)
  await mesh.poll()
  assert.equal((await mesh.exported())['lab7_incident_severity'], 2)
  assert.deepEqual(transitions(mesh), [['opened', 2, 55]])
})

test('incident detector: Prometheus accepts the exposition', { skip: noPromtool() }, async () => {
  const mesh = detector(bad([CART, 5, 105]))
  await mesh.polls(15)
  assertPromtoolAccepts(await mesh.text())
})
