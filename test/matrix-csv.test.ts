import assert from 'node:assert/strict'
import { test } from 'node:test'

import { matrixCsv } from '../src/core/matrix-csv.js'
import { parseAnswer } from '../src/core/series.js'
import { matrixAnswer } from './helpers/fake-runtime.js'

function csv(...result: Parameters<typeof matrixAnswer>[0]): readonly string[] {
  return matrixCsv(parseAnswer(JSON.parse(matrixAnswer(result)), 'matrix')).split('\n')
}

test('csv: a row for each time, a column for each series, empty where it has nothing', () => {
  assert.deepEqual(
    csv(
      {
        metric: { quantile: '0.5' },
        values: [
          [100, '8.5'],
          [115, 'NaN'],
        ],
      },
      {
        metric: { series: 'requests_per_second' },
        values: [
          [107.5, '0'],
          [115, '+Inf'],
        ],
      },
    ),
    [
      'time_seconds,"{quantile=""0.5""}","{series=""requests_per_second""}"',
      '100,8.5,',
      '107.5,,0',
      '115,NaN,+Inf',
      '',
    ],
  )
})

test('csv: a series is named as Prometheus writes it, whatever its labels hold', () => {
  const [head] = csv(
    { metric: { __name__: 'lab7_y', b: 'x,"y"', a: '1' }, values: [[1, '2']] },
    { metric: { __name__: 'up' }, values: [[1, '1']] },
  )
  assert.equal(head, 'time_seconds,"lab7_y{a=""1"",b=""x,\\""y\\""""}",up')
})

test('csv: nothing is a head alone', () => {
  assert.deepEqual(csv(), ['time_seconds', ''])
})
