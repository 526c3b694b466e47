import assert from 'node:assert/strict'
import test from 'node:test'

import { Registry } from 'prom-client'

import { RESOLVED_FOR_SECONDS } from '../src/core/alert.js'
import type { IncidentHistoryJson } from '../src/core/incident-history.js'
import { type MeshRules } from '../src/core/mesh-incident.js'
import { MESH_INCIDENT_GAUGES } from '../src/core/metric-names.js'
import type { Pair } from '../src/core/pair.js'
import type { FoldedMesh } from '../src/io/alertmanager.js'
import { createMeshIncidentDetector, type MeshIncidentConfig } from '../src/io/mesh-incident-detector.js'
import type { PollResult } from '../src/io/serve-daemon.js'
import type { MeshIncidentView } from '../src/page/mesh-incident-page.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

/** The manual clock begins here; a multiple of the poll interval. */
const T0 = 1_700_000_000
const INTERVAL_MS = 5_000

const RULES: MeshRules = {
  accumulatorThreshold: 5,
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const CONFIG: Omit<MeshIncidentConfig, 'notifier'> = {
  rules: RULES,
  selector: '',
  prometheusUrl: 'http://prometheus:9090',
  pollIntervalMs: INTERVAL_MS,
  staleAfterSeconds: 60,
  istio: { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: { text: '1m', seconds: 60 } },
}

/** What a monitor exported of an edge at a time, in seconds after T0: an anomaly count, a verdict without one, or nothing. */
type History = (edge: string, seconds: number) => number | 'low_traffic' | null

function pairOf(edge: string): Pair {
  const [source = '', destination = ''] = edge.split('>')
  return { source, destination }
}

/** The values of a label that a query names; null when it names none. */
function namedIn(query: string, label: string): ReadonlySet<string> | null {
  const [, pattern] = new RegExp(`[,{]${label}=~"((?:[^"\\\\]|\\\\.)*)"`, 's').exec(query) ?? []
  if (pattern === undefined) return null
  const regex = pattern.replaceAll('\\n', '\n').replaceAll('\\"', '"').replaceAll('\\\\', '\\')
  return new Set(regex.split('|').map((name) => name.replace(/\\(.)/gs, '$1')))
}

/** A Prometheus that holds what the monitors of these edges exported, asked with the detector's subqueries. */
function historyAnswer(
  query: string,
  options: {
    readonly edges: readonly string[]
    readonly nowMs: number
    readonly history: History
    readonly monitors: number
  },
): string {
  const { edges, nowMs, history, monitors } = options
  const [, range = NaN, step = NaN, offset, at] =
    /\[(\d+)ms:(\d+)ms\] (?:offset (\d+)ms|@ ([\d.]+))$/.exec(query)?.map(Number) ?? []
  const lastMs = offset === undefined || Number.isNaN(offset) ? 1000 * (at ?? NaN) : nowMs - offset
  assert.ok(lastMs <= nowMs - 1000, 'the newest second is not settled')
  const times: number[] = []
  for (let ms = Math.ceil((lastMs - range) / step) * step; ms <= lastMs; ms += step) times.push(ms / 1000)
  assert.ok(times.length <= 63, `${times.length} steps in one query`)
  const anomaliesOfAll = query.includes('lab7_anomaly_count > 0')
  // As Prometheus does: `or` drops what has the labels of something on its left, whatever its name.
  const shadows = query.startsWith('(lab7_anomaly_count > 0')
  const [sources, destinations] = [namedIn(query, 'source'), namedIn(query, 'destination')]
  const all = query.includes('{__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds"}')
  const exported = edges.flatMap((edge) => {
    const { source, destination } = pairOf(edge)
    const named = all || (sources?.has(source) === true && destinations?.has(destination) === true)
    if (!named && !anomaliesOfAll) return []
    const said = times.flatMap((time) => {
      const value = history(edge, time - T0)
      return value === null ? [] : [{ time, value }]
    })
    const counts = said.flatMap(({ time, value }) =>
      typeof value === 'number' && (named || value > 0) ? [[time, String(value)] as const] : [],
    )
    const labels = { source, destination, instance: 'shard:8080', job: 'meshfever' }
    return [
      { metric: { __name__: 'lab7_anomaly_count', ...labels }, values: counts },
      ...(named
        ? [
            {
              metric: { __name__: 'lab7_sample_timestamp_seconds', ...labels },
              values: counts.flatMap(([time, count]) =>
                shadows && count !== '0' ? [] : [[time, String(time - 2)] as const],
              ),
            },
            ...['ok', 'anomalous', 'low_traffic'].map((verdict) => ({
              metric: { __name__: 'lab7_verdict', ...labels, verdict },
              values: said.flatMap(({ time, value }) =>
                verdict === (value === 0 ? 'ok' : value === 'low_traffic' ? value : 'anomalous')
                  ? [[time, '1'] as const]
                  : [],
              ),
            })),
          ]
        : []),
    ].filter(({ values }) => values.length > 0)
  })
  const known = times.map((time) => [time, String(monitors)] as const)
  return matrixAnswer([
    { metric: { series: 'poll' }, values: times.map((time) => [time, '1']) },
    ...(anomaliesOfAll && monitors > 0 ? [{ metric: { series: 'monitors' }, values: known }] : []),
    ...exported,
  ])
}

type Exported = Readonly<Record<string, number>>

interface Detector {
  readonly runtime: FakeRuntime
  readonly poll: () => Promise<PollResult>
  /** Polls once in each slot, `count` times, and returns what was exported after each. */
  readonly polls: (count: number) => Promise<readonly Exported[]>
  /** The same, without looking. */
  readonly run: (count: number) => Promise<void>
  readonly exported: () => Promise<Exported>
  readonly text: () => Promise<string>
  /** From now on, or no longer, Prometheus answers 503. */
  readonly outage: (on: boolean) => void
  /** The same after so many more queries. */
  readonly outageAfter: (queries: number) => void
  readonly history: () => IncidentHistoryJson
  readonly view: () => MeshIncidentView
  /** What the notifier was given. */
  readonly folded: readonly FoldedMesh[]
}

/** Whether a query is one of those of every poll, and not one about a transition. */
const isPoll = (query: string): boolean => query.includes('"poll"')

/** What a transition is told: every asked pair's own side is slow, too. */
function evidenceAnswer(query: string): string {
  const [sources = ''] = /source_app=~"([^"]*)"/.exec(query)?.slice(1) ?? []
  if (sources === '') return vectorAnswer([])
  return vectorAnswer(
    sources
      .split('|')
      .filter((name) => name.startsWith('caller'))
      .flatMap((source_app) =>
        ['source', 'destination'].flatMap((reporter) => [
          { metric: { series: 'before_ms', reporter, source_app, destination_app: 'cart' }, value: '10' },
          { metric: { series: 'now_ms', reporter, source_app, destination_app: 'cart' }, value: '210' },
        ]),
      ),
  )
}

