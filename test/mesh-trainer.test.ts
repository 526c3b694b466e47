import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import test, { type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { type BaselineStore, createBaselineStore } from '../src/core/mesh-baselines.js'
import { createEdgeTable, type EdgeTable, type MeshEdge } from '../src/core/mesh-edges.js'
import type { Pair } from '../src/core/pair.js'
import { createTrainingGauges } from '../src/io/gauges.js'
import { createHttp } from '../src/io/http-client.js'
import { createMeshTrainer, type MeshTrainerConfig } from '../src/io/mesh-trainer.js'
import { startTrainingThread, ThreadLost } from '../src/io/training-thread.js'
import { samplesNamed } from './helpers/exposition.js'
import { apiError, evaluated, type MadeSeries, type RangeAsked } from './helpers/fake-range-prometheus.js'
import { type FakeRuntime, fakeRuntime, vectorAnswer } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { meshElements } from './helpers/mesh-answers.js'

const STEP = 60
const HOUR = 3_600
const edge = (source: string, destination = 'b'): Pair => ({ source, destination })

/** Sources and destinations that a query is of. */
interface Asked extends RangeAsked {
  readonly heat: boolean
  readonly pairs: readonly Pair[]
}

type Answered = string | { readonly status: number; readonly body: string }

interface Training {
  readonly runtime: FakeRuntime
  readonly store: BaselineStore
  readonly table: EdgeTable
  readonly asked: readonly Asked[]
  /** The most that were asked at once. */
  readonly mostAtOnce: () => number
  /** A poll that finds these edges. */
  readonly poll: (edges: readonly Pair[]) => void
  readonly edgeOf: (pair: Pair) => MeshEdge
  /** Resolves with the next line logged whose message is this. */
  readonly logged: (message: string) => Promise<Readonly<Record<string, unknown>>>
  readonly exported: (prefix: string) => Promise<Readonly<Record<string, number>>>
}

const CONFIG: Omit<MeshTrainerConfig, 'prometheusUrl'> = {
  mesh: { sourceLabel: 'source_app', destinationLabel: 'destination_app', quantiles: [0.5] },
  queryOf: ({ source, destinations }) => `history ${JSON.stringify({ source, destinations })}`,
  windowSeconds: 60,
  model: 'static-sigma',
  rangeSeconds: 2 * HOUR,
  stepSeconds: STEP,
  retrainSeconds: 4 * HOUR,
  concurrency: 2,
}

/** The edges that a query names, in the test's own language or in that of the heat query. */
function pairsIn(query: string): readonly Pair[] {
  const { source, destinations } = query.startsWith('history ')
    ? (JSON.parse(query.slice('history '.length)) as { source: string; destinations: string[] })
    : {
        source: /source="([^"]*)"/.exec(query)?.[1] ?? '',
        destinations: (/destination=~"([^"]*)"/.exec(query)?.[1] ?? '').split('|'),
      }
  return destinations.map((destination) => ({ source, destination }))
}

const seriesOf = ({ source, destination }: Pair, at: MadeSeries['at']): MadeSeries => ({
  metric: { source_app: source, destination_app: destination, quantile: '0.5' },
  at,
})

/** Every edge has 10 ms at all times, and none was ever hot. */
function calm({ heat, pairs, ...range }: Asked): Answered {
  return evaluated(heat ? [] : pairs.map((pair) => seriesOf(pair, () => '10')), range)
}

