import assert from 'node:assert/strict'
import test from 'node:test'

import { Registry } from 'prom-client'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import { deviationIn, type Watch } from '../src/core/baseline/model.js'
import type { BaselineSource } from '../src/core/mesh-baselines.js'
import type { Pair } from '../src/core/pair.js'
import type { Watches } from '../src/core/score.js'
import { createMeshMonitor, type MeshMonitorConfig } from '../src/io/mesh-monitor.js'
import { createMonitor } from '../src/io/monitor.js'
import type { PollResult } from '../src/io/serve-daemon.js'
import { type Random, seededRandom } from '../src/testbed/random.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime, without } from './helpers/fake-runtime.js'
import { HOSTILE_NAMES, meshAnswer, type MeshElement, meshElements } from './helpers/mesh-answers.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'
import { times } from './helpers/recordings.js'

const T = 1_700_000_000

/** Always expects 5 to 20 ms, whatever comes. */
const TEN: Watch = {
  judge: ({ latencyMs }) => {
    const expectation = { yhatMs: 10, yMinMs: 5, yMaxMs: 20 }
    return { ...expectation, deviation: deviationIn(expectation, latencyMs), driftRatio: null, beyondTraining: false }
  },
}
const EVERYONE: BaselineSource = {
  watchesOf: () => [{ quantile: 0.5, watch: TEN }],
  version: () => 1,
  ready: () => true,
}

const CONFIG: MeshMonitorConfig = {
  prometheusUrl: 'http://prometheus:9090',
  query: 'the query',
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  quantiles: [0.5],
  baselines: EVERYONE,
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  pollIntervalMs: 5_000,
  maxAgeSeconds: 45,
  maxEdges: 1_000,
  edgeGraceSeconds: 900,
  shard: { ordinal: 1, count: 1 },
}

interface Monitored {
  readonly runtime: FakeRuntime
  readonly poll: () => Promise<PollResult>
  /** What /metrics would hold after the last poll. */
  readonly text: () => Promise<string>
  /** The samples whose name begins so. */
  readonly exported: (prefix: string) => Promise<Readonly<Record<string, number>>>
}

function monitored(answers: readonly FakeAnswer[], config: Partial<MeshMonitorConfig> = {}): Monitored {
  const runtime = fakeRuntime(answers)
  const registry = new Registry()
  const monitor = createMeshMonitor({ ...CONFIG, ...config }, runtime, registry)
  let rendered = ''
  const text = async (): Promise<string> => {
    const handed = monitor.exposition?.() ?? []
    if (handed.length > 0) rendered = Buffer.concat(handed).toString()
    return `${await registry.metrics()}\n${rendered}`
  }
  return {
    runtime,
    poll: monitor.poll,
    text,
    exported: async (prefix) => samplesNamed(await text(), prefix),
  }
}

const edge = (source: string, destination = 'b'): Pair => ({ source, destination })
/** The answer of poll number `k`, five seconds apart: a latency for each source. */
const answer = (k: number, latencies: Readonly<Record<string, string>>): string =>
  meshAnswer(
    Object.entries(latencies).flatMap(([source, value]) => meshElements(edge(source), T + 5 * k, { 0.5: value })),
  )

// The same as a monitor of each pair ------------------------------------------------------------------------------------------

const MANY: readonly Pair[] = HOSTILE_NAMES.filter((name) => name !== '\u2028').map((name, i) =>
  edge(name, `to ${name} ${i}`),
)
const QUANTILES = [0.5, 0.95]