/** @param startSeconds - when the daemon starts, after T0 */
function detector(
  edges: readonly string[],
  history: History,
  {
    startSeconds = 0,
    rules = RULES,
    monitors = 3,
    about = evidenceAnswer,
    expected = null,
  }: {
    startSeconds?: number
    rules?: MeshRules
    monitors?: number
    about?: (query: string) => FakeAnswer
    expected?: string | null
  } = {},
): Detector {
  let down = false
  let lastQuery = Infinity
  const folded: FoldedMesh[] = []
  const runtime: FakeRuntime = fakeRuntime((query): FakeAnswer => {
    if (down || runtime.queries.length > lastQuery) return { status: 503, body: 'Service Unavailable' }
    if (!isPoll(query)) return about(query)
    // A little into the slot, as a daemon that started at any moment is.
    const nowMs = runtime.clock.nowMs() + startSeconds * 1000 + 2_300
    return historyAnswer(query, { edges, nowMs, history, monitors })
  })
  const registry = new Registry()
  const notifier = {
    update: (poll: FoldedMesh) => void folded.push(poll),
    expectedAt: () => expected,
    idle: () => Promise.resolve(),
  }
  const made = createMeshIncidentDetector({ ...CONFIG, rules, notifier }, runtime, registry)
  const text = async (): Promise<string> => `${await registry.metrics()}${made.rendered().join('')}`
  const exported = async (): Promise<Exported> => samplesNamed(await text(), 'lab7_')
  const run = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      if (runtime.queries.length > 0) await runtime.clock.advance(INTERVAL_MS)
      await made.poll()
    }
  }
  return {
    runtime,
    poll: made.poll,
    exported,
    text,
    history: made.history,
    view: made.view,
    folded,
    outage: (on) => {
      down = on
      lastQuery = Infinity
    },
    outageAfter: (queries) => (lastQuery = runtime.queries.length + queries),
    run,
    polls: async (count) => {
      const seen: Exported[] = []
      for (let i = 0; i < count; i++) {
        await run(1)
        seen.push(await exported())
      }
      return seen
    },
  }
}

