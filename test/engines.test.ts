/*
 * The engines that can be installed, Prometheus and VictoriaMetrics, filled with the same samples and asked by the product's own
 * code. Both are asked at the same pinned moments, unless what is "now" is the question.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { after, before } from 'node:test'

import { Registry } from 'prom-client'
import { parse } from 'yaml'

import { anomalyHistoryQuery, readPolls } from '../src/core/anomaly-history.js'
import { deviationIn, type Watch } from '../src/core/baseline/model.js'
import { StartError } from '../src/core/errors.js'
import { factsQuery, gaugesQuery, readFacts, readGauges } from '../src/core/edge-facts.js'
import type { IncidentRules } from '../src/core/incident.js'
import { meshQuery } from '../src/core/mesh-query.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { latencyAndTraffic, latencyTrafficAndAge } from '../src/core/promql.js'
import { VERDICTS } from '../src/core/score.js'
import type { Series } from '../src/core/series.js'
import { examine } from '../src/io/examination.js'
import { createHttp } from '../src/io/http-client.js'
import { createIncidentDetector } from '../src/io/incident-detector.js'
import { createMeshIncidentDetector } from '../src/io/mesh-incident-detector.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import { createMonitor } from '../src/io/monitor.js'
import { queryInstant, queryInstantMatrix } from '../src/io/prometheus.js'
import { fetchHistory } from '../src/io/range-history.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import {
  type FilledPrometheus,
  type FilledSeries,
  istioHistory,
  startFilledPrometheus,
} from './helpers/filled-prometheus.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'
import { packageRoot } from './helpers/package-root.js'
import {
  findVictoriaMetrics,
  replayRules,
  SETTLED_AFTER_A_SECOND,
  startFilledVictoriaMetrics,
} from './helpers/victoria-metrics.js'

const SCRAPE_SECONDS = 15
/** Samples begin 40 minutes ago and go on for 10: there is a now for as long as the tests run. */
const T = Math.floor(Date.now() / 15_000) * 15
const [FROM, UNTIL] = [T - 2_400, T + 600]
/** Asked at, some of them between scrapes and off every step; long enough ago for VictoriaMetrics's defaults. */
const MOMENTS = [T - 300, T - 293.7, T - 181.25]

const CART: Pair = { source: 'frontend', destination: 'cart' }
const ADS: Pair = { source: 'frontend', destination: 'ads' }
const PAYMENT: Pair = { source: 'checkout', destination: 'payment' }
/** No request in 15 s but one; and a sidecar that died, 50 s before the last moment. */
const QUIET: Pair = { source: 'cron', destination: 'mail' }
const DEAD: Pair = { source: 'batch', destination: 'store' }

const LATENCY_MS: readonly (readonly [Pair, number])[] = [
  [CART, 8],
  [ADS, 40],
  [PAYMENT, 9],
  [QUIET, 8],
  [DEAD, 8],
  // Prometheus's text format and VictoriaMetrics's take these.
  ...HOSTILE_NAMES.filter((name) => !/[\0\u2028]/.test(name)).map((name): [Pair, number] => [
    { source: name, destination: `${name}2` },
    8,
  ]),
]

const LABELS = { sourceLabel: 'source_app', destinationLabel: 'destination_app' }
const ISTIO = { ...LABELS, window: { text: '1m', seconds: 60 } }

/** What sidecars counted: slow swings of latency and traffic, two protocols, a fault and two versions. */
function sidecars(): readonly FilledSeries[] {
  return LATENCY_MS.flatMap(([pair, medianMs], i) => {
    const { source, destination } = pair
    const requestsPerSecond = (time: number): number => (pair === QUIET ? 0.05 : 20 + i + 4 * Math.sin(time / 400))
    const end = pair === DEAD ? T - 231 : UNTIL
    const times = Array.from({ length: Math.floor((end - FROM) / SCRAPE_SECONDS) }, (_, k) => FROM + k * SCRAPE_SECONDS)
    const histograms = ['source', 'destination'].flatMap((reporter) =>
      istioHistory(
        {
          source_app: source,
          destination_app: destination,
          destination_service: `${destination}.shop.svc.cluster.local`,
          request_protocol: 'http',
          response_code: '200',
          reporter,
        },
        {
          startSeconds: FROM,
          scrapes: times.length,
          scrapeSeconds: SCRAPE_SECONDS,
          latencyMs: (time) => medianMs * (1 + 0.1 * Math.sin(time / 300)),
          requestsPerSecond,
        },
      ),
    )
    const requests = [
      { response_flags: '-', destination_version: 'v1', share: 0.7 },
      { response_flags: 'DI', destination_version: 'v2', share: 0.3 },
    ].map(({ share, ...labels }) => ({
      name: 'istio_requests_total',
      labels: { source_app: source, destination_app: destination, reporter: 'source', ...labels },
      samples: times.map((time): [number, number] => [time, Math.round(share * 20 * (time - FROM))]),
    }))
    return [...histograms, ...requests]
  })
}

