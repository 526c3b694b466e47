import assert from 'node:assert/strict'
import test from 'node:test'

import { type Expected, POLL_OUTCOMES, type Reading, readVector } from '../src/core/reading.js'
import { glimpse, parseAnswer, parseValue, ShapeError } from '../src/core/series.js'

const T = 1_700_000_000
const P50: Expected = { quantiles: [0.5], maxAgeSeconds: 45, lastTimestampSeconds: null }

interface Item {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly unknown[]
  readonly histogram?: readonly unknown[]
}

function latency(value: string, metric: Item['metric'] = { quantile: '0.5' }): Item {
  return { metric, value: [T, value] }
}
const rate = (value: string): Item => ({ metric: { series: 'requests_per_second' }, value: [T, value] })
const newest = (ageSeconds: number): Item => ({
  metric: { series: 'sample_timestamp_seconds' },
  value: [T, String(T - ageSeconds)],
})

function document(result: readonly unknown[], more: Readonly<Record<string, unknown>> = {}): unknown {
  // Through JSON, as it comes from outside.
  return JSON.parse(JSON.stringify({ status: 'success', data: { resultType: 'vector', result }, ...more }))
}

function read(
  result: readonly Item[],
  expected: Expected = P50,
  more: Readonly<Record<string, unknown>> = {},
): Reading {
  return readVector(parseAnswer(document(result, more), 'vector'), expected)
}

const FRESH = [rate('5'), newest(3)]

function sampleOf(
  latencyMs: number,
  more: { outcome?: 'ok' | 'warnings'; requestsPerSecond?: number | null } = {},
): Reading {
  const { outcome = 'ok', requestsPerSecond = 5 } = more
  const sample = { timestampSeconds: T, latencies: [{ quantile: 0.5, latencyMs }], requestsPerSecond }
  return { kind: 'sample', outcome, sample }
}

for (const { name, result, reading } of [
  { name: 'a fresh latency is a sample', result: [latency('8.19'), ...FRESH], reading: sampleOf(8.19) },
  { name: 'a latency of 0 is one', result: [latency('0'), ...FRESH], reading: sampleOf(0) },
  { name: 'minus zero is zero', result: [latency('-0'), ...FRESH], reading: sampleOf(-0) },
  { name: 'the smallest number is one', result: [latency('5e-324'), ...FRESH], reading: sampleOf(5e-324) },
  { name: 'the largest latency is one', result: [latency('1e+09'), ...FRESH], reading: sampleOf(1e9) },
  {
    name: 'a request rate that was not measured is unknown',
    result: [latency('8'), newest(3)],
    reading: sampleOf(8, { requestsPerSecond: null }),
  },
  {
    name: 'a request rate of NaN is unknown',
    result: [latency('8'), newest(3), rate('NaN')],
    reading: sampleOf(8, { requestsPerSecond: null }),
  },
  {
    name: 'a negative request rate is unknown',
    result: [latency('8'), newest(3), rate('-1')],
    reading: sampleOf(8, { requestsPerSecond: null }),
  },
  { name: 'the oldest sample that is fresh', result: [latency('8'), rate('5'), newest(45)], reading: sampleOf(8) },
  {
    name: 'labels called __proto__ and constructor do no harm',
    result: [
      {
        metric: JSON.parse('{"__proto__":"polluted","constructor":"x","toString":"y"}') as Item['metric'],
        value: [T, '8'],
      },
      ...FRESH,
    ],
    reading: sampleOf(8),
  },
]) {
  test(`reading: ${name}`, () => {
    assert.deepEqual(read(result), reading)
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
  })
}