type Span = readonly [edges: readonly string[], from: number, to: number]

/** Seconds after T0 in [from, to) are anomalous for the edges. */
function bad(...spans: readonly Span[]): History {
  return (edge, seconds) =>
    spans.some(([edges, from, to]) => edges.includes(edge) && seconds >= from && seconds < to) ? 1 : 0
}

function lines({ runtime }: Detector, msg: string): readonly Readonly<Record<string, unknown>>[] {
  return runtime.logged.filter((line) => line['msg'] === msg)
}

const TRANSITION = 'incident transition'

function transitions(mesh: Detector): readonly unknown[] {
  return lines(mesh, TRANSITION).map(({ transition, severity, timestampSeconds, incident, evidence }) => {
    const { pairs } = evidence as { readonly pairs: readonly Pair[] }
    assert.match(String(incident), /^\d{8}T\d{6}Z-[0-9a-f]{8}$/)
    return [transition, severity, Number(timestampSeconds) - T0, pairs.length]
  })
}

const packets = (mesh: Detector): readonly string[] =>
  lines(mesh, TRANSITION).map(({ evidence }) => JSON.stringify(evidence))

const CALLERS = Array.from({ length: 30 }, (_, i) => `caller-${String(i).padStart(2, '0')}>cart`)
/** Edges that are never bad. */
const CALM = Array.from({ length: 40 }, (_, i) => `calm-${i}>other-${i % 7}`)
const EDGES = [...CALLERS, 'frontend>caller-00', 'x>y', 'y>z', ...CALM]

const COLD: Exported = {
  lab7_incident_temperature: 0,
  lab7_incident_severity: 0,
  lab7_incident_sev1: 0,
  lab7_incident_sev2: 0,
  lab7_incident_open: 0,
  lab7_incident_warm_edges: 0,
  lab7_incident_monitors: 3,
  'lab7_incidents_total{severity="1"}': 0,
  'lab7_incidents_total{severity="2"}': 0,
}

test('mesh incident detector: before the first answer nothing is exported but counters at 0', async () => {
  const mesh = detector(EDGES, () => 0)
  const counters = { 'lab7_incidents_total{severity="1"}': 0, 'lab7_incidents_total{severity="2"}': 0 }
  assert.deepEqual(await mesh.exported(), counters)
  mesh.outage(true)
  assert.equal((await mesh.poll()).outcome, 'http_5xx')
  assert.deepEqual(await mesh.exported(), counters)
})

test('mesh incident detector: a quiet mesh is cold, says so once a poll, and costs one query', async () => {
  const quiet = detector(EDGES, () => 0)
  const [first, second] = await quiet.polls(2)
  assert.deepEqual([first, second], [COLD, COLD])
  assert.deepEqual(
    quiet.runtime.logged.map(({ msg }) => msg),
    ['warmed up from history', 'No incident detected', 'No incident detected'],
  )
  assert.equal(
    quiet.runtime.queries.at(-1),
    '(lab7_anomaly_count > 0 or label_replace(count(meshfever_build_info{command="monitor"}), "series", "monitors", "", "")' +
      ' or label_replace(vector(time()), "series", "poll", "", ""))[10000ms:5000ms] offset 1000ms',
  )
})

test('mesh incident detector: one query a poll, and a second one in the poll in which an edge becomes anomalous', async () => {
  const mesh = detector(EDGES, bad([['x>y'], 10, 60]))
  await mesh.polls(2)
  const before = mesh.runtime.queries.length
  await mesh.polls(5)
  const asked = mesh.runtime.queries.slice(before)
  assert.deepEqual(
    asked.map((query) => [query.includes('anomaly_count > 0'), query.includes('source=~"x"')]),
    [
      [true, false],
      [false, true],
      [true, true],
      [true, true],
      [true, true],
      [true, true],
    ],
  )
})

