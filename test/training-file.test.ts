import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'

import { fitBaselines } from '../src/commands/models.js'
import { RecordingError } from '../src/core/errors.js'
import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import { readRecordingFile, warnOfRepairs } from '../src/io/training-file.js'
import { fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { packageRoot } from './helpers/package-root.js'
import { CALM_MS, recordingOf, T0, times } from './helpers/recordings.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

/** Reads and fits, as the monitor does at its start. */
function train(path: string): void {
  const recording = readRecordingFile(path, '--training-data-file')
  const fitted = fitBaselines(recording, {
    model: loadAndSeason.name,
    quantiles: [],
    what: `--training-data-file: ${path}`,
  })
  assert.ok(!(fitted instanceof Promise) && fitted.size > 0)
}

function refuses(path: string, reason: RegExp): void {
  assert.throws(
    () => train(path),
    (error: unknown) => {
      assert.ok(error instanceof RecordingError, String(error))
      const { message } = error
      assert.ok(message.startsWith(`--training-data-file: ${path}: `), message)
      assert.match(message, reason)
      assert.match(
        message,
        /; record a good one with: meshfever record --service1 A --service2 B .* --output FILE\.json$/,
      )
      assert.doesNotMatch(message, /\n/)
      assert.ok(message.length < 1_500, `a message of ${message.length} characters`)
      return true
    },
  )
}

const GOOD = recordingOf(CALM_MS)
const PLACE = 'data\\.result\\[0\\]'

/** A good recording with one sample replaced. */
function withSample(i: number, sample: unknown): string {
  const values: unknown[] = CALM_MS.map((value, k) => [T0 + 15 * k, String(value)])
  values[i] = sample
  return JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [{ metric: {}, values }] } })
}