/** When two edges were anomalous: for a few minutes, a while ago. */
const [BAD_FROM, BAD_UNTIL] = [T - 700, T - 600]

/** What monitors exported, scraped each 5 s. */
function monitors(): readonly FilledSeries[] {
  const times = Array.from({ length: (UNTIL - FROM) / 5 }, (_, k) => FROM + k * 5)
  const scraped = { instance: '10.0.0.7:8080', job: 'meshfever' }
  return [
    {
      name: 'meshfever_build_info',
      labels: { ...scraped, version: '1', node_version: 'v20', command: 'monitor' },
      samples: times.map((time): [number, number] => [time, 1]),
    },
    ...[CART, ADS, PAYMENT].flatMap((pair) => {
      const bad = (time: number): boolean => pair !== PAYMENT && time >= BAD_FROM && time < BAD_UNTIL
      const gauge = (name: string, labels: Readonly<Record<string, string>>, at: (time: number) => number) => ({
        name: `lab7_${name}`,
        labels: { ...pair, ...scraped, ...labels },
        samples: times.map((time): [number, number] => [time, at(time)]),
      })
      return [
        gauge('anomaly_count', {}, (time) => Number(bad(time))),
        gauge('sample_timestamp_seconds', {}, (time) => time - 1.523),
        gauge('requests_per_second', {}, (time) => 20 + Math.sin(time)),
        ...VERDICTS.map((verdict) =>
          gauge('verdict', { verdict }, (time) => Number(verdict === (bad(time) ? 'anomalous' : 'ok'))),
        ),
        ...['y', 'yhat', 'y_min', 'y_max'].map((name, k) =>
          gauge(name, { quantile: '0.5' }, (time) => 8 + k + (name === 'y' && bad(time) ? 50 : 0)),
        ),
      ]
    }),
  ]
}

const SERIES = [...sidecars(), ...monitors()]

interface Engine extends FilledPrometheus {
  readonly name: string
}

let prometheus: Engine
let victoria: Engine
let engines: readonly Engine[] = []

const RULES_TEXT = readFileSync(join(packageRoot(), 'k8s/prometheus/recording.rules.yaml'), 'utf8')
/** As the file tells people to ask for a whole mesh. */
const RECORDED_QUERY = /--mesh --query '([^']+)'/.exec(RULES_TEXT)?.[1] ?? ''
const RECORDED_SPAN = { startSeconds: T - 345, endSeconds: T - 165 }

interface RecordingRule {
  readonly record: string
  readonly expr: string
  readonly labels?: Readonly<Record<string, string>>
}

const RULES = (parse(RULES_TEXT) as { readonly groups: readonly { readonly rules: readonly RecordingRule[] }[] }).groups
  .map(({ rules }) => rules)
  .flat()
const usedBy = ({ expr }: RecordingRule): RecordingRule | undefined => RULES.find(({ record }) => expr.includes(record))
const RULES_APART = [RULES.filter((rule) => !usedBy(rule)), RULES.filter(usedBy)]

/** What the rules would have recorded in this Prometheus. Whether Prometheus itself evaluates them is the rules' own test. */
async function recordedIn(prometheusUrl: string): Promise<readonly FilledSeries[]> {
  const answers = await Promise.all(
    RULES.map(async (rule) => {
      const { record, expr, labels = {} } = rule
      const used = usedBy(rule)
      const query = used === undefined ? expr : expr.replaceAll(used.record, `(${used.expr})`)
      const answer = await fetchHistory(live(), { prometheusUrl, query, ...RECORDED_SPAN, stepSeconds: 15 })
      assert.equal(answer.kind, 'answer', record)
      return answer.data.result.map(({ labels: own, timesSeconds, values }) => ({
        name: record,
        labels: { ...Object.fromEntries(own), ...labels },
        samples: timesSeconds.map((time, i): [number, number] => [time, values[i] ?? NaN]),
      }))
    }),
  )
  return answers.flat()
}