async function training(
  t: TestContext,
  answer: (asked: Asked) => Answered | Promise<Answered> = calm,
  config: Partial<MeshTrainerConfig> & { readonly verdictsKnown?: boolean } = {},
): Promise<Training> {
  const asked: Asked[] = []
  let atOnce = 0
  let mostAtOnce = 0
  const respond = async (range: Asked, response: ServerResponse): Promise<void> => {
    mostAtOnce = Math.max(mostAtOnce, ++atOnce)
    const answered = await answer(range)
    atOnce--
    if (typeof answered === 'string') response.end(answered)
    else response.writeHead(answered.status).end(answered.body)
  }
  const { url } = await startHttpServer(t, (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://prometheus')
    if (pathname === '/api/v1/query') {
      response.end(vectorAnswer(config.verdictsKnown === false ? [] : [{ metric: {}, value: '5' }]))
      return
    }
    const { query = '', start = '', end = '', step = '' } = Object.fromEntries(searchParams)
    const range = { query, start, end, step, heat: !query.startsWith('history '), pairs: pairsIn(query) }
    asked.push(range)
    void respond(range, response)
  })
  const runtime = { ...fakeRuntime([]), http: createHttp() }
  t.after(() => runtime.stop())
  const registry = new Registry()
  const store = createBaselineStore()
  const trainer = createMeshTrainer(
    { ...CONFIG, prometheusUrl: url, ...config },
    runtime,
    store,
    createTrainingGauges(registry),
  )
  const table = createEdgeTable({
    ...CONFIG.mesh,
    maxEdges: 1_000,
    graceSeconds: 0,
    shard: { ordinal: 1, count: 1 },
    baselines: store,
    maxAgeSeconds: null,
  })
  let read = 0
  return {
    runtime,
    store,
    table,
    asked,
    mostAtOnce: () => mostAtOnce,
    poll: (edges) => {
      const nowSeconds = runtime.clock.nowMs() / 1000
      table.begin()
      for (const element of edges.flatMap((pair) => meshElements(pair, nowSeconds, { 0.5: '10' }))) table.take(element)
      for (const watched of table.edges) table.removeVanished(watched, nowSeconds)
      trainer.scored(table.edges)
    },
    edgeOf: ({ source, destination }) =>
      [...table.edges].find(({ pair }) => pair.source === source && pair.destination === destination)!,
    logged: async (message) => {
      for (;;) {
        const line = runtime.logged[read++]
        if (line?.['msg'] === message) return line
        if (line !== undefined) continue
        read--
        // A pause of nothing is one, too.
        await runtime.clock.advance(0)
      }
    },
    exported: async (prefix) => samplesNamed(await registry.metrics(), prefix),
  }
}

const untrained = (counts: Readonly<Record<string, number>>): Readonly<Record<string, number>> =>
  Object.fromEntries(
    ['pending', 'no_history', 'too_short', 'incident', 'unusable', 'failed'].map((reason) => [
      `meshfever_edges_without_baseline{reason="${reason}"}`,
      counts[reason] ?? 0,
    ]),
  )

test('mesh trainer: the whole range up to now is asked for, heat and history, of each edge once, no more queries at a time than wanted', async (t) => {
  const edges = ['a', 'c', 'd', 'e'].flatMap((source) => Array.from({ length: 25 }, (_, i) => edge(source, `b${i}`)))
  let come: () => void = () => undefined
  const three = new Promise<void>((resolve) => (come = resolve))
  let queries = 0
  const { poll, logged, asked, store, runtime, mostAtOnce } = await training(
    t,
    async (range) => {
      if (++queries === 3) come()
      await three
      return calm(range)
    },
    { concurrency: 3 },
  )
  poll(edges)
  const ended = await logged('training ended')
  assert.deepEqual([ended['fitted'], ended['of'], ended['samples']], [100, 100, 100 * 121])
  assert.deepEqual(store.summary(), { edges: 100, samples: 100 * 121, oldestSeconds: 1_700_000_000 })
  const endSeconds = Math.floor(runtime.clock.nowMs() / 1000 / STEP) * STEP
  for (const heat of [true, false]) {
    const ofKind = asked.filter((one) => one.heat === heat)
    assert.deepEqual(
      ofKind.flatMap(({ pairs }) => pairs.map(({ source, destination }) => `${source} ${destination}`)).sort(),
      edges.map(({ source, destination }) => `${source} ${destination}`).sort(),
    )
    for (const { start, end, step } of ofKind) {
      assert.deepEqual([start, end, step].map(Number), [endSeconds - 2 * HOUR, endSeconds, STEP])
    }
  }
  assert.equal(mostAtOnce(), 3)
})

test('mesh trainer: a long range comes in chunks that are one history', async (t) => {
  const slow = (asked: Asked): Answered =>
    evaluated(asked.heat ? [] : asked.pairs.map((pair) => seriesOf(pair, (time) => String(time % 1_000))), asked)
  const { poll, logged, asked, runtime } = await training(t, slow, { rangeSeconds: 30_000 * STEP })
  poll([edge('a')])
  assert.equal((await logged('training ended'))['samples'], 30_001)
  const history = asked.filter(({ heat }) => !heat)
  assert.equal(history.length, 3)
  const endSeconds = Math.floor(runtime.clock.nowMs() / 1000 / STEP) * STEP
  history.forEach(({ start }, i) => {
    const expected = i === 0 ? endSeconds - 30_000 * STEP : Number(history[i - 1]!.end) + STEP
    assert.equal(Number(start), expected)
  })
  assert.equal(Number(history.at(-1)!.end), endSeconds)
})

