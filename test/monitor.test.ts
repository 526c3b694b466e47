import assert from 'node:assert/strict'
import test from 'node:test'

import { Registry } from 'prom-client'

import { deviationIn, type Expectation, type Watch } from '../src/core/baseline/model.js'
import { VERDICTS, type Watches } from '../src/core/score.js'
import { createMonitor, type MonitorConfig } from '../src/io/monitor.js'
import type { PollResult } from '../src/io/serve-daemon.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime, vectorAnswer, without } from './helpers/fake-runtime.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

const T = 1_700_000_000

/** Always expects the same; follows normal latency to a drift of 1.05. */
function fixed(expectation: Expectation): Watch {
  return {
    judge: ({ latencyMs, requestsPerSecond }) => ({
      ...expectation,
      deviation: deviationIn(expectation, latencyMs),
      driftRatio: 1.05,
      beyondTraining: requestsPerSecond !== null && requestsPerSecond > 50,
    }),
  }
}

const TEN = fixed({ yhatMs: 10, yMinMs: 5, yMaxMs: 20 })
const HUNDRED = fixed({ yhatMs: 100, yMinMs: 50, yMaxMs: 300 })

const CONFIG: MonitorConfig = {
  pair: { source: 'frontend', destination: 'cart-service' },
  prometheusUrl: 'http://prometheus:9090',
  query: 'the query',
  quantiles: [0.5],
  watches: [{ quantile: 0.5, watch: TEN }],
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  pollIntervalMs: 5_000,
  maxAgeSeconds: 45,
}

/** The answer of poll number `k`, five seconds apart. */
function answer(k: number, latencies: Readonly<Record<string, string>>, requestsPerSecond = '5'): string {
  const at = T + 5 * k
  return vectorAnswer(
    [
      ...Object.entries(latencies).map(([quantile, value]) => ({ metric: { quantile }, value })),
      { metric: { series: 'requests_per_second' }, value: requestsPerSecond },
      { metric: { series: 'sample_timestamp_seconds' }, value: String(at - 3) },
    ],
    at,
  )
}

interface Monitored {
  readonly runtime: FakeRuntime
  readonly poll: () => Promise<PollResult>
  /** The lab7_ samples exported now. */
  readonly exported: () => Promise<Readonly<Record<string, number>>>
  readonly text: () => Promise<string>
}

function monitored(answers: readonly FakeAnswer[], config: Partial<MonitorConfig> = {}): Monitored {
  const runtime = fakeRuntime(answers)
  const registry = new Registry()
  const { poll } = createMonitor({ ...CONFIG, ...config }, runtime, registry)
  return {
    runtime,
    poll,
    text: () => registry.metrics(),
    exported: async () => samplesNamed(await registry.metrics(), 'lab7_'),
  }
}

const PAIR = 'source="frontend",destination="cart-service"'

function verdicts(holds: (typeof VERDICTS)[number]): Readonly<Record<string, number>> {
  return Object.fromEntries(
    VERDICTS.map((verdict) => [`lab7_verdict{${PAIR},verdict="${verdict}"}`, verdict === holds ? 1 : 0]),
  )
}

/** What is exported after the first answer below, a good one of 8 ms. */
const EIGHT: Readonly<Record<string, number>> = {
  [`lab7_anomaly_count{${PAIR}}`]: 0,
  [`lab7_mae{${PAIR},quantile="0.5"}`]: 2,
  [`lab7_mape{${PAIR},quantile="0.5"}`]: 0.25,
  [`lab7_y{${PAIR},quantile="0.5"}`]: 8,
  [`lab7_y_min{${PAIR},quantile="0.5"}`]: 5,
  [`lab7_y_max{${PAIR},quantile="0.5"}`]: 20,
  [`lab7_yhat{${PAIR},quantile="0.5"}`]: 10,
  [`lab7_anomaly_score{${PAIR},quantile="0.5"}`]: 0,
  [`lab7_saturated{${PAIR},quantile="0.5"}`]: 0,
  [`lab7_training_drift_ratio{${PAIR},quantile="0.5"}`]: 1.05,
  [`lab7_traffic_beyond_training{${PAIR}}`]: 0,
  ...verdicts('ok'),
  [`lab7_requests_per_second{${PAIR}}`]: 5,
  [`lab7_sample_timestamp_seconds{${PAIR}}`]: T,
  [`lab7_anomalies_total{${PAIR}}`]: 0,
  lab7_frontend_to_cart_service_anomaly_count: 0,
  lab7_frontend_to_cart_service_mae: 2,
  lab7_frontend_to_cart_service_mape: 0.25,
  lab7_frontend_to_cart_service_y: 8,
  lab7_frontend_to_cart_service_y_min: 5,
  lab7_frontend_to_cart_service_y_max: 20,
  lab7_frontend_to_cart_service_yhat: 10,
}