for (const { name, content, reason } of [
  { name: 'an empty file', content: '', reason: /: the file is empty;/ },
  { name: 'a file of blanks', content: ' \n\t', reason: /: the file is empty;/ },
  {
    name: 'a truncated file',
    content: GOOD.slice(0, 200),
    reason: /: not JSON: (Unexpected end of JSON input|.* at position 200\b.*);/,
  },
  { name: 'garbage behind the answer', content: `${GOOD} x`, reason: /: not JSON: / },
  { name: 'two answers in one file', content: GOOD + GOOD, reason: /: not JSON: / },
  { name: 'a web page', content: '<!DOCTYPE html><html>', reason: /: not JSON: / },
  {
    name: 'no object',
    content: '[]',
    reason: /: not a saved query_range answer: expected an object, got an array of 0;/,
  },
  {
    name: 'another JSON',
    content: '{"a":1}',
    reason: /: not a saved query_range answer: status: expected "success", got nothing;/,
  },
  {
    name: 'a saved error',
    content: '{"status":"error","errorType":"bad_data","error":"parse error"}',
    reason: /: not a saved query_range answer: status is "error": "bad_data" parse error;/,
  },
  {
    name: 'an instant query answer',
    content: vectorAnswer([{ metric: {}, value: '1' }]),
    reason: /: data\.resultType: expected "matrix", got "vector";/,
  },
  {
    name: 'no series',
    content: matrixAnswer([]),
    reason: /: data\.result: expected at least one latency series, got none;/,
  },
  {
    name: 'a request rate alone',
    content: matrixAnswer([{ metric: { series: 'requests_per_second' }, values: [[T0, '1']] }]),
    reason: /: data\.result: expected at least one latency series, got none;/,
  },
  {
    name: 'several series',
    content: matrixAnswer(['a', 'b', 'c'].map((pod) => ({ metric: { pod }, values: [[T0, '1']] as const }))),
    reason: /: expected one latency series per quantile, got 3: \{"pod":"a"\}, \{"pod":"b"\}, \{"pod":"c"\};/,
  },
  {
    name: 'two request rates',
    content: matrixAnswer([
      { values: [[T0, '1']] },
      ...['a', 'b'].map((pod) => ({ metric: { series: 'requests_per_second', pod }, values: [[T0, '1']] as const })),
    ]),
    reason: /: expected one request rate at most, got 2;/,
  },
  {
    name: 'a quantile that is none',
    content: matrixAnswer([{ metric: { quantile: '50' }, values: [[T0, '1']] }]),
    reason: /: expected a quantile label between 0 and 1, got "50";/,
  },
  {
    name: 'a native histogram',
    content: JSON.stringify({
      status: 'success',
      data: { resultType: 'matrix', result: [{ metric: {}, histograms: [[T0, { count: '1' }]] }] },
    }),
    reason: new RegExp(`: ${PLACE}\\.histograms: expected float samples under "values", got native histograms;`),
  },
  {
    name: 'NaN throughout',
    content: recordingOf(CALM_MS.map(() => 'NaN')),
    reason: /: no finite value in 40 samples;/,
  },
  {
    name: 'infinity throughout',
    content: recordingOf(CALM_MS.map(() => '+Inf')),
    reason: /: no finite value in 40 samples;/,
  },
  {
    name: 'negative latencies',
    content: recordingOf(CALM_MS.map(() => '-5')),
    reason: /: no finite value in 40 samples;/,
  },
  {
    name: 'absurd latencies',
    content: recordingOf(CALM_MS.map(() => '1e308')),
    reason: /: no finite value in 40 samples;/,
  },
  {
    name: 'too few values',
    content: recordingOf(CALM_MS.slice(0, loadAndSeason.minSamples - 1)),
    reason: /: too few values to train load-and-season on: at least 30 needed, got 29, 1 more;/,
  },
  {
    name: 'times in milliseconds',
    content: recordingOf(CALM_MS, { startSeconds: T0 * 1000 }),
    reason: new RegExp(
      `: ${PLACE}\\.values\\[0\\]\\[0\\]: expected a unix time in seconds, got 1700000000000 \\(milliseconds\\?`,
    ),
  },
  {
    name: 'a negative time',
    content: withSample(7, [-1, '8']),
    reason: new RegExp(`${PLACE}\\.values\\[7\\]\\[0\\]: .*, got -1;`),
  },
  {
    name: 'a time of text',
    content: withSample(7, ['x', '8']),
    reason: new RegExp(`${PLACE}\\.values\\[7\\]\\[0\\]: .*, got "x";`),
  },
  ...["''", '"5ms"', '"0x10"', '" 5"', 'null', 'true', '[]', '8.19', '{}'].map((text) => {
    const value: unknown = text === "''" ? '' : (JSON.parse(text) as unknown)
    return {
      name: `a value of ${text}`,
      content: withSample(7, [T0, value]),
      reason: new RegExp(
        `: ${PLACE}\\.values\\[7\\]\\[1\\]: expected a number in a string such as "8\\.19" or "NaN", got `,
      ),
    }
  }),
  {
    name: 'a sample that is no pair',
    content: withSample(7, [T0]),
    reason: new RegExp(`${PLACE}\\.values\\[7\\]: expected \\[time, "value"\\], got an array of 1;`),
  },
  {
    name: 'a nesting 200,000 deep',
    content: `{"status":"success","data":${'['.repeat(200_000)}${']'.repeat(200_000)}}`,
    reason: /: data: expected an object, got an array of 1;/,
  },
]) {
  test(`training file: ${name} is refused, with the place and what to do`, (t) => {
    refuses(temporaryFile(t, content), reason)
  })
}

test('training file: a missing one, a folder and a compressed one are told apart', (t) => {
  const folder = temporaryFolder(t)
  refuses(join(folder, 'nope.json'), /: no such file;/)
  refuses(folder, /: not a regular file;/)
  refuses(temporaryFile(t, gzipSync(GOOD), 'f.json.gz'), /: gzip: unpack it first;/)
})

test('training file: one over the limit is refused by its size, before a byte is read', (t) => {
  const path = temporaryFile(t, '')
  truncateSync(path, 64 * 2 ** 20 + 1)
  refuses(path, /: expected at most 64 MiB, got 64\.0 MiB;/)
  truncateSync(path, 2 ** 40)
  refuses(path, /: expected at most 64 MiB, got 1048576\.0 MiB;/)
})

test('training file: a byte order mark, blanks and unknown keys are no matter', (t) => {
  const document = JSON.stringify(
    { meshfever: { pair: 1 }, ...(JSON.parse(GOOD) as object), warnings: ['x'], infos: [] },
    null,
    2,
  )
  const path = temporaryFile(t, `\ufeff\r\n${document.replaceAll('\n', '\r\n')}\r\n`)
  assert.deepEqual(readRecordingFile(path, 'F'), readRecordingFile(temporaryFile(t, GOOD), 'F'))
})

