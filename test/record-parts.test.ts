import assert from 'node:assert/strict'
import test from 'node:test'

import { readFlags, timeFlag } from '../src/commands/flags.js'
import { recordCommand } from '../src/commands/record.js'
import { INCIDENT_NOW_QUERY, incidentSpans, incidentTimesQuery } from '../src/core/incident-spans.js'
import { meshPairsOf, meshPairsQuery } from '../src/core/mesh-pairs.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { pairFileNames } from '../src/core/pair-file-names.js'
import { checkPromql } from '../src/core/promql.js'
import { inSpans, joinedAnswer, rangeAnswerOf, resultText, withoutSpans } from '../src/core/range-answer.js'
import { parseAnswer } from '../src/core/series.js'
import { createProgress } from '../src/io/progress.js'
import { fakeRuntime, matrixAnswer } from './helpers/fake-runtime.js'
import { T0 } from './helpers/recordings.js'

const answerOf = (...args: Parameters<typeof matrixAnswer>): ReturnType<typeof rangeAnswerOf> =>
  rangeAnswerOf(JSON.parse(matrixAnswer(...args)))

for (const { text, seconds } of [
  { text: 'now', seconds: T0 },
  { text: '-7d', seconds: T0 - 7 * 86_400 },
  { text: '-1h30m', seconds: T0 - 5_400 },
  { text: '1600000000', seconds: 1_600_000_000 },
  { text: '1600000000.25', seconds: 1_600_000_000.25 },
  { text: '2024-02-29T12:00:00Z', seconds: 1_709_208_000 },
  { text: '2024-02-29t14:00:00.5+02:00', seconds: 1_709_208_000.5 },
]) {
  test(`time flag: ${text} is a time`, () => {
    const time = timeFlag(text, '--from')
    assert.equal(time(T0), seconds)
    const moves = text === 'now' || text.startsWith('-')
    assert.equal(time(T0 + 10), seconds + (moves ? 10 : 0))
  })
}

for (const text of [
  ...[
    '',
    ' ',
    'yesterday',
    '7d',
    '-7',
    '-',
    '-0s',
    '-7x',
    '- 7d',
    '+7d',
    'now-7d',
    '1e9',
    '160000000',
    '1600000000000',
  ],
  ...['2024-02-29', '2024-02-29T12:00:00', '2023-02-29T12:00:00Z', '2024-04-31T12:00:00Z', '2024-02-29T25:00:00Z'],
  ...['2024-02-29T12:00Z', '2024-13-01T12:00:00Z', '2024-02-29 12:00:00Z', '１６００００００００'],
]) {
  test(`time flag: ${JSON.stringify(text)} is none, and the message says what is`, () => {
    assert.throws(() => timeFlag(text, '--from'), {
      name: 'UsageError',
      message: `--from must be a time: unix seconds, RFC 3339 such as 2026-01-31T12:00:00Z, now, or before now such as -7d, got ${JSON.stringify(text)}`,
    })
  })
}

/** Prepares the command without running it. */
function prepared(given: Readonly<Record<string, string | readonly string[]>>): unknown {
  const all = { 'prometheus-url': 'http://p:9090', output: 'o', ...given }
  const texts = new Map(
    Object.entries(all).map(([name, text]) => [
      name,
      { texts: typeof text === 'string' ? [text] : text, name: `--${name}` },
    ]),
  )
  readFlags(recordCommand.flags, texts)
  return recordCommand.prepare(texts, [])
}

for (const { given, message } of [
  {
    given: {},
    message:
      'what to record must be said in one way, --service1 and --service2, or --pair, or --all-pairs, got none of them',
  },
  {
    given: { service1: 'a', service2: 'b', pair: 'a:b' },
    message:
      'what to record must be said in one way, --service1 and --service2, or --pair, or --all-pairs, got --service1 or --service2 and --pair',
  },
  {
    given: { pair: 'a:b', 'all-pairs': 'true' },
    message:
      'what to record must be said in one way, --service1 and --service2, or --pair, or --all-pairs, got --pair and --all-pairs',
  },
  { given: { service1: 'a' }, message: '--service2 is required with --service1: destination service, the callee' },
  { given: { service2: 'a' }, message: '--service1 is required with --service2: source service, the caller' },
  { given: { pair: ['a:b', 'c:d', 'a:b'] }, message: '--pair must name each pair once, got a:b, c:d, a:b' },
  { given: { pair: 'a' }, message: '--pair must be SOURCE:DESTINATION, got "a"' },
  { given: { pair: 'a:b:c' }, message: '--pair must be SOURCE:DESTINATION, got "a:b:c"' },
  {
    given: { pair: 'a:b"}' },
    message:
      '--pair "a:b\\"}": the destination must be a service name (1 to 253 letters, digits or any of _ . : / @ -), got "b\\"}"',
  },
  {
    given: { pair: 'a:b', from: '-1h', range: '1h' },
    message: '--range and --from must not be given together: each says where the range begins',
  },
  {
    given: { pair: 'a:b', quantile: ['0.5,0.9', '0.9'] },
    message: '--quantile names a quantile twice, got 0.5, 0.9, 0.9',
  },
  {
    given: { pair: 'a:b', 'step-seconds': '0.1234' },
    message: '--step-seconds must be whole milliseconds, got 0.1234',
  },
] as const) {
  test(`record: ${JSON.stringify(given)} is refused before anything is asked`, () => {
    assert.throws(() => prepared(given), { name: 'UsageError', message })
  })
}