test('monitor: before the first poll nothing is exported but a counter at 0', async () => {
  const { exported } = monitored([])
  assert.deepEqual(await exported(), { [`lab7_anomalies_total{${PAIR}}`]: 0 })
})

test('monitor: a good poll exports what was measured, under both kinds of names', async () => {
  const { poll, exported, runtime } = monitored([answer(0, { 0.5: '8' })])
  assert.deepEqual(await poll(), { outcome: 'ok', detail: '' })
  assert.deepEqual(await exported(), EIGHT)
  assert.deepEqual(runtime.queries, ['the query'])
})

test('monitor: anomalies are counted on, poll after poll', async () => {
  const { poll, exported } = monitored([answer(0, { 0.5: '25' }), answer(1, { 0.5: '8' }), answer(2, { 0.5: '40' })])
  const seen: unknown[] = []
  for (let i = 0; i < 3; i++) {
    await poll()
    const now = await exported()
    seen.push([now[`lab7_anomaly_count{${PAIR}}`], now[`lab7_anomalies_total{${PAIR}}`]])
  }
  assert.deepEqual(seen, [
    [1, 1],
    [0, 1],
    [1, 2],
  ])
})

for (const { name, bad, outcome } of [
  { name: 'NaN for want of requests', bad: answer(1, { 0.5: 'NaN' }, '3'), outcome: 'nonfinite' },
  { name: 'an empty vector', bad: vectorAnswer([]), outcome: 'empty' },
  { name: '503', bad: { status: 503, body: 'Service Unavailable' }, outcome: 'http_5xx' },
  { name: 'a refused connection', bad: { code: 'ECONNREFUSED' }, outcome: 'conn' },
  { name: 'HTML', bad: '<html>', outcome: 'bad_json' },
  { name: 'half a JSON', bad: answer(1, { 0.5: '8' }).slice(0, 80), outcome: 'bad_json' },
  { name: 'the same answer again', bad: answer(0, { 0.5: '8' }), outcome: 'stale' },
  { name: 'a negative latency', bad: answer(1, { 0.5: '-8' }), outcome: 'out_of_domain' },
] as const) {
  test(`monitor: after ${name} every value is gone, and the verdict is no_data`, async () => {
    const { poll, exported } = monitored([answer(0, { 0.5: '25' }), bad, answer(2, { 0.5: '8' })])
    await poll()
    assert.equal((await poll()).outcome, outcome)
    const known = name.startsWith('NaN') ? { [`lab7_requests_per_second{${PAIR}}`]: 3 } : {}
    assert.deepEqual(await exported(), {
      ...verdicts('no_data'),
      ...known,
      [`lab7_anomalies_total{${PAIR}}`]: 1,
    })
    assert.equal((await poll()).outcome, 'ok', 'the next good answer is taken')
    assert.deepEqual(await exported(), {
      ...EIGHT,
      [`lab7_sample_timestamp_seconds{${PAIR}}`]: T + 10,
      [`lab7_anomalies_total{${PAIR}}`]: 1,
    })
  })
}

for (const { name, later, after } of [
  { name: 'a minute ahead what is older is stale', later: 12, after: ['stale', 'stale'] },
  { name: 'an hour ahead, of a clock that was put right, the next is taken', later: 720, after: ['ok', 'ok'] },
] as const) {
  test(`monitor: after an answer ${name}`, async () => {
    const { poll } = monitored([0, later, 1, 2].map((i) => answer(i, { 0.5: '8' })))
    const outcomes = [await poll(), await poll(), await poll(), await poll()].map(({ outcome }) => outcome)
    assert.deepEqual(outcomes, ['ok', 'ok', ...after])
  })
}

test('monitor: with too little traffic a latency is shown and not judged', async () => {
  const { poll, exported } = monitored([answer(0, { 0.5: '500' }, '0.05')])
  assert.equal((await poll()).outcome, 'ok')
  assert.deepEqual(await exported(), {
    [`lab7_y{${PAIR},quantile="0.5"}`]: 500,
    [`lab7_y_min{${PAIR},quantile="0.5"}`]: 5,
    [`lab7_y_max{${PAIR},quantile="0.5"}`]: 20,
    [`lab7_yhat{${PAIR},quantile="0.5"}`]: 10,
    [`lab7_saturated{${PAIR},quantile="0.5"}`]: 0,
    [`lab7_training_drift_ratio{${PAIR},quantile="0.5"}`]: 1.05,
    [`lab7_traffic_beyond_training{${PAIR}}`]: 0,
    ...verdicts('low_traffic'),
    [`lab7_requests_per_second{${PAIR}}`]: 0.05,
    [`lab7_sample_timestamp_seconds{${PAIR}}`]: T,
    [`lab7_anomalies_total{${PAIR}}`]: 0,
    lab7_frontend_to_cart_service_y: 500,
    lab7_frontend_to_cart_service_y_min: 5,
    lab7_frontend_to_cart_service_y_max: 20,
    lab7_frontend_to_cart_service_yhat: 10,
  })
})