test('mesh trainer: an edge that is seen later is trained then, and one that is gone takes its baseline with it', async (t) => {
  const { poll, logged, runtime, store, asked } = await training(t)
  poll([edge('a'), edge('c')])
  await logged('training ended')
  assert.equal(store.ready(), true)
  const before = asked.length
  poll([edge('a'), edge('new')])
  await runtime.clock.advance(30_000)
  const ended = await logged('training ended')
  assert.deepEqual([ended['fitted'], ended['of'], ended['baselines']], [1, 1, 2])
  assert.deepEqual(
    asked.slice(before).map(({ pairs }) => pairs),
    [[edge('new')], [edge('new')]],
  )
  assert.deepEqual(
    ['a', 'c', 'new'].map((source) => store.watchesOf(edge(source)) !== null),
    [true, false, true],
  )
})

test('mesh trainer: baselines are made anew when they are old enough, but for what is or was anomalous, or fails', async (t) => {
  let second = false
  const pairs = ['calm', 'now', 'recently', 'long ago', 'gone'].map((source) => edge(source))
  const { poll, logged, runtime, store, edgeOf, exported, asked } = await training(
    t,
    ({ heat, pairs: [pair], ...range }) => {
      const endSeconds = Number(range.end)
      const hotAt = { recently: endSeconds - 1_200, 'long ago': endSeconds - 2_400 }[pair!.source] ?? 0
      if (heat) {
        const at = (time: number): string | undefined => (second && time === hotAt ? '1' : undefined)
        return evaluated([{ metric: { source: pair!.source, destination: pair!.destination }, at }], range)
      }
      return evaluated(second && pair!.source === 'gone' ? [] : [seriesOf(pair!, () => '10')], range)
    },
  )
  poll(pairs)
  await logged('training ended')
  const first = pairs.map((pair) => store.watchesOf(pair))
  await runtime.clock.advance(30_000)
  // A history of two hours has doubled after two more, before the interval is over.
  second = true
  edgeOf(edge('now')).verdict = 'anomalous'
  const asks = asked.length
  await runtime.clock.advance(2 * HOUR * 1000 - 60_000)
  assert.equal(asked.length, asks)
  await runtime.clock.advance(30_000)
  const ended = await logged('training ended')
  assert.deepEqual(
    { fitted: ended['fitted'], kept: ended['kept'], no_history: ended['no_history'], of: ended['of'] },
    { fitted: 2, kept: 1, no_history: 1, of: 4 },
  )
  // Of 121 those at the hot time, five before and one after.
  assert.deepEqual([ended['samples'], ended['leftOut']], [242 - 7, 7])
  assert.deepEqual(
    pairs.map((pair, i) => [pair.source, store.watchesOf(pair) === first[i]]),
    [
      ['calm', false],
      ['now', true],
      ['recently', true],
      ['long ago', false],
      ['gone', true],
    ],
  )
  assert.deepEqual(await exported('meshfever_edges_without_baseline'), untrained({}))
  edgeOf(edge('now')).verdict = 'ok'
  await runtime.clock.advance(30_000)
  assert.equal((await logged('training ended'))['fitted'], 1)
})

test('mesh trainer: when nobody scrapes the monitors, it says that what is made anew may hold incidents', async (t) => {
  for (const verdictsKnown of [true, false]) {
    const { poll, logged, runtime } = await training(t, calm, { verdictsKnown })
    poll([edge('a')])
    await logged('training ended')
    await runtime.clock.advance(4 * HOUR * 1000)
    await logged('training ended')
    const warned = runtime.logged.filter(({ msg }) => String(msg).startsWith('Prometheus scrapes no monitor'))
    assert.equal(warned.length, verdictsKnown ? 0 : 1)
  }
})

test('mesh trainer: without an interval a baseline is made once', async (t) => {
  const { poll, logged, runtime, asked } = await training(t, calm, { retrainSeconds: null })
  poll([edge('a')])
  await logged('training ended')
  const asks = asked.length
  for (let day = 0; day < 30; day++) await runtime.clock.advance(86_400_000)
  assert.equal(asked.length, asks)
})