test('mesh incident detector: one broken dependency is one incident, from its first anomaly to its end', async () => {
  const mesh = detector(EDGES, bad([CALLERS, 5, 105]))
  const seen = await mesh.polls(36)
  assert.deepEqual(transitions(mesh), [
    ['opened', 1, 30, 20],
    ['de-escalated', 2, 140, 20],
    ['resolved', null, 150, 20],
  ])
  const exported = seen[6]!
  assert.equal(exported['lab7_incident_temperature'], 180)
  assert.equal(exported['lab7_incident_severity'], 1)
  assert.equal(exported['lab7_incident_sev1'], 1)
  assert.equal(exported['lab7_incident_open'], 1)
  assert.equal(exported['lab7_incident_warm_edges'], 30)
  assert.equal(exported['lab7_incident_started_timestamp_seconds'], T0 + 30)
  assert.equal(exported['lab7_incident_accumulator{source="caller-07",destination="cart"}'], 6)
  assert.deepEqual(seen.at(-1), {
    ...COLD,
    'lab7_incidents_total{severity="1"}': 1,
    'lab7_incidents_total{severity="2"}': 0,
  })
})

test('mesh incident detector: two faults that share no service are two incidents, the gauges tell the worst and the sum', async () => {
  const mesh = detector(EDGES, bad([CALLERS, 5, 400], [['x>y', 'y>z'], 50, 400]))
  const seen = await mesh.polls(30)
  assert.deepEqual(transitions(mesh), [
    ['opened', 1, 30, 20],
    ['opened', 1, 75, 2],
  ])
  const exported = seen.at(-1)!
  assert.equal(exported['lab7_incident_open'], 2)
  assert.equal(exported['lab7_incident_started_timestamp_seconds'], T0 + 30)
  const temperatures = Object.entries(exported).filter(([name]) =>
    name.startsWith('lab7_incident_component_temperature'),
  )
  assert.deepEqual(temperatures.map(([, value]) => value).sort(), [40, 600])
  assert.equal(exported['lab7_incident_temperature'], 640)
  const line = mesh.runtime.logged.at(-1)
  assert.equal(line?.['msg'], 'Incident detected! Severity: Sev 1')
  const [worst, other] = line['incidents'] as readonly Readonly<Record<string, unknown>>[]
  assert.deepEqual([worst?.['began'], worst?.['pairs'], worst?.['hot']], ['caller-00 -> cart', 30, 30])
  assert.deepEqual([other?.['began'], other?.['pairs'], other?.['temperature']], ['x -> y', 2, 40])
})

test('mesh incident detector: the suspect is named, and of thirty pairs ten are asked about', async () => {
  const mesh = detector(EDGES, bad([[...CALLERS, 'frontend>caller-00'], 5, 400]))
  await mesh.polls(8)
  const [line] = lines(mesh, TRANSITION)
  const evidence = line?.['evidence'] as {
    suspect: { kind: string; name: string; because: string }
    pairsLeftOut: number
  }
  assert.deepEqual([evidence.suspect.kind, evidence.suspect.name], ['service', 'cart'])
  assert.match(evidence.suspect.because, /share it as their destination; frontend -> caller-00 waits for it/)
  assert.equal(evidence.pairsLeftOut, 11)
  const about = mesh.runtime.queries.filter((query) => !isPoll(query))
  assert.equal(about.length, 2)
  assert.equal(
    /source_app=~"([^"]*)"/.exec(about[1] ?? '')?.[1]?.split('|').length,
    11,
    'ten callers and what they call',
  )
  assert.equal(mesh.view().now?.incidents[0]?.suspect?.kind, 'service')
})

const counted = (exported: Exported): Exported =>
  Object.fromEntries(Object.entries(exported).filter(([series]) => !series.startsWith('lab7_incidents_total')))

const WAVES: History = (edge, seconds) => {
  // Every edge has its own short anomalies, none of which is an incident.
  const i = EDGES.indexOf(edge)
  return (seconds / 5 + i * 7 + 43_000) % 43 < 3 ? 1 : 0
}