/** What Prometheus may say of an edge at a poll, good and bad. */
function anything(pair: Pair, k: number, random: Random): readonly MeshElement[] {
  const at = T + 5 * k
  const latency = (): string => String(8 + 6 * random())
  const elements = meshElements(pair, at, { 0.5: latency(), 0.95: latency() })
  switch (Math.floor(random() * 14)) {
    case 0:
      return []
    case 1:
      return meshElements(pair, at, { 0.5: 'NaN', 0.95: 'NaN' })
    case 2:
      return meshElements(pair, at, { 0.5: '300', 0.95: '900' })
    case 3:
      return meshElements(pair, at, { 0.5: latency(), 0.95: '+Inf' })
    case 4:
      return meshElements(pair, at, { 0.5: '-3', 0.95: 'NaN' })
    case 5:
      return meshElements(pair, at, { 0.5: latency(), 0.95: latency() }, { requestsPerSecond: '0.01' })
    case 6:
      return meshElements(pair, at, { 0.5: latency(), 0.95: latency() }, { ageSeconds: 60 })
    case 7:
      return [...elements, elements[0]!]
    case 8:
      return [{ metric: elements[0]!.metric, histogram: [at, { count: '1' }] }, ...elements.slice(1)]
    case 9:
      return meshElements(pair, at, { 0.95: latency() })
    case 10:
      return meshElements(pair, T, { 0.5: latency(), 0.95: latency() })
    default:
      return elements
  }
}

function fittedWatches(seed: number): Watches {
  const random = seededRandom(seed)
  const fitted = loadAndSeason.fit({
    timesSeconds: times(120),
    latenciesMs: times(120).map(() => 10 + 2 * random()),
    requestsPerSecond: null,
  })
  assert.ok(!(fitted instanceof Promise))
  return QUANTILES.map((quantile) => ({ quantile, watch: fitted.watch() }))
}

test('mesh monitor: each edge has the verdicts, values and counts that a monitor of its own would have, poll by poll', async () => {
  const random = seededRandom(7)
  const polls = Array.from({ length: 40 }, (_, k) => MANY.map((pair) => anything(pair, k, random)))
  const outages = new Map([
    [11, { status: 503, body: 'busy' }],
    [12, { code: 'ECONNREFUSED' }],
  ])
  const answers = (
    elementsOf: (elements: readonly (readonly MeshElement[])[]) => readonly MeshElement[],
  ): FakeAnswer[] =>
    polls.map((elements, k) => outages.get(k) ?? meshAnswer(elementsOf(elements), k % 9 === 4 ? ['partial'] : []))
  const watches = new Map(MANY.map((pair, i) => [JSON.stringify(pair), fittedWatches(i)]))
  const mesh = monitored(
    answers((elements) => elements.flat().toReversed()),
    {
      quantiles: QUANTILES,
      baselines: { ...EVERYONE, watchesOf: (pair) => watches.get(JSON.stringify(pair)) ?? null },
    },
  )
  const pairs = MANY.map((pair, i) => {
    const registry = new Registry()
    const runtime = fakeRuntime(answers((elements) => elements[i]!))
    const config = { ...CONFIG, pair, quantiles: QUANTILES, watches: fittedWatches(i) }
    return { registry, poll: createMonitor(config, runtime, registry).poll }
  })
  let compared = 0
  for (let k = 0; k < polls.length; k++) {
    await Promise.all([mesh.poll(), ...pairs.map(({ poll }) => poll())])
    const own = await Promise.all(pairs.map(async ({ registry }) => samplesNamed(await registry.metrics(), 'lab7_')))
    const labelled = Object.entries(Object.assign({}, ...own) as Record<string, number>).filter(([series]) =>
      series.includes('{'),
    )
    // A pair that was never seen is watched all the same; an edge is found in an answer.
    const known = new Set(
      polls
        .slice(0, k + 1)
        .flatMap((all, poll) =>
          outages.has(poll) ? [] : all.flatMap((elements, i) => (elements.length > 0 ? [i] : [])),
        ),
    )
    assert.equal(known.size, MANY.length, 'the first answer holds every edge')
    const exported = await mesh.exported('lab7_')
    assert.deepEqual(exported, Object.fromEntries(labelled), `poll ${k}`)
    compared += labelled.length
  }
  assert.ok(compared > 40 * MANY.length * 8, `${compared}`)
})

// Outcomes --------------------------------------------------------------------------------------------------------------------

test('mesh monitor: before the first poll nothing is exported of edges, and which shard it is', async () => {
  const { exported } = monitored([], { shard: { ordinal: 2, count: 5 } })
  assert.deepEqual(await exported('lab7_'), {})
  const own = await exported('meshfever_')
  assert.deepEqual(
    Object.entries(own).filter(([series]) => !series.includes('outcome=')),
    [
      ['meshfever_shard_ordinal', 2],
      ['meshfever_shards', 5],
    ],
  )
})