for (const { name, result, outcome, detail } of [
  { name: 'no series at all', result: [], outcome: 'empty', detail: /no such series/ },
  { name: 'a request rate and no latency', result: FRESH, outcome: 'empty', detail: /no such series/ },
  { name: 'NaN', result: [latency('NaN'), ...FRESH], outcome: 'nonfinite', detail: /no requests/ },
  { name: '+Inf', result: [latency('+Inf'), ...FRESH], outcome: 'nonfinite', detail: /Infinity/ },
  { name: '-Inf', result: [latency('-Inf'), ...FRESH], outcome: 'nonfinite', detail: /-Infinity/ },
  {
    name: 'a number beyond all numbers',
    result: [latency('1e999'), ...FRESH],
    outcome: 'nonfinite',
    detail: /Infinity/,
  },
  { name: 'a negative latency', result: [latency('-5'), ...FRESH], outcome: 'out_of_domain', detail: /-5 ms/ },
  { name: '1e308', result: [latency('1e+308'), ...FRESH], outcome: 'out_of_domain', detail: /1e\+308 ms/ },
  {
    name: 'two series for one quantile',
    result: [latency('8', { quantile: '0.5', pod: 'a' }), latency('9', { quantile: '0.5', pod: 'b' }), ...FRESH],
    outcome: 'multi',
    detail: /2 series where one was expected/,
  },
  {
    name: 'two series of a query of one’s own',
    result: [latency('8', { pod: 'a' }), latency('9', { pod: 'b' }), ...FRESH],
    outcome: 'multi',
    detail: /2 series/,
  },
  {
    name: 'a native histogram',
    result: [{ metric: {}, histogram: [T, { count: '5', sum: '3.5', buckets: [[0, '0.5', '1', '1']] }] }, ...FRESH],
    outcome: 'histogram',
    detail: /native histogram/,
  },
  {
    name: 'a native histogram beside a number',
    result: [{ metric: {}, histogram: [T, { count: '5' }] }, latency('8'), ...FRESH],
    outcome: 'histogram',
    detail: /native histogram/,
  },
  {
    name: 'a value 45.1 s old',
    result: [latency('8'), rate('5'), newest(45.1)],
    outcome: 'stale',
    detail: /45\.1 s old, more than 45 s/,
  },
  {
    name: 'a value frozen for an hour',
    result: [latency('8'), newest(3600)],
    outcome: 'stale',
    detail: /3600\.0 s old/,
  },
  {
    name: 'a value of unknown age',
    result: [latency('8'), rate('5')],
    outcome: 'stale',
    detail: /no sidecar is scraped/,
  },
  {
    name: 'a sample time of NaN',
    result: [latency('8'), { metric: { series: 'sample_timestamp_seconds' }, value: [T, 'NaN'] }],
    outcome: 'stale',
    detail: /NaN s old/,
  },
  {
    name: 'a quantile nobody asked for',
    result: [latency('8', { quantile: '0.9' }), ...FRESH],
    outcome: 'nonfinite',
    detail: /no requests/,
  },
] as const) {
  test(`reading: ${name} is missing (${outcome}), not 0 and not ok`, () => {
    const reading = read(result as readonly Item[])
    const told = reading.kind === 'missing' ? reading.detail : 'a sample'
    assert.match(told, detail)
    assert.equal(reading.outcome, outcome)
  })
}

test('reading: no latency for want of requests keeps the rate that says so', () => {
  assert.deepEqual(read([latency('NaN'), rate('0'), newest(3)]), {
    kind: 'missing',
    outcome: 'nonfinite',
    detail: 'no requests in the window',
    timestampSeconds: T,
    requestsPerSecond: 0,
  })
})

for (const { name, lastTimestampSeconds, kind } of [
  { name: 'the same evaluation again is not taken twice', lastTimestampSeconds: T, kind: 'missing' },
  { name: 'an evaluation before the last is not taken', lastTimestampSeconds: T + 30, kind: 'missing' },
  { name: 'a later evaluation is taken', lastTimestampSeconds: T - 0.001, kind: 'sample' },
]) {
  test(`reading: ${name}`, () => {
    const reading = read([latency('8'), ...FRESH], { ...P50, lastTimestampSeconds })
    assert.deepEqual([reading.kind, reading.outcome], [kind, kind === 'sample' ? 'ok' : 'stale'])
  })
}