/** Has vmalert record them: those that others use first, since what was recorded is not found at once. */
async function recordIn(url: string): Promise<void> {
  for (const rules of RULES_APART) {
    await replayRules(url, JSON.stringify({ groups: [{ name: 'rules', interval: '15s', rules }] }), RECORDED_SPAN)
  }
}

const installed = await findVictoriaMetrics({
  ...live(),
  program: { ...live().program, environment: process.env, isRoot: process.getuid?.() === 0 },
}).catch((error: unknown) => (error instanceof StartError ? error : Promise.reject(error as Error)))
const [binary, skip] = installed instanceof StartError ? ['', installed.message] : [installed, false]

before(async () => {
  if (skip !== false) return
  const [raw, filled] = await Promise.all([
    startFilledPrometheus(SERIES),
    startFilledVictoriaMetrics({ binary, series: SERIES, flags: [SETTLED_AFTER_A_SECOND] }),
  ])
  victoria = { name: 'VictoriaMetrics', ...filled }
  const [withRecorded] = await Promise.all([
    recordedIn(raw.url).then((recorded) => startFilledPrometheus([...SERIES, ...recorded])),
    recordIn(victoria.url),
  ])
  await raw.stop()
  prometheus = { name: 'Prometheus', ...withRecorded }
  engines = [prometheus, victoria]
})
after(() => Promise.all(engines.map(({ stop }) => stop())))

/** Asks for real. */
function live(): FakeRuntime {
  return { ...fakeRuntime([]), http: createHttp() }
}

/** The same at a moment of the past. */
function pinned(atSeconds: number): FakeRuntime {
  const runtime = live()
  runtime.http.interceptors.request.use((config) => {
    const form = (config.data ?? config.params) as URLSearchParams
    if (config.url?.endsWith('/api/v1/query') === true && !form.has('time')) form.set('time', String(atSeconds))
    return config
  })
  return runtime
}

function assertNear(found: number | undefined, wanted: number, share: number, what: string): void {
  assert.ok(
    found !== undefined && Math.abs(found - wanted) <= share * Math.abs(wanted),
    `${what}: ${found}, not within ${100 * share} % of ${wanted}`,
  )
}

/**
 * Prometheus extrapolates a rate to the ends of its window; VictoriaMetrics takes the increase since the last sample before
 * the window. With slow swings of traffic and latency they come this close.
 */
const RATE_SHARE = 0.02
const LATENCY_SHARE = 0.01

/** Expects 5 to 12 ms of everyone. */
const WATCH: Watch = {
  judge: ({ latencyMs }) => {
    const expectation = { yhatMs: 8, yMinMs: 5, yMaxMs: 12 }
    return { ...expectation, deviation: deviationIn(expectation, latencyMs), driftRatio: null, beyondTraining: false }
  },
}
const MONITOR = {
  quantiles: [0.5],
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  pollIntervalMs: 5_000,
  maxAgeSeconds: 45,
} as const
const BUILT_IN = meshQuery({ ...LABELS, selector: null, window: '1m', quantiles: [0.5] })

type Exported = Readonly<Record<string, number>>

async function meshAt(
  { url, name }: Engine,
  atSeconds: number,
  { query = BUILT_IN, ownQuery = false }: { readonly query?: string; readonly ownQuery?: boolean } = {},
): Promise<Exported> {
  const { poll, exposition } = createMeshMonitor(
    {
      ...MONITOR,
      ...LABELS,
      prometheusUrl: url,
      query,
      ownQuery,
      baselines: { watchesOf: () => [{ quantile: 0.5, watch: WATCH }], version: () => 1, ready: () => true },
      maxEdges: 1_000,
      edgeGraceSeconds: 0,
      shard: { ordinal: 1, count: 1 },
    },
    pinned(atSeconds),
    new Registry(),
  )
  assert.deepEqual(await poll(), { outcome: 'ok', detail: '' }, `${name} at ${atSeconds}`)
  return samplesNamed(Buffer.concat([...(exposition?.() ?? [])]).toString(), 'lab7_')
}