test('training file: keys called __proto__ do no harm', (t) => {
  const content = GOOD.replace(
    '"metric":{}',
    '"metric":{"__proto__":"polluted","constructor":"x"},"__proto__":{"polluted":1}',
  )
  train(temporaryFile(t, content))
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
})

test('training file: a constant series is good enough', (t) => {
  assert.doesNotThrow(() => train(temporaryFile(t, recordingOf(CALM_MS.map(() => 10)))))
})

test('training file: samples out of order are sorted, of two for one time the later in the file holds, and it is said', (t) => {
  const values = [
    [T0 + 30, '3'],
    [T0, '1'],
    [T0 + 15, '2'],
    [T0 + 15, '22'],
  ] as const
  const path = temporaryFile(t, matrixAnswer([{ values }]))
  const recording = readRecordingFile(path, 'F')
  const [series] = recording.series
  assert.deepEqual(
    [series?.timesSeconds, series?.latenciesMs],
    [
      [T0, T0 + 15, T0 + 30],
      [1, 22, 3],
    ],
  )
  assert.ok(recording.reordered > 0)
  const { logger, logged } = fakeRuntime([])
  warnOfRepairs(logger, recording, path)
  assert.deepEqual(
    logged.map(({ msg, path: named }) => [msg, named]),
    [['samples out of order or double were put right', path]],
  )
})

test('training file: NaN is a gap, what no latency can be is one too and is counted', (t) => {
  const path = temporaryFile(t, recordingOf(['8', 'NaN', '-1', '1e308', '+Inf', '0', '9']))
  const recording = readRecordingFile(path, 'F')
  assert.deepEqual(recording, {
    reordered: 0,
    rejected: 3,
    series: [
      {
        quantile: null,
        timesSeconds: times(7),
        latenciesMs: [8, NaN, NaN, NaN, NaN, 0, 9],
        requestsPerSecond: null,
      },
    ],
  })
  const { logger, logged } = fakeRuntime([])
  warnOfRepairs(logger, recording, path)
  assert.deepEqual(
    logged.map(({ msg, rejected }) => [msg, rejected]),
    [['values that no latency can have were read as missing', 3]],
  )
})

test('training file: quantiles come in rising order, each with the request rate at its times', (t) => {
  const at = times(3)
  const rate = {
    metric: { series: 'requests_per_second' },
    values: [
      [at[0]!, '5'],
      [at[2]!, '-1'],
    ] as const,
  }
  const quantile = (q: string, ms: number): Parameters<typeof matrixAnswer>[0][number] => ({
    metric: { quantile: q },
    values: at.map((time, i) => [time, String(ms + i)] as const),
  })
  const path = temporaryFile(t, matrixAnswer([rate, quantile('0.9', 90), quantile('0.5', 50)]))
  const requestsPerSecond = [5, NaN, NaN]
  assert.deepEqual(readRecordingFile(path, 'F').series, [
    { quantile: 0.5, timesSeconds: at, latenciesMs: [50, 51, 52], requestsPerSecond },
    { quantile: 0.9, timesSeconds: at, latenciesMs: [90, 91, 92], requestsPerSecond },
  ])
})

const PUBLIC = join(packageRoot(), '..', 'shared', 'bench', 'public')

test(
  'training file: every public recording loads, and every training recording trains',
  {
    skip: existsSync(PUBLIC) ? false : `no recordings at ${PUBLIC}`,
  },
  (t) => {
    const folder = temporaryFolder(t)
    let read = 0
    for (const set of readdirSync(PUBLIC)) {
      for (const name of readdirSync(join(PUBLIC, set)).filter((file) => file.endsWith('.json.gz'))) {
        const path = join(folder, 'recording.json')
        writeFileSync(path, gunzipSync(readFileSync(join(PUBLIC, set, name))))
        assert.doesNotThrow(
          () => (name.includes('.train.') ? train(path) : readRecordingFile(path, 'F')),
          `${set}/${name}`,
        )
        read++
      }
    }
    assert.ok(read > 0)
  },
)

test('training file: every recording of ours loads and trains', (t) => {
  const folder = join(packageRoot(), 'training')
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith('.json')) : []
  if (files.length === 0) t.skip(`no recordings in ${folder}`)
  for (const file of files) assert.doesNotThrow(() => train(join(folder, file)), file)
})