test('record: --all-pairs, one pair by its services, and several pairs are each a way to say what to record', () => {
  for (const given of [
    { 'all-pairs': 'true' },
    { service1: 'a', service2: 'b' },
    { pair: ['a:b', 'c:d'] },
    { pair: 'a:b' },
  ]) {
    assert.doesNotThrow(() => prepared(given))
  }
})

test('incident spans: heat and one rate window behind it, those that touch as one', () => {
  const options = { stepSeconds: 15, windowSeconds: 60, startSeconds: T0, endSeconds: T0 + 3_600 }
  const spans = (hot: readonly number[]): readonly (readonly [number, number])[] =>
    incidentSpans(
      hot.map((offset) => T0 + offset),
      options,
    ).map(({ fromSeconds, toSeconds }) => [fromSeconds - T0, toSeconds - T0])
  assert.deepEqual(spans([]), [])
  assert.deepEqual(spans([300]), [[300, 360]])
  assert.deepEqual(spans([300, 315, 330]), [[300, 390]])
  // 375 is the sample after the first span; 390 would leave that one between two spans.
  assert.deepEqual(spans([300, 375]), [[300, 435]])
  assert.deepEqual(spans([300, 390]), [
    [300, 360],
    [390, 450],
  ])
  // Before the range and behind it, as far as it matters to the samples in it.
  assert.deepEqual(spans([-75, -60, 3_600, 3_615]), [
    [0, 0],
    [3_600, 3_600],
  ])
  assert.deepEqual(spans([-75]), [])
})

test('incident spans: the queries are PromQL, and look back over the whole step', () => {
  checkPromql(INCIDENT_NOW_QUERY, 'the query')
  checkPromql(incidentTimesQuery(0.5), 'the query')
  assert.match(incidentTimesQuery(0.5), /max\(max_over_time\(lab7_incident_severity\[500ms\]\)\) > 0/)
})

test('spans: both ends belong to them', () => {
  const spans = [10, 30, 50].map((from) => ({ fromSeconds: from, toSeconds: from + 5 }))
  const inside = Array.from({ length: 70 }, (_, i) => i).filter((time) => inSpans(spans, time))
  assert.deepEqual(inside, [...[10, 11, 12, 13, 14, 15], ...[30, 31, 32, 33, 34, 35], ...[50, 51, 52, 53, 54, 55]])
  assert.equal(inSpans([], 1), false)
})

test('range answer: values are cut out as they stand, and a series without any goes', () => {
  const answer = answerOf([
    {
      metric: { quantile: '0.5' },
      values: [
        [1, '1.50'],
        [2, 'NaN'],
        [3, '1e-5'],
        [4, '4'],
      ],
    },
    {
      metric: { quantile: '0.9' },
      values: [
        [2, '2'],
        [3, '3'],
      ],
    },
  ])
  assert.deepEqual(withoutSpans(answer, [{ fromSeconds: 2, toSeconds: 3 }]).result, [
    {
      metric: { quantile: '0.5' },
      values: [
        [1, '1.50'],
        [4, '4'],
      ],
    },
  ])
})

test('range answer: parts are joined by their labels, whatever their order, sorted as Prometheus sorts', () => {
  const joined = joinedAnswer([
    answerOf([
      { metric: { b: '1', a: '2' }, values: [[1, '1']] },
      { metric: { a: '10' }, values: [[1, '5']] },
    ]),
    answerOf([
      { metric: { a: '1', b: '9' }, values: [[2, '7']] },
      { metric: {}, values: [[2, '0']] },
      { metric: { a: '2', b: '1' }, values: [[2, '2']] },
    ]),
  ])
  assert.deepEqual(
    joined.result.map(({ metric, values }) => [metric, values]),
    [
      [{}, [[2, '0']]],
      [{ a: '1', b: '9' }, [[2, '7']]],
      [{ a: '10' }, [[1, '5']]],
      [
        { b: '1', a: '2' },
        [
          [1, '1'],
          [2, '2'],
        ],
      ],
    ],
  )
})