function verdictsIn(exported: Exported): readonly string[] {
  return Object.keys(exported)
    .filter((series) => series.startsWith('lab7_verdict{') && exported[series] === 1)
    .sort()
}

function assertAlike(found: Exported, wanted: Exported): void {
  assert.deepEqual(verdictsIn(found), verdictsIn(wanted))
  const measured = Object.entries(wanted).filter(([series]) => /^lab7_(y|requests_per_second)\{/.test(series))
  assert.ok(measured.length > 0)
  for (const [series, value] of measured) {
    assertNear(found[series], value, series.startsWith('lab7_y') ? LATENCY_SHARE : RATE_SHARE, series)
  }
}

const verdictOf = ({ source, destination }: Pair, verdict: string): string =>
  `lab7_verdict{source=${JSON.stringify(source)},destination=${JSON.stringify(destination)},verdict="${verdict}"}`

test(
  "engines: a mesh's monitor gives every edge the same verdict, dead, quiet and hostile ones included",
  { skip },
  async () => {
    for (const atSeconds of MOMENTS) {
      const wanted = await meshAt(prometheus, atSeconds)
      const verdicts = verdictsIn(wanted)
      // The dead one is gone from the answer, or stale, by the last moment.
      assert.equal(verdicts.filter((series) => series.includes('batch')).length, 1)
      for (const verdict of [verdictOf(CART, 'ok'), verdictOf(ADS, 'anomalous'), verdictOf(QUIET, 'low_traffic')]) {
        assert.ok(verdicts.includes(verdict), `${verdict} in ${verdicts.join('\n')}`)
      }
      assert.equal(verdicts.length, LATENCY_MS.length)
      assertAlike(await meshAt(victoria, atSeconds), wanted)
    }
  },
)

test("engines: a pair's monitor reads the same from both, quantile by quantile", { skip }, async () => {
  const query = latencyTrafficAndAge({
    ...LABELS,
    pair: CART,
    reporter: 'source',
    window: '1m',
    quantiles: [0.5, 0.95],
  })
  for (const atSeconds of MOMENTS) {
    const [wanted = {}, found = {}] = await Promise.all(
      engines.map(async ({ url }) => {
        const registry = new Registry()
        const watches = [0.5, 0.95].map((quantile) => ({ quantile, watch: WATCH }))
        const config = { ...MONITOR, quantiles: [0.5, 0.95], pair: CART, prometheusUrl: url, query, watches }
        assert.equal((await createMonitor(config, pinned(atSeconds), registry).poll()).outcome, 'ok')
        return samplesNamed(await registry.metrics(), 'lab7_')
      }),
    )
    assert.ok(wanted['lab7_y{source="frontend",destination="cart",quantile="0.95"}'] !== undefined)
    assertAlike(found, wanted)
  }
})

test(
  'engines: what the recording rules recorded gives the verdicts of the built-in query, in both',
  { skip },
  async () => {
    for (const engine of engines) {
      // The rules were evaluated at these moments; between them what they recorded stands still.
      for (const atSeconds of [T - 300, T - 180]) {
        const built = await meshAt(engine, atSeconds)
        const recorded = await meshAt(engine, atSeconds, { query: RECORDED_QUERY, ownQuery: true })
        assert.deepEqual(verdictsIn(recorded), verdictsIn(built), engine.name)
        for (const [series, value] of Object.entries(built).filter(([name]) => /^lab7_(y|requests_p)/.test(name))) {
          assertNear(recorded[series], value, 1e-9, `${engine.name}: ${series}`)
        }
      }
      const between = await meshAt(engine, T - 181.25, { query: RECORDED_QUERY, ownQuery: true })
      assert.ok(verdictsIn(between).includes(verdictOf(ADS, 'anomalous')))
    }
  },
)

const PAIRS = [CART, ADS, PAYMENT]
const DETECTION = { accumulatorThreshold: 5, incidentThreshold: 10, clearThreshold: 5, coolBy: 2, accumulatorMax: 20 }
const INCIDENT: IncidentRules = {
  ...DETECTION,
  pairs: PAIRS.map((pair) => ({ ...pair, accumulatorThreshold: 5 })),
  noDataTimeoutSeconds: 600,
}

test(
  'engines: the polls of an incident daemon are the same, at multiples of its interval whenever it asks',
  { skip },
  async () => {
    const query = anomalyHistoryQuery(PAIRS, { rangeMs: 150_000, stepMs: 5_000 })
    for (const atSeconds of [BAD_UNTIL + 30, BAD_UNTIL + 33.4]) {
      const [wanted, found] = await Promise.all(
        engines.map(async ({ url, name }) => {
          const answer = await queryInstantMatrix(pinned(atSeconds), { prometheusUrl: url, query, deadlineMs: 5_000 })
          assert.equal(answer.kind, 'answer', name)
          return readPolls(answer.data, { pairs: PAIRS, staleAfterSeconds: 20 })
        }),
      )
      assert.ok(wanted !== undefined && found !== undefined)
      assert.ok(wanted.length >= 29 && wanted.some(({ verdicts }) => verdicts[0]?.kind === 'anomalous'))
      const times = new Set(wanted.map(({ timestampSeconds }) => timestampSeconds))
      // VictoriaMetrics has one more: both ends of the range.
      assert.deepEqual(
        found.map(({ timestampSeconds }) => timestampSeconds % 5),
        found.map(() => 0),
      )
      const same = found.filter(({ timestampSeconds }) => times.has(timestampSeconds))
      assert.ok(same.length >= wanted.length - 1 && found.length <= wanted.length + 1)
      // What VictoriaMetrics has for a poll is up to one interval younger: a scrape may lie between, and no more.
      const differing = same.filter(
        (poll) =>
          JSON.stringify(poll.verdicts) !==
          JSON.stringify(wanted.find(({ timestampSeconds }) => timestampSeconds === poll.timestampSeconds)?.verdicts),
      )
      assert.ok(differing.length <= 2, `${differing.length} polls differ`)
    }
  },
)

test(
  'engines: an incident daemon that starts now finds the incident of a while ago, of pairs and of the mesh',
  { skip },
  async () => {
    const notifier = { update: () => undefined, expectedAt: () => null, idle: () => Promise.resolve() }
    const common = { pollIntervalMs: 5_000, staleAfterSeconds: 60, notifier, istio: ISTIO }
    for (const kind of ['pairs', 'mesh'] as const) {
      const [wanted, found] = await Promise.all(
        engines.map(async ({ url, name }) => {
          const rules = { ...DETECTION, noDataTimeoutSeconds: 600 }
          const daemon =
            kind === 'pairs'
              ? createIncidentDetector({ ...common, rules: INCIDENT, prometheusUrl: url }, live(), new Registry())
              : createMeshIncidentDetector(
                  { ...common, rules, selector: '', prometheusUrl: url },
                  live(),
                  new Registry(),
                )
          assert.deepEqual(await daemon.poll(), { outcome: 'ok', detail: '' }, name)
          return daemon.history().incidents
        }),
      )
      assert.ok(wanted !== undefined && found !== undefined)
      assert.deepEqual(
        wanted.map(({ severity, outcome, transitions }) => [severity, outcome, transitions.length]),
        [[1, 'resolved', kind === 'pairs' ? 3 : 3]],
      )
      const told = (incidents: typeof wanted): unknown =>
        incidents.map(({ id, severity, outcome, startedSeconds, transitions }) => [
          id,
          severity,
          outcome,
          startedSeconds,
          transitions.map(({ transition, timestampSeconds, pairs, suspect }) => [
            transition,
            timestampSeconds,
            pairs.map(({ source, destination, latencyMs, accumulator }) => [
              source,
              destination,
              latencyMs,
              accumulator,
            ]),
            suspect.kind,
          ]),
        ])
      assert.deepEqual(told(found), told(wanted))
    }
  },
)

test(
  'engines: a recording has the same times from both, and the same values but for how a rate is taken',
  { skip },
  async () => {
    const query = latencyAndTraffic({ ...LABELS, pair: CART, reporter: 'source', window: '1m', quantiles: [0.5] })
    const range = { startSeconds: T - 1_800, endSeconds: T - 300, stepSeconds: 15 }
    const [wanted, found] = await Promise.all(
      engines.map(async ({ url }) => {
        const answer = await fetchHistory(live(), { prometheusUrl: url, query, ...range })
        assert.equal(answer.kind, 'answer')
        return answer.data.result
      }),
    )
    assert.ok(wanted?.length === 2 && found?.length === 2)
    for (const { labels, timesSeconds, values } of wanted) {
      const same: Series | undefined = found.find((series) => series.labels.get('quantile') === labels.get('quantile'))
      assert.deepEqual(same?.timesSeconds, timesSeconds)
      assert.equal(timesSeconds.length, 101)
      values.forEach((value, i) => {
        assertNear(same.values[i], value, labels.has('quantile') ? LATENCY_SHARE : RATE_SHARE, String(timesSeconds[i]))
      })
    }
  },
)

test('engines: the doctor finds the same facts in both', { skip }, async () => {
  const subject = {
    ...LABELS,
    pair: CART,
    window: { text: '1m', seconds: 60 },
    quantiles: [0.5],
    minRequestsPerSecond: 0.1,
    pollIntervalSeconds: 5,
    pollDeadlineSeconds: 4,
  }
  const [wanted, found] = await Promise.all(
    engines.map(({ url }) => examine(pinned(T - 293), { ...subject, prometheusUrl: url }, { hosts: true })),
  )
  assert.ok(wanted?.clock.kind === 'known' && found?.clock.kind === 'known')
  assert.equal(found.clock.value.prometheusSeconds, wanted.clock.value.prometheusSeconds)
  const sorted = (asked: { readonly kind: string; readonly value?: readonly unknown[] }): readonly string[] =>
    (asked.value ?? assert.fail(asked.kind)).map((one) => JSON.stringify(one)).sort()
  for (const fact of ['presence', 'destinationHosts'] as const) {
    assert.deepEqual(sorted(found[fact]), sorted(wanted[fact]))
  }
  const times = ({ scrapes }: typeof wanted): unknown =>
    scrapes.kind === 'known' ? scrapes.value.map(({ timesSeconds }) => timesSeconds) : scrapes.kind
  assert.deepEqual(times(found), times(wanted))
  assert.ok(wanted.requestsByReporter.kind === 'known' && found.requestsByReporter.kind === 'known')
  for (const [reporter, requests] of wanted.requestsByReporter.value) {
    assertNear(found.requestsByReporter.value.get(reporter), requests, RATE_SHARE, reporter)
  }
  assert.ok(wanted.distribution.kind === 'known' && found.distribution.kind === 'known')
  assert.equal(found.distribution.value.length, wanted.distribution.value.length)
  for (const { upperMs, requests } of wanted.distribution.value) {
    const same = found.distribution.value.find((bucket) => bucket.upperMs === upperMs)
    assertNear(same?.requests, requests, RATE_SHARE, `bucket ${upperMs}`)
  }
  const lost = { ...subject, pair: { source: 'cart', destination: 'frontend' } }
  const told = await Promise.all(
    engines.map(async ({ url }) => {
      const { elsewhere } = await examine(pinned(T - 293), { ...lost, prometheusUrl: url }, { hosts: false })
      assert.ok(elsewhere !== null)
      const { metrics, edges, otherLabels, lastSeenSeconds } = elsewhere
      return [sorted(metrics), sorted(edges), sorted(otherLabels), lastSeenSeconds]
    }),
  )
  assert.deepEqual(told[0]?.[0], ['"istio_request_duration_milliseconds_count"', '"istio_requests_total"'])
  assert.deepEqual(told[1], told[0])
})

test('engines: the evidence about an incident is the same from both', { skip }, async () => {
  const atSeconds = BAD_UNTIL - 20
  const request = { pairs: [CART], quantile: 0.5, atSeconds, firstAnomalousSeconds: BAD_FROM, istio: ISTIO }
  const [wanted, found] = await Promise.all(
    engines.map(async ({ url: prometheusUrl }) => {
      const ask = async (query: string) => {
        const answer = await queryInstant(live(), { prometheusUrl, query, deadlineMs: 5_000 })
        assert.equal(answer.kind, 'answer')
        return answer.data
      }
      const gauges = readGauges(await ask(gaugesQuery([CART, ADS], atSeconds)))
      return { gauges, facts: readFacts(await ask(factsQuery(request)), request) }
    }),
  )
  assert.ok(wanted !== undefined && found !== undefined)
  assert.equal(wanted.gauges.get(pairKey(CART))?.latencyMs, 58)
  // VictoriaMetrics keeps about twelve digits of a value.
  const digits = ({ gauges }: typeof wanted): unknown =>
    JSON.parse(JSON.stringify([...gauges].sort()), (_, value: unknown) =>
      typeof value === 'number' ? Number(value.toPrecision(10)) : value,
    )
  assert.deepEqual(digits(found), digits(wanted))
  const [edge, same] = [wanted, found].map(({ facts }) => facts.edges.get(pairKey(CART)) ?? assert.fail())
  assert.ok(edge !== undefined && same !== undefined)
  for (const side of ['callerSide', 'calleeSide'] as const) {
    for (const when of ['beforeMs', 'nowMs'] as const) {
      assertNear(same[side][when] ?? NaN, edge[side][when] ?? NaN, LATENCY_SHARE, `${side} ${when}`)
    }
  }
  for (const when of ['before', 'now'] as const) {
    assertNear(same.requestsPerSecond[when] ?? NaN, edge.requestsPerSecond[when] ?? NaN, RATE_SHARE, when)
  }
  const shares = ({ facts }: typeof wanted): unknown => [
    facts.injected.map(({ source, fault, share }) => [source, fault, share.toFixed(2)]),
    facts.edges.get(pairKey(CART))?.versions.map(({ version, share }) => [version, share.toFixed(2)]),
  ]
  assert.deepEqual(shares(found), shares(wanted))
  assert.equal(wanted.facts.injected[0]?.fault, 'delay')
})

test('engines: a refused query is told from one without an answer, by both', { skip }, async () => {
  for (const { url: prometheusUrl, name } of engines) {
    const ask = (query: string) => queryInstant(live(), { prometheusUrl, query, deadlineMs: 5_000 })
    const refused = await ask('up{a=~"("}')
    assert.equal(refused.kind === 'failure' && refused.outcome, 'api_error', name)
    const empty = await ask('nothing_has_this_name')
    assert.deepEqual(empty.kind === 'answer' && empty.data.result, [], name)
  }
})

test(
  'engines: VictoriaMetrics that answers what was 30 s ago, its default, is no source of wrong polls, and is named',
  { skip },
  async () => {
    const { url, stop } = await startFilledVictoriaMetrics({ binary, series: monitors(), flags: [] })
    try {
      const query = anomalyHistoryQuery(PAIRS, { rangeMs: 300_000, stepMs: 5_000 })
      const answer = await queryInstantMatrix(live(), { prometheusUrl: url, query, deadlineMs: 5_000 })
      assert.equal(answer.kind, 'answer')
      const polls = readPolls(answer.data, { pairs: PAIRS, staleAfterSeconds: 20 })
      assert.ok(polls.length > 50)
      // It repeats what was 30 s ago for every moment since; they are no polls.
      const ageSeconds = Date.now() / 1000 - (polls.at(-1)?.timestampSeconds ?? NaN)
      assert.ok(ageSeconds > 25 && ageSeconds < 60, `the newest poll is ${ageSeconds} s old`)

      const notifier = { update: () => undefined, expectedAt: () => null, idle: () => Promise.resolve() }
      const common = { pollIntervalMs: 5_000, staleAfterSeconds: 60, notifier, istio: ISTIO, prometheusUrl: url }
      const rules = { ...DETECTION, noDataTimeoutSeconds: 600 }
      const mesh = createMeshIncidentDetector({ ...common, rules, selector: '' }, live(), new Registry())
      assert.deepEqual(await mesh.poll(), {
        outcome: 'empty',
        detail: 'Prometheus answered without a single time; VictoriaMetrics needs -search.latencyOffset=1s',
      })
      const runtime = live()
      const pairs = createIncidentDetector({ ...common, rules: INCIDENT }, runtime, new Registry())
      assert.equal((await pairs.poll()).outcome, 'ok')
      await runtime.clock.advance(20_000)
      assert.deepEqual(await pairs.poll(), {
        outcome: 'stale',
        detail:
          'Prometheus answers with the same times again and again; VictoriaMetrics needs -search.latencyOffset=1s',
      })
    } finally {
      await stop()
    }
  },
)