test('monitor: a latency of 0 has no mape', async () => {
  const { poll, exported } = monitored([answer(0, { 0.5: '8' }), answer(1, { 0.5: '0' })])
  await poll()
  await poll()
  const now = await exported()
  assert.equal(now[`lab7_mae{${PAIR},quantile="0.5"}`], 10)
  assert.equal(now[`lab7_mape{${PAIR},quantile="0.5"}`], undefined)
  assert.equal(now['lab7_frontend_to_cart_service_mape'], undefined)
})

test('monitor: of two quantiles each has its series, and the lab’s names show the first', async () => {
  const two = {
    quantiles: [0.5, 0.9],
    watches: [
      { quantile: 0.5, watch: TEN },
      { quantile: 0.9, watch: HUNDRED },
    ],
  }
  const { poll, exported } = monitored([answer(0, { 0.5: '8', 0.9: '400' }), answer(1, { 0.5: 'NaN', 0.9: '90' })], two)
  await poll()
  let now = await exported()
  assert.deepEqual(
    ['lab7_y', 'lab7_mae'].flatMap((name) =>
      ['0.5', '0.9'].map((quantile) => now[`${name}{${PAIR},quantile="${quantile}"}`]),
    ),
    [8, 400, 2, 300],
  )
  assert.deepEqual([now[`lab7_anomaly_count{${PAIR}}`], now['lab7_frontend_to_cart_service_y']], [1, 8])
  await poll()
  now = await exported()
  assert.deepEqual(
    ['0.5', '0.9'].map((quantile) => now[`lab7_y{${PAIR},quantile="${quantile}"}`]),
    [undefined, 90],
  )
  assert.equal(now['lab7_frontend_to_cart_service_y'], undefined)
})

test('monitor: every poll is one log line, with the numbers', async () => {
  const { poll, runtime } = monitored([answer(0, { 0.5: '8' }), { code: 'ECONNREFUSED' }])
  await poll()
  await poll()
  const lines = runtime.logged.map((line) => without(line, 'time', 'level'))
  assert.deepEqual(lines, [
    {
      source: 'frontend',
      destination: 'cart-service',
      timestampSeconds: T,
      verdict: 'ok',
      anomalyCount: 0,
      requestsPerSecond: 5,
      quantiles: [{ quantile: 0.5, yMs: 8, yhatMs: 10, yMinMs: 5, yMaxMs: 20, maeMs: 2, mape: 0.25, score: 0 }],
      msg: 'evaluated',
    },
    {
      source: 'frontend',
      destination: 'cart-service',
      timestampSeconds: null,
      verdict: 'no_data',
      anomalyCount: null,
      requestsPerSecond: null,
      quantiles: [],
      msg: 'evaluated',
    },
  ])
})

for (const { yMs, score } of [
  { yMs: '20', score: 1 },
  { yMs: '30', score: 2 },
  { yMs: '15', score: 0.5 },
  { yMs: '10', score: 0 },
]) {
  test(`monitor: the score of ${yMs} ms is ${score}: 1 on the edge of the band`, async () => {
    const { poll, exported } = monitored([answer(0, { 0.5: yMs })])
    await poll()
    const now = await exported()
    assert.equal(now[`lab7_anomaly_score{${PAIR},quantile="0.5"}`], score)
    assert.equal(now[`lab7_anomaly_count{${PAIR}}`], Number(score > 1))
  })
}

test('monitor: more traffic than training saw, and more latency than a histogram knows, are exported and said', async () => {
  const { poll, exported, runtime } = monitored([answer(0, { 0.5: '3600000' }, '51'), answer(1, { 0.5: '8' }, '50')])
  await poll()
  let now = await exported()
  assert.equal(now[`lab7_traffic_beyond_training{${PAIR}}`], 1)
  assert.equal(now[`lab7_saturated{${PAIR},quantile="0.5"}`], 1)
  await poll()
  now = await exported()
  assert.equal(now[`lab7_traffic_beyond_training{${PAIR}}`], 0)
  assert.equal(now[`lab7_saturated{${PAIR},quantile="0.5"}`], 0)
  const said = runtime.logged.map(({ quantiles }) => {
    const [scored] = quantiles as readonly Readonly<Record<string, unknown>>[]
    return [scored?.['beyondTraining'], scored?.['saturated']]
  })
  assert.deepEqual(said, [
    [true, true],
    [undefined, undefined],
  ])
})