for (const { name, history, windowSeconds } of [
  { name: 'in quiet', history: bad(), windowSeconds: 900 },
  { name: 'in the noise of stray anomalies', history: WAVES, windowSeconds: 900 },
  { name: 'in a Sev 2', history: bad([['x>y'], 450, 900]), windowSeconds: 900 },
  {
    name: 'in a Sev 1 of many edges',
    history: bad([CALLERS, 450, 900], [['frontend>caller-00'], 480, 700]),
    windowSeconds: 900,
  },
  { name: 'in two incidents', history: bad([CALLERS, 450, 900], [['x>y'], 480, 700]), windowSeconds: 900 },
  { name: 'in an incident that is cooling', history: bad([CALLERS, 450, 588]), windowSeconds: 900 },
  {
    name: 'in one that another became part of',
    history: bad([['x>y'], 300, 900], [CALLERS, 400, 900], [['frontend>caller-00'], 420, 900]),
    windowSeconds: 900,
  },
  {
    name: 'in an incident of which one piece is left',
    history: bad([['x>y'], 300, 500], [['y>z'], 350, 900]),
    windowSeconds: 900,
  },
  { name: 'in an incident of more than the first window', history: bad([CALLERS, -1_500, 900]), windowSeconds: 3_600 },
  {
    name: 'in an incident that lives on in edges which were not there when it began',
    history: bad([['x>y'], -2_000, -900], [['y>z'], -1_100, 900]),
    windowSeconds: 3_600,
  },
  {
    name: 'in an incident of which one shard is silent',
    history: ((edge, at) =>
      CALLERS.includes(edge) && at >= 200 ? (CALLERS.indexOf(edge) < 10 && at >= 300 ? null : 1) : 0) satisfies History,
    windowSeconds: 900,
  },
  {
    name: 'in an incident about which there is silence',
    history: ((edge, at) => (at >= 550 ? null : CALLERS.includes(edge) && at >= 400 ? 1 : 0)) satisfies History,
    windowSeconds: 900,
  },
  {
    name: 'after an incident that silence ended',
    history: ((edge, at) => (at >= -200 ? null : CALLERS.includes(edge) && at >= -400 ? 1 : 0)) satisfies History,
    windowSeconds: 900,
  },
]) {
  test(`mesh incident detector: a restart ${name} is no restart`, async () => {
    const restartSeconds = 600
    const continuous = detector(EDGES, history, { startSeconds: -2_600 })
    await continuous.run(1 + (restartSeconds + 2_600) / 5)
    const restarted = detector(EDGES, history, { startSeconds: restartSeconds })
    await restarted.polls(1)
    assert.deepEqual(counted(await restarted.exported()), counted(await continuous.exported()))
    const before = [packets(continuous).length, packets(restarted).length] as const
    assert.equal(before[1], 0, 'what happened before the start is not announced again')
    assert.equal(restarted.runtime.logged[0]?.['certain'], true)
    assert.equal(restarted.runtime.logged[0]['windowSeconds'], windowSeconds)
    for (let i = 0; i < 70; i++) {
      const [expected] = await continuous.polls(1)
      const [actual] = await restarted.polls(1)
      assert.deepEqual(counted(actual!), counted(expected!), `poll ${i} after the restart`)
      assert.deepEqual(restarted.folded.at(-1), continuous.folded.at(-1), `poll ${i} after the restart`)
    }
    assert.deepEqual(packets(restarted), packets(continuous).slice(before[0]))
  })
}

test('mesh incident detector: one that began before a day ago is taken as it is found, and said to be uncertain', async () => {
  const mesh = detector(['x>y', 'c>d'], bad([['x>y'], -200_000, 900]))
  await mesh.polls(1)
  const [first] = mesh.runtime.logged
  assert.deepEqual([first?.['certain'], first?.['windowSeconds'], first?.['openIncidents']], [false, 86_400, 1])
  assert.equal((await mesh.exported())['lab7_incident_severity'], 2)
})

test('mesh incident detector: where silence is borne for long, a start looks back for longer than that', async () => {
  const rules = { ...RULES, noDataTimeoutSeconds: 2_000 }
  const history: History = (edge, at) => (at >= -1_200 ? null : CALLERS.includes(edge) && at >= -1_400 ? 1 : 0)
  const mesh = detector(EDGES, history, { rules })
  await mesh.polls(1)
  assert.equal(mesh.runtime.logged[0]?.['windowSeconds'], 3_600)
  assert.equal((await mesh.exported())['lab7_incident_temperature'], 600)
})