test('reading: a query of one’s own needs neither a quantile label nor an age', () => {
  const own: Expected = { quantiles: [0.9], maxAgeSeconds: null, lastTimestampSeconds: null }
  assert.deepEqual(read([latency('8', { le: 'x' })], own), {
    kind: 'sample',
    outcome: 'ok',
    sample: { timestampSeconds: T, latencies: [{ quantile: 0.9, latencyMs: 8 }], requestsPerSecond: null },
  })
})

test('reading: two quantiles come in the order in which they are scored; one of NaN is left out', () => {
  const both: Expected = { ...P50, quantiles: [0.5, 0.9] }
  const p90 = latency('80', { quantile: '0.9' })
  const latencies = (reading: Reading): unknown => (reading.kind === 'sample' ? reading.sample.latencies : reading)
  assert.deepEqual(latencies(read([p90, latency('8'), ...FRESH], both)), [
    { quantile: 0.5, latencyMs: 8 },
    { quantile: 0.9, latencyMs: 80 },
  ])
  assert.deepEqual(latencies(read([p90, latency('NaN'), ...FRESH], both)), [{ quantile: 0.9, latencyMs: 80 }])
  // Without a label it cannot be told which of the two it is.
  assert.equal(read([latency('8', {}), ...FRESH], both).outcome, 'nonfinite')
})

test('reading: an answer with warnings is used and counted as such; an empty one stays empty', () => {
  const warnings = { warnings: ['remote_read: connection refused'] }
  assert.deepEqual(read([latency('8'), ...FRESH], P50, warnings), sampleOf(8, { outcome: 'warnings' }))
  assert.equal(read([], P50, warnings).outcome, 'empty')
  assert.equal(read([latency('8'), ...FRESH], P50, { infos: ['x'], warnings: 'none', more: 1 }).outcome, 'ok')
})

for (const { text, value } of [
  { text: '8.1875', value: 8.1875 },
  { text: '-5', value: -5 },
  { text: '+5', value: 5 },
  { text: '.5', value: 0.5 },
  { text: '5.', value: 5 },
  { text: '1e-7', value: 1e-7 },
  { text: '1E+3', value: 1000 },
  { text: '9007199254740993', value: 9007199254740992 },
  { text: 'NaN', value: NaN },
  { text: '+Inf', value: Infinity },
  { text: 'Inf', value: Infinity },
  { text: '-Inf', value: -Infinity },
  { text: '', value: undefined },
  { text: ' ', value: undefined },
  { text: ' 5', value: undefined },
  { text: '5ms', value: undefined },
  { text: '0x10', value: undefined },
  { text: '1_000', value: undefined },
  { text: 'nan', value: undefined },
  { text: 'Infinity', value: undefined },
  { text: 'null', value: undefined },
  { text: 5, value: undefined },
  { text: null, value: undefined },
  { text: true, value: undefined },
  { text: [], value: undefined },
  { text: ['5'], value: undefined },
  { text: undefined, value: undefined },
]) {
  test(`sample value: ${JSON.stringify(text)} is ${value === undefined ? 'refused' : String(value)}`, () => {
    assert.equal(parseValue(text), value)
  })
}

const good = [{ metric: {}, value: [T, '8'] }]