test('mesh monitor: a poll counts its edges by verdict, by what their readings came to, and those refused', async () => {
  const { poll, exported, runtime } = monitored(
    [
      meshAnswer([
        ...meshElements(edge('good'), T, { 0.5: '8' }),
        ...meshElements(edge('hot'), T, { 0.5: '40' }),
        ...meshElements(edge('hotter'), T, { 0.5: '80' }),
        ...meshElements(edge('idle'), T, { 0.5: 'NaN' }, { requestsPerSecond: '0' }),
        ...meshElements(edge('new'), T, { 0.5: '8' }),
        ...meshElements(edge('unknown'), T, { 0.5: '8' }),
        ...meshElements(edge('beyond'), T, { 0.5: '8' }),
      ]),
      { code: 'ECONNREFUSED' },
    ],
    {
      maxEdges: 5,
      baselines: {
        ...EVERYONE,
        watchesOf: ({ source }) => (source === 'new' ? null : [{ quantile: 0.5, watch: TEN }]),
      },
    },
  )
  assert.deepEqual(await poll(), { outcome: 'ok', detail: '' })
  const nonZero = async (): Promise<Readonly<Record<string, number>>> =>
    Object.fromEntries(Object.entries(await exported('meshfever_edge')).filter(([, value]) => value !== 0))
  assert.deepEqual(await nonZero(), {
    'meshfever_edges{state="ok"}': 1,
    'meshfever_edges{state="anomalous"}': 2,
    'meshfever_edges{state="low_traffic"}': 1,
    'meshfever_edges{state="warming"}': 1,
    'meshfever_edges_refused{reason="max_edges"}': 1,
    'meshfever_edges_refused{reason="unknown"}': 1,
    'meshfever_edge_readings_total{outcome="ok"}': 4,
    'meshfever_edge_readings_total{outcome="nonfinite"}': 1,
  })
  const [line] = runtime.logged
  assert.deepEqual(without(line, 'time', 'level', 'milliseconds', 'answerBytes'), {
    edges: 5,
    verdicts: { ok: 1, anomalous: 2, low_traffic: 1, no_data: 0, warming: 1 },
    outcomes: { ok: 4, nonfinite: 1 },
    refused: { max_edges: 1, unknown: 1, bad_name: 0 },
    removed: 0,
    hottest: [
      { source: 'hotter', destination: 'b', verdict: 'anomalous', score: 7 },
      { source: 'hot', destination: 'b', verdict: 'anomalous', score: 3 },
    ],
    msg: 'evaluated mesh',
  })
  assert.deepEqual(Object.keys(line?.['milliseconds'] as object), ['query', 'read', 'score'])
  assert.equal((await poll()).outcome, 'conn')
  assert.deepEqual(await nonZero(), {
    'meshfever_edges{state="no_data"}': 4,
    'meshfever_edges{state="warming"}': 1,
    'meshfever_edge_readings_total{outcome="ok"}': 4,
    'meshfever_edge_readings_total{outcome="nonfinite"}': 1,
    'meshfever_edge_readings_total{outcome="conn"}': 5,
  })
  assert.deepEqual(Object.keys(await exported('meshfever_edges_refused')), [], 'nobody knows how many there would be')
})