test('mesh incident detector: a start in the middle knows of an incident what the warm-up holds, and sends what is open', async () => {
  const mesh = detector(EDGES, bad([CALLERS, 5, 900], [['x>y', 'y>z'], 20, 60]), { startSeconds: 150 })
  await mesh.polls(1)
  assert.deepEqual(
    mesh.history().incidents.map(({ outcome, severity, transitions: told }) => [outcome, severity, told.length]),
    [
      ['resolved', 1, 3],
      ['open', 1, 1],
    ],
  )
  // Every poll is folded, the last one is sent, with what fires and what has just ended.
  assert.deepEqual([mesh.folded.length, mesh.folded.filter(({ live }) => live).length], [181, 1])
  assert.equal(mesh.folded.at(-1)?.live, true)
  assert.deepEqual(
    mesh.folded.flatMap(({ incidents, timestampSeconds }) =>
      incidents.flatMap(({ name, state }) => (state.open === null ? [[name, timestampSeconds - T0]] : [])),
    ),
    [['x -> y', 70]],
  )
  assert.ok(RESOLVED_FOR_SECONDS > 150 - 70)
})

test('mesh incident detector: replicas that started at different times tell the same packets, byte for byte', async () => {
  const history = bad(
    [CALLERS, 5, 105],
    [['x>y', 'y>z'], 80, 130],
    [['frontend>caller-00'], 90, 300],
    [CALLERS, 400, 520],
  )
  const [early, late] = [-700, 57].map((startSeconds) => detector(EDGES, history, { startSeconds }))
  assert.ok(early && late)
  await early.run(1 + (700 + 57) / 5)
  const before = packets(early).length
  assert.equal(before, 1)
  await Promise.all([early.run(130), late.run(131)])
  assert.ok(packets(late).length >= 5)
  assert.deepEqual(packets(late), packets(early).slice(before))
  assert.deepEqual(late.history(), early.history())
})

test('mesh incident detector: while Prometheus is out nothing cools, and afterwards it catches up, in pieces', async () => {
  const history = bad([CALLERS, 5, 205], [['x>y'], 100, 1_700], [['y>z'], 900, 1_500])
  const [steady, outage] = [detector(EDGES, history), detector(EDGES, history)]
  await steady.run(371)
  await outage.run(21)
  const during = await outage.exported()
  assert.equal(during['lab7_incident_severity'], 1)
  outage.outage(true)
  await outage.run(340)
  assert.deepEqual(await outage.exported(), during)
  outage.outage(false)
  await outage.run(10)
  assert.deepEqual(await outage.exported(), await steady.exported())
  assert.deepEqual(transitions(outage), transitions(steady))
  assert.deepEqual(
    packets(outage).map((text) => (JSON.parse(text) as { id: string }).id),
    packets(steady).map((text) => (JSON.parse(text) as { id: string }).id),
  )
  // What was caught up on is folded and not sent: only its last poll is news.
  const caughtUp = outage.folded.filter(
    ({ timestampSeconds }) => timestampSeconds > T0 + 100 && timestampSeconds <= T0 + 1_805,
  )
  assert.deepEqual([caughtUp.length, caughtUp.filter(({ live }) => live).length, caughtUp.at(-1)?.live], [341, 1, true])
})

test('mesh incident detector: where a piece of what is caught up on fails, the rest is caught up on later', async () => {
  const history = bad([CALLERS, 5, 205])
  const mesh = detector(EDGES, history)
  await mesh.polls(10)
  mesh.outage(true)
  await mesh.run(200)
  mesh.outage(false)
  await mesh.runtime.clock.advance(INTERVAL_MS)
  // After the newest moment, the first piece of the past and who was anomalous in it, Prometheus is gone again.
  mesh.outageAfter(2)
  assert.equal((await mesh.poll()).outcome, 'http_5xx')
  const { timestampSeconds } = mesh.folded.at(-1)!
  assert.equal(timestampSeconds, T0 + 45 + 300)
  mesh.outage(false)
  await mesh.polls(1)
  assert.deepEqual(
    transitions(mesh).map((told) => (told as unknown[]).slice(0, 3)),
    [
      ['opened', 1, 30],
      ['de-escalated', 2, 240],
      ['resolved', null, 250],
    ],
  )
})

