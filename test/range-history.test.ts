import assert from 'node:assert/strict'
import test from 'node:test'

import { type HistoryChunk, type HistoryProgress, fetchHistory } from '../src/io/range-history.js'
import { matrixAnswer, without } from './helpers/fake-runtime.js'
import {
  apiError,
  evaluated,
  impatientRuntime,
  type MadeSeries,
  type RangeAsked,
  startRangePrometheus,
} from './helpers/fake-range-prometheus.js'
import { T0 } from './helpers/recordings.js'

const QUERY = 'some_latency'
/** Two series, the first by its labels there only late; values whose text a number would not keep. */
const SERIES: readonly MadeSeries[] = [
  { metric: { quantile: '0.5' }, at: (time) => (time >= T0 + 20_000 ? `${time % 97}.50` : undefined) },
  { metric: { series: 'requests_per_second' }, at: (time) => (time % 7 === 0 ? 'NaN' : '1e+01') },
]
/** 30,001 points: three chunks. */
const RANGE = { query: QUERY, startSeconds: T0, endSeconds: T0 + 30_000, stepSeconds: 1 }

const TOO_MANY_POINTS = apiError(
  400,
  'bad_data',
  'exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)',
)

function points({ start, end, step }: RangeAsked): number {
  return Math.round((Number(end) - Number(start)) / Number(step)) + 1
}

test('range history: what fits into one request is answered byte for byte', async (t) => {
  const answer =
    '{"status":"success", "data":{"result":[{"metric": {},"values":[[1700000000, "1.50"]]}],"resultType":"matrix"}}'
  const { url, asked } = await startRangePrometheus(t, () => answer)
  const endSeconds = T0 + 10_999
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, endSeconds, prometheusUrl: url })
  assert.ok(got.kind === 'answer')
  assert.equal(got.text, answer)
  assert.deepEqual(got.data.result[0]?.values, [1.5])
  assert.deepEqual(asked, [{ query: QUERY, start: String(T0), end: String(endSeconds), step: '1' }])
})

test('range history: a longer range is asked for in chunks, one after the other, and joined as one answer would be', async (t) => {
  let open = 0
  let most = 0
  const { url, asked } = await startRangePrometheus(t, (range) => (response) => {
    most = Math.max(most, ++open)
    setImmediate(() => {
      open--
      response.end(evaluated(SERIES, range))
    })
  })
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, prometheusUrl: url })
  assert.ok(got.kind === 'answer')
  assert.equal(got.text, evaluated(SERIES, { query: QUERY, start: String(T0), end: String(T0 + 30_000), step: '1' }))
  assert.deepEqual(
    got.data.result.map(({ timesSeconds }) => timesSeconds.length),
    [10_001, 30_001],
  )
  assert.deepEqual(
    asked.map(({ start, end }) => [Number(start) - T0, Number(end) - T0]),
    [
      [0, 10_999],
      [11_000, 21_999],
      [22_000, 30_000],
    ],
  )
  assert.equal(most, 1)
})

test('range history: steps of a tenth of a second lie where one request would have put them', async (t) => {
  const series = [{ metric: {}, at: (time: number) => String(Math.round(time * 10) % 10) }]
  const { url, asked } = await startRangePrometheus(t, (range) => evaluated(series, range))
  const range = { ...RANGE, startSeconds: T0 + 0.3, endSeconds: T0 + 1_500, stepSeconds: 0.1, prometheusUrl: url }
  const got = await fetchHistory(impatientRuntime(), range)
  assert.ok(got.kind === 'answer')
  assert.deepEqual(
    got.data.result[0]?.timesSeconds,
    Array.from({ length: 14_998 }, (_, i) => (T0 * 1000 + 300 + 100 * i) / 1000),
  )
  assert.deepEqual(
    asked.map(({ start }) => start),
    [`${T0}.3`, `${T0 + 1_100}.3`],
  )
})