for (const { name, given, kind, message } of [
  { name: 'no object', given: [], kind: 'bad_shape', message: 'expected an object, got an array of 0' },
  { name: 'null', given: null, kind: 'bad_shape', message: 'expected an object, got null' },
  { name: 'no status', given: {}, kind: 'bad_shape', message: 'status: expected "success", got nothing' },
  {
    name: 'an error',
    given: { status: 'error', errorType: 'bad_data', error: 'parse error' },
    kind: 'api_error',
    message: 'status is "error": "bad_data" parse error',
  },
  {
    name: 'no data',
    given: { status: 'success', data: null },
    kind: 'bad_shape',
    message: 'data: expected an object, got null',
  },
  {
    name: 'a scalar',
    given: { status: 'success', data: { resultType: 'scalar', result: [T, '1'] } },
    kind: 'wrong_type',
    message: 'data.resultType: expected "vector", got "scalar"',
  },
  {
    name: 'a string',
    given: { status: 'success', data: { resultType: 'string', result: [T, 'abc'] } },
    kind: 'wrong_type',
    message: 'data.resultType: expected "vector", got "string"',
  },
  {
    name: 'a matrix',
    given: { status: 'success', data: { resultType: 'matrix', result: [] } },
    kind: 'wrong_type',
    message: 'data.resultType: expected "vector", got "matrix"',
  },
  {
    name: 'a result that is no array',
    given: { status: 'success', data: { resultType: 'vector', result: {} } },
    kind: 'bad_shape',
    message: 'data.result: expected an array, got an object',
  },
  {
    name: 'a result of null',
    given: document([null]),
    kind: 'bad_shape',
    message: 'data.result[0]: expected an object, got null',
  },
  {
    name: 'no labels',
    given: document([...good, { value: [T, '8'] }]),
    kind: 'bad_shape',
    message: 'data.result[1].metric: expected an object, got nothing',
  },
  {
    name: 'a label that is no text',
    given: document([{ metric: { a: 1 }, value: [T, '8'] }]),
    kind: 'bad_shape',
    message: 'data.result[0].metric: expected texts, got 1 for "a"',
  },
  {
    name: 'no value',
    given: document([{ metric: {} }]),
    kind: 'bad_shape',
    message: 'data.result[0].value: expected [time, "value"], got nothing',
  },
  {
    name: 'an empty value',
    given: document([{ metric: {}, value: [] }]),
    kind: 'bad_shape',
    message: 'data.result[0].value: expected [time, "value"], got an array of 0',
  },
  {
    name: 'a time of text',
    given: document([{ metric: {}, value: ['x', '8'] }]),
    kind: 'bad_shape',
    message: 'data.result[0].value[0]: expected a unix time in seconds, got "x"',
  },
  {
    name: 'a value that is a number and not a text',
    given: document([{ metric: {}, value: [T, 8] }]),
    kind: 'bad_shape',
    message: 'data.result[0].value[1]: expected a number in a string such as "8.19" or "NaN", got 8',
  },
  {
    name: 'an empty text',
    given: document([{ metric: {}, value: [T, ''] }]),
    kind: 'bad_shape',
    message: 'data.result[0].value[1]: expected a number in a string such as "8.19" or "NaN", got ""',
  },
  {
    name: 'a value of null',
    given: document([{ metric: {}, value: [T, null] }]),
    kind: 'bad_shape',
    message: 'data.result[0].value[1]: expected a number in a string such as "8.19" or "NaN", got null',
  },
  {
    name: 'milliseconds for seconds',
    given: document([{ metric: {}, value: [T * 1000, '8'] }]),
    kind: 'bad_shape',
    message:
      'data.result[0].value[0]: expected a unix time in seconds, got 1700000000000 (milliseconds? Prometheus gives seconds)',
  },
] as const) {
  test(`answer: ${name} is ${kind}, with the place`, () => {
    assert.throws(
      () => parseAnswer(given, 'vector'),
      (error: unknown) => {
        assert.ok(error instanceof ShapeError)
        assert.deepEqual([error.kind, error.message], [kind, message])
        return true
      },
    )
  })
}

test('answer: what is unexpected is shown briefly and never walked into', () => {
  const deep = '['.repeat(200_000) + ']'.repeat(200_000)
  assert.throws(() => parseAnswer(JSON.parse(`{"status":"success","data":${deep}}`), 'vector'), {
    message: 'data: expected an object, got an array of 1',
  })
  assert.equal(glimpse('x'.repeat(1_000_000)).length, 40)
  const words = { status: 'error', errorType: 'x'.repeat(9_999), error: 'y'.repeat(9_999) }
  assert.throws(
    () => parseAnswer(words, 'vector'),
    (error: unknown) => error instanceof ShapeError && error.message.length < 300,
  )
})

test('reading: every kind of missing is a known outcome', () => {
  assert.equal(new Set(POLL_OUTCOMES).size, POLL_OUTCOMES.length)
})