test('mesh incident detector: a shard that vanishes neither cools nor closes, and the log says who is silent', async () => {
  const mesh = detector(EDGES, (edge, at) => (!CALLERS.includes(edge) ? 0 : at >= 100 ? null : at >= 5 ? 1 : 0), {
    monitors: 2,
  })
  const seen = await mesh.polls(120)
  assert.deepEqual(transitions(mesh).length, 1)
  assert.equal(seen.at(-1)?.['lab7_incident_temperature'], 30 * 19)
  assert.equal(seen.at(-1)?.['lab7_incident_monitors'], 2)
  const silent = mesh.runtime.logged.at(-1)
  assert.equal(silent?.['msg'], 'Incident detected! Severity: Sev 1')
  assert.equal(Object.keys(silent['unknown'] as object).length, 20)
  assert.equal((silent['unknown'] as Record<string, string>)['caller-03 -> cart'], 'no_data')
  // Last heard at 95 s; 600 s later it is forgotten.
  await mesh.polls(25)
  assert.deepEqual(transitions(mesh).at(-1), ['expired', null, 695, 20])
})

test('mesh incident detector: without a monitor the poll is empty, and no evidence of calm', async () => {
  const nobody = detector(EDGES, () => null, { monitors: 0 })
  assert.deepEqual(await nobody.poll(), { outcome: 'empty', detail: 'Prometheus knows of no monitor' })
  const quiet = detector(EDGES, () => 0)
  assert.deepEqual(await quiet.poll(), { outcome: 'ok', detail: '' })
})

for (const { name, answer, outcome } of [
  { name: 'without a single time is empty', answer: matrixAnswer([]), outcome: 'empty' },
  { name: 'that is no JSON', answer: { status: 200, body: '<html>' }, outcome: 'bad_json' },
  { name: 'of another shape', answer: JSON.stringify({ status: 'success', data: [] }), outcome: 'bad_shape' },
] satisfies readonly { name: string; answer: FakeAnswer; outcome: string }[]) {
  test(`mesh incident detector: an answer ${name} is an outcome and not a crash`, async () => {
    const runtime = fakeRuntime([answer])
    const notifier = { update: () => undefined, expectedAt: () => null, idle: () => Promise.resolve() }
    const registry = new Registry()
    const { poll } = createMeshIncidentDetector({ ...CONFIG, notifier }, runtime, registry)
    assert.equal((await poll()).outcome, outcome)
    assert.deepEqual(samplesNamed(await registry.metrics(), 'lab7_incident_'), {})
  })
}

test('mesh incident detector: when the same times come again and again it says so, and holds', async () => {
  const mesh = detector(EDGES, bad([CALLERS, 5, 900]))
  await mesh.polls(12)
  const before = await mesh.exported()
  const frozenMs = mesh.runtime.clock.nowMs()
  mesh.runtime.clock.nowMs = () => frozenMs
  const outcomes: string[] = []
  for (let i = 0; i < 5; i++) {
    await mesh.runtime.clock.advance(INTERVAL_MS)
    outcomes.push((await mesh.poll()).outcome)
  }
  assert.deepEqual(outcomes, ['ok', 'ok', 'ok', 'stale', 'stale'])
  assert.deepEqual(await mesh.exported(), before)
})

test('mesh incident detector: in a maintenance window everything is logged, with the reason why it is expected', async () => {
  const mesh = detector(EDGES, bad([CALLERS, 5, 900]), { expected: 'database upgrade' })
  await mesh.polls(8)
  assert.equal(lines(mesh, TRANSITION)[0]?.['expected'], 'database upgrade')
  assert.equal(mesh.runtime.logged.at(-1)?.['expected'], 'database upgrade')
  assert.equal(mesh.view().now?.expected, 'database upgrade')
})

test('mesh incident detector: thousands of edges that turn bad at once are one transition of bounded size', async () => {
  const edges = Array.from({ length: 2_500 }, (_, i) => `service-${i % 250}>service-${250 + (i % 251)}`)
  const mesh = detector(edges, bad([edges, 5, 900]))
  await mesh.run(9)
  assert.deepEqual(transitions(mesh), [['opened', 1, 30, 20]])
  const [line] = lines(mesh, TRANSITION)
  assert.ok(JSON.stringify(line).length < 40_000, `${JSON.stringify(line).length}`)
  assert.equal(line?.['pairs'], 2_500)
  for (const query of mesh.runtime.queries.filter((text) => !isPoll(text))) assert.ok(query.length < 10_000, query)
  for (const { msg } of mesh.runtime.logged.slice(-3)) assert.equal(msg, 'Incident detected! Severity: Sev 1')
  assert.ok(JSON.stringify(mesh.runtime.logged.at(-1)).length < 4_000)
  const { now } = mesh.view()
  assert.deepEqual([now?.edges.length, now?.edgesLeftOut, now?.incidents.length], [200, 2_300, 1])
  assert.deepEqual([now?.warm, now?.hot, now?.incidents[0]?.map.length], [2_500, 2_500, 30])
  assert.ok(JSON.stringify(mesh.history()).length < 40_000)
  assert.equal(mesh.folded.at(-1)?.incidents.length, 1)
})