test('range answer: the result is found in any text that holds one', () => {
  const metric = { 'a]': '["result"] \\" ]' }
  const result = JSON.stringify([{ metric, values: [[1, '2']] }])
  const before = `{"status":"success","data":{"resultType":"matrix","result":`
  assert.equal(resultText(`${before}${result}},"warnings":["[a]"]}`), result)
  assert.equal(resultText(`${before.replace('"data"', '"warnings":["]"],"data"')} ${result}}}`), result)
  assert.equal(resultText('{"status":"success"}'), '')
})

test('mesh pairs: sorted, without those that Istio does not know, which are told apart', () => {
  const labels = { sourceLabel: 'source_app', destinationLabel: 'destination_app' }
  checkPromql(meshPairsQuery(labels, 300), 'the query')
  const series = (metric: Readonly<Record<string, string>>): { metric: typeof metric; values: [number, string][] } => ({
    metric,
    values: [[T0, '1']],
  })
  const matrix = parseAnswer(
    JSON.parse(
      matrixAnswer([
        series({ source_app: 'b', destination_app: 'a' }),
        series({ source_app: 'a', destination_app: 'c' }),
        series({ source_app: 'a', destination_app: 'b' }),
        series({ source_app: 'unknown', destination_app: 'b' }),
        series({ source_app: 'a', destination_app: 'unknown' }),
        series({ source_app: 'a' }),
        series({ destination_app: 'a' }),
        series({ source_app: 'unknown-service', destination_app: 'b' }),
      ]),
    ),
    'matrix',
  )
  const names = (pairs: readonly Pair[]): readonly string[] =>
    pairs.map(({ source, destination }) => `${source}>${destination}`)
  const { known, unknown } = meshPairsOf(matrix, labels)
  assert.deepEqual(names(known), ['a>b', 'a>c', 'b>a', 'unknown-service>b'])
  assert.deepEqual(names(unknown), ['>a', 'a>', 'a>unknown', 'unknown>b'])
})

test('pair file names: plain names as they are, hostile ones without what a path or a shell could mistake', () => {
  const pairs = [
    ['frontend', 'cart-service.shop_v2'],
    ['../../etc', 'passwd'],
    ['..', '.hidden'],
    ['a/b', 'c\\d'],
    ['a b', '*;$(rm)`~\'"'],
    ['\u0000\n', '\u001b[31m'],
    ['a%2Fb', 'c%5Cd'],
    ['\ud800', 'é'],
  ].map(([source = '', destination = '']) => ({ source, destination }))
  const names = pairFileNames(pairs)
  assert.deepEqual(
    pairs.map((pair) => names.get(pairKey(pair))),
    [
      'frontend-cart-service.shop_v2.json',
      '%2E.%2F..%2Fetc-passwd.json',
      '%2E.-%2Ehidden.json',
      'a%2Fb-c%5Cd.json',
      'a%20b-%2A%3B%24%28rm%29%60%7E%27%22.json',
      '%00%0A-%1B%5B31m.json',
      'a%252Fb-c%255Cd.json',
      '%EF%BF%BD-%C3%A9.json',
    ],
  )
})

test('pair file names: pairs that would share a name do not, whatever their order', () => {
  const long = 'x'.repeat(250)
  const pairs = [
    ['a-b', 'c'],
    ['a', 'b-c'],
    ['A', 'b-c'],
    ['a', 'b-c~2'],
    ['a-B', 'c'],
    [long, 'a'],
    [long, 'b'],
  ].map(([source = '', destination = '']) => ({ source, destination }))
  const names = pairFileNames(pairs)
  assert.deepEqual(
    pairs.map((pair) => names.get(pairKey(pair))?.replace(/x+/, 'x')),
    ['a-b-c~4.json', 'a-b-c~2.json', 'A-b-c.json', 'a-b-c%7E2.json', 'a-B-c~3.json', 'x.json', 'x~2.json'],
  )
  assert.equal(names.get(pairKey(pairs[5]!))?.length, 205)
  assert.deepEqual([...pairFileNames([...pairs].reverse())].sort(), [...names].sort())
})

test('progress: the time that is left follows from what this run fetched, not from what an earlier one had', async () => {
  const runtime = fakeRuntime([])
  const written: string[] = []
  const stdout = { isTerminal: true, write: (text: string) => Promise.resolve(void written.push(text)) }
  const progress = createProgress({ ...runtime, stdout }, 1)
  const chunks = { totalPoints: 40_000, totalChunks: 4 }
  await progress.update(0, { ...chunks, donePoints: 20_000, doneChunks: 2 })
  await runtime.clock.advance(3_700_000)
  await progress.update(0, { ...chunks, donePoints: 30_000, doneChunks: 3 })
  assert.deepEqual(
    written.map((text) => text.replaceAll('\r', '').slice('\u001b[K'.length)),
    ['[##########----------]  50 %  2/4 chunks', '[###############-----]  75 %  3/4 chunks  1:01:40 left'],
  )
})