test('mesh trainer: a Prometheus that does not answer is asked again later, and the daemon is told so', async (t) => {
  let down = true
  const { poll, logged, runtime, store, exported } = await training(t, (asked) =>
    down ? { status: 503, body: 'busy' } : calm(asked),
  )
  poll([edge('a'), edge('c'), edge('d')])
  await logged('training from the history in Prometheus')
  const patience = (): boolean => runtime.logged.some(({ msg }) => String(msg).startsWith('training was interrupted'))
  for (let i = 0; i < 100 && !patience(); i++) {
    await runtime.clock.advance(1_000)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const { outcome, detail, againInSeconds, baselines } = await logged(
    'training was interrupted; edges without a baseline stay warming until it goes on',
  )
  assert.deepEqual(
    { outcome, detail, againInSeconds, baselines },
    {
      outcome: 'http_5xx',
      detail: 'HTTP 503 (asked 4 times)',
      againInSeconds: 60,
      baselines: 0,
    },
  )
  assert.deepEqual(await exported('meshfever_edges_without_baseline'), untrained({ pending: 3 }))
  assert.equal(store.ready(), true)
  down = false
  await runtime.clock.advance(60_000)
  assert.equal((await logged('training ended'))['fitted'], 3)
  assert.deepEqual(await exported('meshfever_edges_without_baseline'), untrained({}))
})

test('mesh trainer: what is too much for Prometheus or cannot be read is asked for in smaller batches, and one bad edge is the only one', async (t) => {
  const pairs = Array.from({ length: 20 }, (_, i) => edge('a', `b${i}`))
  const { poll, logged, store, exported } = await training(t, (asked) => {
    const names = asked.pairs.map(({ destination }) => destination)
    if (asked.heat) return calm(asked)
    if (names.length > 10) return apiError(422, 'execution', 'query processing would load too many samples into memory')
    if (names.includes('b3')) return 'no JSON'
    if (names.includes('b17')) return apiError(422, 'execution', 'exceeded maximum resolution')
    return calm(asked)
  })
  poll(pairs)
  const ended = await logged('training ended')
  assert.deepEqual([ended['fitted'], ended['unusable'], ended['failed']], [18, 1, 1])
  assert.deepEqual(
    pairs.filter((pair) => store.watchesOf(pair) === null),
    [edge('a', 'b3'), edge('a', 'b17')],
  )
  assert.deepEqual(await exported('meshfever_edges_without_baseline'), untrained({ unusable: 1, failed: 1 }))
})

test('mesh trainer: a stop in the middle of a training ends it', async (t) => {
  let begun: () => void = () => undefined
  const first = new Promise<void>((resolve) => (begun = resolve))
  const { poll, runtime, store } = await training(t, (asked) => {
    if (!asked.heat) begun()
    return calm(asked)
  })
  poll(Array.from({ length: 50 }, (_, i) => edge(`s${i}`)))
  await first
  runtime.stop()
  await runtime.clock.advance(0)
  assert.ok(store.size() < 50)
  assert.equal(runtime.logged.filter(({ msg }) => msg === 'training ended').length, 0)
})

test('mesh trainer: a thread that ends is known to be lost by who waits for it and who asks later', async () => {
  const thread = startTrainingThread('static-sigma')
  const { sourceLabel, destinationLabel } = CONFIG.mesh
  const range = {
    sourceLabel,
    destinationLabel,
    startSeconds: 0,
    endSeconds: 6_000,
    stepSeconds: 60,
    windowSeconds: 60,
  }
  await thread.ask({ kind: 'begin', batch: 1, range })
  const text = evaluated([seriesOf(edge('a'), () => '10')], { query: '', start: '0', end: '6000', step: '60' })
  assert.equal((await thread.ask({ kind: 'history', batch: 1, text })).unreadable, null)
  const fit = { kind: 'fit', batch: 2, pair: edge('a'), quantiles: [0.5], mayKeep: false } as const
  await assert.rejects(thread.ask(fit), ThreadLost)
  await assert.rejects(thread.ask(fit), {
    name: 'ThreadLost',
    message: 'the thread that fits baselines ended: batch 2 was not begun',
  })
  await thread.end()
})