test('mesh incident detector: of forty transitions in one poll ten are asked about', async () => {
  const edges = Array.from({ length: 40 }, (_, i) => `a${i}>b${i}`)
  const mesh = detector(edges, bad([edges, 5, 900]))
  await mesh.polls(13)
  assert.equal(transitions(mesh).length, 40)
  assert.equal(mesh.runtime.queries.filter((query) => !isPoll(query)).length, 20)
  const hints = packets(mesh).map((text) => (JSON.parse(text) as { hints: readonly string[] }).hints.join())
  assert.equal(hints.filter((hint) => hint.includes('no time was left')).length, 30)
})

test('mesh incident detector: what there is to show, whole', async () => {
  const history: History = (edge, at) =>
    edge === 'x>y' ? (at >= 5 ? 1 : 0) : edge === 'y>z' && at >= 50 ? (at >= 60 ? 'low_traffic' : 1) : 0
  const mesh = detector(['x>y', 'y>z', 'c>d'], history, { about: () => vectorAnswer([]) })
  assert.equal(mesh.view().now, null)
  await mesh.polls(14)
  const { now, history: past, ...rest } = mesh.view()
  const id = lines(mesh, TRANSITION)[0]?.['incident']
  assert.deepEqual(rest, { kind: 'mesh-incident', rules: RULES })
  assert.deepEqual(now, {
    timestampSeconds: T0 + 65,
    receivedSeconds: T0 + 65,
    temperature: 15,
    monitors: 3,
    expected: null,
    incidents: [
      {
        id,
        severity: 2,
        startedSeconds: T0 + 55,
        first: { source: 'x', destination: 'y' },
        temperature: 13,
        edges: 1,
        hot: 1,
        suspect: {
          kind: 'none',
          because:
            "measured on the caller's side only (unknown before, unknown now; no destination-side measurement of y)",
        },
        map: [{ source: 'x', destination: 'y', accumulator: 13, hot: true }],
      },
    ],
    incidentsLeftOut: 0,
    warm: 2,
    hot: 1,
    edges: [
      {
        source: 'x',
        destination: 'y',
        accumulator: 13,
        hot: true,
        verdict: { kind: 'anomalous', anomalyCount: 1 },
        heardSeconds: T0 + 65,
        incident: id,
      },
      {
        source: 'y',
        destination: 'z',
        accumulator: 2,
        hot: false,
        verdict: { kind: 'unknown', reason: 'low_traffic' },
        heardSeconds: T0 + 55,
        incident: null,
      },
    ],
    edgesLeftOut: 0,
  })
  assert.deepEqual(past.timesSeconds.slice(-3), [T0 + 55, T0 + 60, T0 + 65])
  assert.deepEqual(past.temperatures.slice(-3), [13, 14, 15])
  assert.deepEqual(past.severities.slice(-4), [0, 2, 2, 2])
  assert.deepEqual(past.openIncidents.slice(-4), [0, 1, 1, 1])
  assert.deepEqual(JSON.parse(JSON.stringify(mesh.view())), { ...rest, now, history: past }, 'nothing is lost in JSON')
})

test(
  'mesh incident detector: Prometheus accepts the exposition, hostile names included',
  { skip: noPromtool() },
  async () => {
    const hostile = ['a"b>c\\d', 'e\nf>g,destination:h', 'x>y']
    const mesh = detector(hostile, bad([hostile, 5, 900]))
    await mesh.polls(15)
    const text = await mesh.text()
    assertPromtoolAccepts(text)
    assert.ok(text.includes('lab7_incident_accumulator{source="a\\"b",destination="c\\\\d"} 14\n'))
    assert.ok(text.includes('lab7_incident_accumulator{source="e\\nf",destination="g,destination:h"} 14\n'))
    for (const { name, type, help } of Object.values(MESH_INCIDENT_GAUGES)) {
      assert.ok(text.includes(`# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`), name)
    }
  },
)