for (const { name, most, refusal } of [
  { name: 'points', most: 5_000, refusal: TOO_MANY_POINTS },
  {
    name: 'samples',
    most: 3_000,
    refusal: apiError(422, 'execution', 'query processing would load too many samples into memory in query execution'),
  },
]) {
  test(`range history: a limit on ${name} halves the chunks until they pass, with the same answer`, async (t) => {
    const { url, asked } = await startRangePrometheus(t, (range) =>
      points(range) > most ? refusal : evaluated(SERIES, range),
    )
    const runtime = impatientRuntime()
    const got = await fetchHistory(runtime, { ...RANGE, prometheusUrl: url })
    assert.ok(got.kind === 'answer')
    assert.equal(got.text, evaluated(SERIES, { query: QUERY, start: String(T0), end: String(T0 + 30_000), step: '1' }))
    // 11,000 and 5,500, once each, and 2,750 from then on.
    assert.deepEqual(asked.map(points), [11_000, 5_500, ...Array<number>(10).fill(2_750), 2_501])
    assert.deepEqual(runtime.pausesMs, [0, 0])
  })
}

test('range history: a Prometheus that refuses a single point is asked no more', async (t) => {
  const { url, asked } = await startRangePrometheus(t, () => TOO_MANY_POINTS)
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, prometheusUrl: url })
  assert.ok(got.kind === 'failure')
  assert.match(got.detail, /^HTTP 400: bad_data: exceeded maximum resolution/)
  assert.deepEqual(asked.map(points).slice(-2), [2, 1])
  assert.equal(asked.length, 15)
})

test('range history: a chunk that fails is asked for again after a pause, and the next has as many tries', async (t) => {
  const failures = [503, 503, 200, 502, 503, 504, 200, 200]
  const { url, asked } = await startRangePrometheus(t, (range, index) =>
    failures[index] === 200 ? evaluated(SERIES, range) : { status: failures[index] ?? 500, body: 'no' },
  )
  const runtime = impatientRuntime()
  const got = await fetchHistory(runtime, { ...RANGE, prometheusUrl: url })
  assert.ok(got.kind === 'answer')
  assert.equal(got.text, evaluated(SERIES, { query: QUERY, start: String(T0), end: String(T0 + 30_000), step: '1' }))
  assert.equal(asked.length, 8)
  assert.deepEqual(runtime.pausesMs, [1_000, 3_000, 1_000, 3_000, 9_000])
  assert.deepEqual(without(runtime.logged[0], 'time'), {
    level: 40,
    outcome: 'http_5xx',
    detail: 'HTTP 503',
    pauseSeconds: 1,
    points: 11_000,
    msg: 'Prometheus did not answer, and is asked again',
  })
})

test('range history: after four tries it gives up, and says how often it asked', async (t) => {
  const { url, asked } = await startRangePrometheus(t, () => (response) => response.destroy())
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, prometheusUrl: url })
  assert.deepEqual(got, { kind: 'failure', outcome: 'conn', detail: 'socket hang up (asked 4 times)' })
  assert.equal(asked.length, 4)
})

test('range history: a query that takes Prometheus too long is asked for in halves, four times in all', async (t) => {
  const { url, asked } = await startRangePrometheus(t, () =>
    apiError(503, 'timeout', 'query timed out in expression evaluation'),
  )
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, prometheusUrl: url })
  assert.equal(got.kind, 'failure')
  assert.deepEqual(asked.map(points), [11_000, 5_500, 2_750, 1_375])
})

for (const { name, answer } of [
  { name: 'wrong credentials', answer: { status: 401, body: '' } },
  { name: 'a wrong path', answer: { status: 404, body: '' } },
  { name: 'a query that does not parse', answer: apiError(400, 'bad_data', 'invalid parameter "query": parse error') },
  { name: 'a page that is no answer', answer: '<html>Log in</html>' },
]) {
  test(`range history: ${name} will not be better a moment later`, async (t) => {
    const { url, asked } = await startRangePrometheus(t, () => answer)
    const runtime = impatientRuntime()
    const got = await fetchHistory(runtime, { ...RANGE, prometheusUrl: url })
    assert.equal(got.kind, 'failure')
    assert.equal(asked.length, 1)
    assert.deepEqual(runtime.pausesMs, [])
  })
}