for (const { name, given, result } of [
  {
    name: 'an answer without an edge',
    given: meshAnswer([]),
    result: {
      outcome: 'empty',
      detail:
        'no edge: does --selector match istio_request_duration_milliseconds_bucket, with reporter="source", in this Prometheus?',
    },
  },
  {
    name: 'a metric without those labels',
    given: meshAnswer([{ metric: { quantile: '0.5' }, value: [T, '8'] }]),
    result: {
      outcome: 'empty',
      detail:
        "every edge has an end that is unknown or nameless: are --source-label source_app and --destination-label destination_app labels of Istio's metrics?",
    },
  },
  {
    name: 'edges without traffic',
    given: answer(0, { a: 'NaN', c: 'NaN' }),
    result: { outcome: 'nonfinite', detail: 'no edge has a sample; most came to nonfinite: 2 of 2' },
  },
  {
    name: 'native histograms, mostly',
    given: meshAnswer([
      { metric: { source_app: 'x', destination_app: 'b' }, histogram: [T, {}] },
      { metric: { source_app: 'y', destination_app: 'b' }, histogram: [T, {}] },
      ...meshElements(edge('z'), T, { 0.5: 'NaN' }),
    ]),
    result: { outcome: 'histogram', detail: 'no edge has a sample; most came to histogram: 2 of 3' },
  },
  {
    name: 'warnings',
    given: meshAnswer(meshElements(edge('a'), T, { 0.5: '8' }), ['a store is away']),
    result: { outcome: 'warnings', detail: 'Prometheus warns that the answer may not be complete' },
  },
  { name: 'HTML', given: '<html>', result: { outcome: 'bad_json', detail: 'the answer is not JSON: "<html>"' } },
  {
    name: 'half an answer',
    given: answer(0, { a: '8', b: '8' }).slice(0, -20),
    result: {
      outcome: 'bad_json',
      detail: `the answer is not JSON: ${JSON.stringify(answer(0, { a: '8', b: '8' }).slice(0, 80))}`,
    },
  },
  {
    name: 'a matrix',
    given: meshAnswer([]).replace('vector', 'matrix'),
    result: { outcome: 'wrong_type', detail: 'data.resultType: expected "vector", got "matrix"' },
  },
  {
    name: 'an element that is nobody’s',
    given: '{"status":"success","data":{"resultType":"vector","result":[7]}}',
    result: { outcome: 'bad_shape', detail: 'data.result: expected objects with a metric, got 7' },
  },
  {
    name: 'a query that Prometheus refuses',
    given: { status: 422, body: '{"status":"error","errorType":"execution","error":"too many samples"}' },
    result: { outcome: 'api_error', detail: 'HTTP 422: execution: too many samples' },
  },
  {
    name: 'a body over the limit',
    given: { code: 'ERR_BAD_RESPONSE', message: 'maxContentLength size of 8388608 exceeded' },
    result: {
      outcome: 'too_large',
      detail:
        'maxContentLength size of 8388608 exceeded: there is room for 8 MiB, by --max-edges 1000; narrow --selector, or raise --max-edges',
    },
  },
] as const) {
  test(`mesh monitor: ${name} is a poll of its own kind, and the next good one is taken`, async () => {
    const { poll, exported } = monitored([given, answer(1, { a: '8' })])
    assert.deepEqual(await poll(), result)
    await poll()
    assert.equal((await exported('lab7_y{'))['lab7_y{source="a",destination="b",quantile="0.5"}'], 8)
  })
}

test('mesh monitor: the answer has room for the edges of all shards', async () => {
  const big = { code: 'X', message: 'maxContentLength size exceeded' }
  const { poll } = monitored([big], { maxEdges: 5_000, shard: { ordinal: 2, count: 5 } })
  assert.match((await poll()).detail, /room for 37 MiB, by --max-edges 5000;/)
})

test('mesh monitor: of a shard without an edge of its own, all is well', async () => {
  const given = answer(0, { a: '8' })
  const results = await Promise.all(
    [1, 2, 3].map((ordinal) => monitored([given], { shard: { ordinal, count: 3 } }).poll()),
  )
  assert.deepEqual(results, new Array(3).fill({ outcome: 'ok', detail: '' }))
})

test('mesh monitor: an answer that a proxy formatted, or with unusual keys, is read as a whole', async () => {
  const formatted = JSON.stringify(JSON.parse(answer(0, { a: '8', c: '9' })), null, 2)
  const unusual = answer(1, { a: '8', c: '9' }).replace(/"value"(?!.*"value")/, '"more":[{"a":1},{"metric":2}],"value"')
  const { poll, exported } = monitored([formatted, unusual])
  for (let i = 0; i < 2; i++) {
    assert.equal((await poll()).outcome, 'ok')
    assert.deepEqual(Object.values(await exported('lab7_y{')), [8, 9])
  }
})