test('monitor: training data that does not fit any more is exported, and said once', async () => {
  const ratios = [1, 1.2, 1.21, 1.4, 1.1, 0.9, 0.8, 1]
  let judgements = 0
  const drifting: Watch = {
    judge: ({ latencyMs }) => ({
      ...{ yhatMs: 10, yMinMs: 5, yMaxMs: 20, beyondTraining: false },
      deviation: latencyMs === 400 ? 40 : 0,
      driftRatio: ratios[judgements++] ?? 1,
    }),
  }
  // The fourth sample is anomalous: it says nothing of what is normal now.
  const answers = ratios.map((ratio, k) => answer(k, { 0.5: ratio === 1.4 ? '400' : '10' }))
  const { poll, exported, runtime } = monitored(answers, { watches: [{ quantile: 0.5, watch: drifting }] })
  const shown: unknown[] = []
  while (shown.length < ratios.length) {
    await poll()
    shown.push((await exported())[`lab7_training_drift_ratio{${PAIR},quantile="0.5"}`])
  }
  assert.deepEqual(shown, ratios)
  const said = runtime.logged.filter(({ msg }) => msg !== 'evaluated').map((line) => without(line, 'time'))
  const pair = { source: 'frontend', destination: 'cart-service' }
  const moved = { level: 40, ...pair, msg: 'normal latency has moved away from the training data' }
  const fits = { level: 30, ...pair, msg: 'training data fits again' }
  assert.deepEqual(said, [
    { ...moved, driftRatio: 1.2, todo: 'record new training data' },
    { ...fits, driftRatio: 1.1 },
    { ...moved, driftRatio: 0.8, todo: 'record new training data' },
    { ...fits, driftRatio: 1 },
  ])
})

test('monitor: while the baseline is being fitted the verdict is warming, and nothing is judged', async () => {
  let ready: (watches: Watches) => void = () => undefined
  const fitting = new Promise<Watches>((resolve) => {
    ready = resolve
  })
  const { poll, exported } = monitored([answer(0, { 0.5: '400' }), answer(1, { 0.5: '400' })], { watches: fitting })
  assert.equal((await poll()).outcome, 'ok')
  assert.deepEqual(await exported(), {
    ...verdicts('warming'),
    [`lab7_requests_per_second{${PAIR}}`]: 5,
    [`lab7_anomalies_total{${PAIR}}`]: 0,
  })
  ready([{ quantile: 0.5, watch: TEN }])
  await fitting
  await poll()
  assert.equal((await exported())[`lab7_verdict{${PAIR},verdict="anomalous"}`], 1)
})

test('monitor: a baseline that could not be fitted ends the monitor with its error', async () => {
  const broken = Promise.reject<Watches>(new RangeError('no fit'))
  const { poll } = monitored([answer(0, { 0.5: '8' })], { watches: broken })
  await broken.catch(() => undefined)
  await assert.rejects(poll, { name: 'RangeError', message: 'no fit' })
})

test('monitor: a poll is over before the next slot, though Prometheus never answers', async () => {
  const { poll, runtime } = monitored([{ never: true }])
  const polled = poll()
  await runtime.clock.asleep()
  await runtime.clock.advance(4_000)
  assert.deepEqual(await polled, { outcome: 'timeout', detail: 'no complete answer within 4 s' })
})

test('monitor: a stop in the middle of a poll is not logged as trouble', async () => {
  const { poll, runtime } = monitored([{ never: true }])
  const polled = poll()
  await runtime.clock.asleep()
  runtime.stop()
  await polled
  assert.deepEqual(runtime.logged, [])
})

test('monitor: two pairs whose metric names would be the same cannot share a registry unnoticed', () => {
  const registry = new Registry()
  const runtime = fakeRuntime([])
  createMonitor(CONFIG, runtime, registry)
  assert.throws(() =>
    createMonitor({ ...CONFIG, pair: { source: 'frontend', destination: 'cart_service' } }, runtime, registry),
  )
})

test('monitor: Prometheus accepts the exposition, hostile names and all', { skip: noPromtool() }, async () => {
  const pair = { source: '購物.車/v2@x:1', destination: 'a-b' }
  const { poll, text } = monitored([answer(0, { 0.5: '8' })], { pair })
  await poll()
  assertPromtoolAccepts(await text())
})