test('range history: all chunks together are bounded', async (t) => {
  const long = `0.${'1'.repeat(7 * 2 ** 20)}`
  const { url, asked } = await startRangePrometheus(t, ({ start }) =>
    matrixAnswer([{ values: [[Number(start), long]] }]),
  )
  const endSeconds = T0 + 200_000
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, endSeconds, prometheusUrl: url })
  assert.deepEqual(got, {
    kind: 'failure',
    outcome: 'too_large',
    detail: 'more than 64 MiB: ask for a shorter range or a longer step',
  })
  assert.equal(asked.length, 10)
})

test('range history: what was fetched before is not asked for again, and the answer is the same', async (t) => {
  const { url, asked } = await startRangePrometheus(t, (range) => evaluated(SERIES, range))
  const chunks: HistoryChunk[] = []
  const told: HistoryProgress[] = []
  const request = { ...RANGE, prometheusUrl: url }
  const whole = await fetchHistory(impatientRuntime(), {
    ...request,
    onChunk: (chunk) => void chunks.push(chunk),
    onProgress: (progress) => void told.push(progress),
  })
  assert.deepEqual(
    chunks.map((chunk) => chunk.points),
    [11_000, 11_000],
    'the last chunk is part of the answer itself',
  )
  assert.deepEqual(
    told.map(({ donePoints, totalPoints, doneChunks, totalChunks }) => [
      donePoints,
      totalPoints,
      doneChunks,
      totalChunks,
    ]),
    [
      [0, 30_001, 0, 3],
      [11_000, 30_001, 1, 3],
      [22_000, 30_001, 2, 3],
      [30_001, 30_001, 3, 3],
    ],
  )
  const fetched = JSON.parse(JSON.stringify(chunks.slice(0, 1))) as HistoryChunk[]
  const rest = await fetchHistory(impatientRuntime(), { ...request, fetched })
  assert.ok(whole.kind === 'answer' && rest.kind === 'answer')
  assert.equal(rest.text, whole.text)
  assert.deepEqual(
    asked.slice(3).map(({ start }) => Number(start) - T0),
    [11_000, 22_000],
  )
})

test('range history: what Prometheus warned of is in the joined answer, once', async (t) => {
  const { url } = await startRangePrometheus(t, (range) =>
    JSON.stringify({ ...(JSON.parse(evaluated(SERIES, range)) as object), warnings: ['one store is away'] }),
  )
  const got = await fetchHistory(impatientRuntime(), { ...RANGE, prometheusUrl: url })
  assert.ok(got.kind === 'answer')
  assert.deepEqual((JSON.parse(got.text) as { warnings: unknown }).warnings, ['one store is away'])
  assert.equal(got.data.warnings, 1)
})

test('range history: after a stop nothing is asked any more, in a request and in a pause', async (t) => {
  const runtime = impatientRuntime()
  const { url, asked } = await startRangePrometheus(t, (range, index) => {
    if (index === 0) return evaluated(SERIES, range)
    return () => runtime.stop()
  })
  const stopped = { kind: 'failure', outcome: 'conn', detail: 'stopped while asking' }
  assert.deepEqual(await fetchHistory(runtime, { ...RANGE, prometheusUrl: url }), stopped)
  assert.equal(asked.length, 2)
  assert.deepEqual(await fetchHistory(runtime, { ...RANGE, prometheusUrl: url }), stopped)
  assert.equal(asked.length, 2)

  const pausing = impatientRuntime()
  const down = await startRangePrometheus(t, () => {
    setImmediate(() => pausing.stop())
    return { status: 503, body: '' }
  })
  const sleepy = { ...pausing, clock: { ...pausing.clock, sleep: impatientUntilStopped } }
  assert.deepEqual(await fetchHistory(sleepy, { ...RANGE, prometheusUrl: down.url }), stopped)
  assert.equal(down.asked.length, 1)
})

/** Never passes by itself. */
function impatientUntilStopped(_ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