// Coming and going ------------------------------------------------------------------------------------------------------------

test('mesh monitor: an edge that is gone is no_data at once, and its series are removed after the grace time', async () => {
  const { poll, exported, runtime } = monitored(
    [
      answer(0, { a: '8', c: '8' }),
      answer(1, { a: '8' }),
      { code: 'ECONNREFUSED' },
      answer(3, { a: '8' }),
      answer(4, { a: '8' }),
      answer(5, { a: '8', c: '30' }),
    ],
    { edgeGraceSeconds: 12 },
  )
  const seen: unknown[] = []
  for (let k = 0; k < 6; k++) {
    await poll()
    const now = await exported('lab7_')
    const verdicts = Object.keys(now).filter(
      (series) => series.startsWith('lab7_verdict{source="c"') && now[series] === 1,
    )
    seen.push([
      verdicts.map((series) => /verdict="(\w+)"/.exec(series)?.[1]),
      Object.keys(now).filter((series) => series.includes('"c"')).length,
    ])
    await runtime.clock.advance(5_000)
  }
  const noData = [['no_data'], 6]
  assert.deepEqual(seen, [[['ok'], 18], noData, noData, noData, [[], 0], [['anomalous'], 18]])
})

test('mesh monitor: an answer that may not be complete makes no edge go', async () => {
  const partial = (k: number): string => meshAnswer(meshElements(edge('a'), T + 5 * k, { 0.5: '8' }), ['partial'])
  const { poll, exported, runtime } = monitored([answer(0, { a: '8', c: '8' }), partial(1), partial(2), partial(3)], {
    edgeGraceSeconds: 5,
  })
  for (let k = 0; k < 4; k++) {
    await poll()
    await runtime.clock.advance(60_000)
  }
  assert.equal((await exported('lab7_verdict'))['lab7_verdict{source="c",destination="b",verdict="no_data"}'], 1)
})

test('mesh monitor: an edge is warming until it has a baseline', async () => {
  let version = 0
  const ready = new Set<string>()
  const { poll, exported } = monitored(
    [0, 1, 2].map((k) => answer(k, { a: '40', c: '40' })),
    {
      baselines: {
        watchesOf: ({ source }) => (ready.has(source) ? [{ quantile: 0.5, watch: TEN }] : null),
        version: () => version,
        ready: () => true,
      },
    },
  )
  const states = async (): Promise<readonly number[]> => {
    const edges = await exported('meshfever_edges{')
    return ['warming', 'anomalous'].map((state) => edges[`meshfever_edges{state="${state}"}`] ?? NaN)
  }
  await poll()
  assert.deepEqual(await states(), [2, 0])
  ready.add('a')
  version++
  await poll()
  assert.deepEqual(await states(), [1, 1])
  ready.add('c')
  version++
  await poll()
  assert.deepEqual(await states(), [0, 2])
})

test('mesh monitor: what ended the fitting of baselines ends the monitor', async () => {
  const { poll } = monitored([answer(0, { a: '8' })], {
    baselines: {
      ...EVERYONE,
      watchesOf: () => {
        throw new RangeError('no fit')
      },
    },
  })
  await assert.rejects(poll, { name: 'RangeError', message: 'no fit' })
})

// The log ---------------------------------------------------------------------------------------------------------------------

test('mesh monitor: an edge that becomes anomalous, and that is no longer, is one line each', async () => {
  const { poll, runtime } = monitored([
    answer(0, { a: '8', c: '8' }),
    answer(1, { a: '40', c: '8' }),
    answer(2, { a: '41', c: '8' }),
    { code: 'ECONNREFUSED' },
    answer(4, { a: '42', c: '8' }),
    answer(5, { a: '8', c: '8' }),
  ])
  const lines: unknown[] = []
  for (let k = 0; k < 6; k++) {
    const from = runtime.logged.length
    await poll()
    lines.push(
      runtime.logged
        .slice(from)
        .filter(({ msg }) => msg !== 'evaluated mesh')
        .map((line) => without(line, 'time', 'level')),
    )
  }
  const a = { source: 'a', destination: 'b' }
  assert.deepEqual(lines, [
    [],
    [
      {
        ...a,
        was: 'ok',
        verdict: 'anomalous',
        quantiles: [{ quantile: 0.5, yMs: 40, yhatMs: 10, yMaxMs: 20 }],
        msg: 'edge became anomalous',
      },
    ],
    [],
    [],
    [],
    [
      {
        ...a,
        was: 'anomalous',
        verdict: 'ok',
        quantiles: [{ quantile: 0.5, yMs: 8, yhatMs: 10, yMaxMs: 20 }],
        msg: 'edge is no longer anomalous',
      },
    ],
  ])
})

test('mesh monitor: a thousand edges that become anomalous at once are twenty-two lines, with the five hottest', async () => {
  const latencies = Object.fromEntries(
    Array.from({ length: 1_000 }, (_, i) => [`s${i}`, String(30 + ((i * 7) % 1_000))]),
  )
  const { poll, runtime } = monitored([answer(0, latencies)])
  await poll()
  assert.equal(runtime.logged.length, 22)
  assert.deepEqual(without(runtime.logged.at(-1), 'time', 'level'), { edges: 980, msg: 'more edges changed likewise' })
  const hottest = runtime.logged[0]?.['hottest'] as readonly { readonly score: number }[]
  assert.deepEqual(
    hottest.map(({ score }) => score),
    [101.9, 101.8, 101.7, 101.6, 101.5],
  )
})

test('mesh monitor: a name cannot break a line of the log', async () => {
  const { poll, runtime } = monitored([meshAnswer(meshElements(edge('a\n\u202eb\u0000'), T, { 0.5: '40' }))])
  await poll()
  assert.deepEqual(
    runtime.logged.map(({ source, hottest }) => source ?? (hottest as readonly Pair[])[0]?.source),
    ['a  b ', 'a  b '],
  )
})

test('mesh monitor: a stop in the middle of a poll is not logged', async () => {
  const { poll, runtime } = monitored([{ never: true }])
  const polled = poll()
  await runtime.clock.asleep()
  runtime.stop()
  await polled
  assert.deepEqual(runtime.logged, [])
})

// Shards ----------------------------------------------------------------------------------------------------------------------

test('mesh monitor: the union of the shards is the output of one monitor, for 1 to 8 shards, hostile names and all', async () => {
  const random = seededRandom(5)
  const pairs = [
    ...HOSTILE_NAMES.flatMap((source) => HOSTILE_NAMES.map((destination) => ({ source, destination }))),
    ...Array.from({ length: 200 }, (_, i) => edge(`service-${i}`)),
  ]
  const answers = [0, 1, 2].map((k) =>
    meshAnswer(pairs.flatMap((pair) => meshElements(pair, T + 5 * k, { 0.5: String(5 + 20 * random()) }))),
  )
  /** The lines of a monitor's edges after all polls. */
  const linesOf = async (ordinal: number, count: number): Promise<readonly string[]> => {
    const { poll, text } = monitored(answers, { shard: { ordinal, count } })
    for (const given of answers) assert.equal((await poll()).outcome, 'ok', given.slice(0, 20))
    return (await text()).split('\n').filter((line) => line.startsWith('lab7_'))
  }
  const whole = (await linesOf(1, 1)).toSorted()
  assert.ok(whole.length > pairs.length * 15)
  for (let count = 1; count <= 8; count++) {
    const shards = await Promise.all(Array.from({ length: count }, (_, i) => linesOf(i + 1, count)))
    // Equal as lists: no line is in two shards.
    assert.deepEqual(shards.flat().toSorted(), whole, `${count} shards`)
    assert.ok(shards.every((lines) => lines.length > 0))
  }
})

test('mesh monitor: Prometheus accepts the exposition, hostile names and all', { skip: noPromtool() }, async () => {
  const pairs = HOSTILE_NAMES.map((name) => edge(name, name))
  const { poll, text } = monitored([meshAnswer(pairs.flatMap((pair) => meshElements(pair, T, { 0.5: '8' })))])
  await poll()
  assertPromtoolAccepts(await text())
})
