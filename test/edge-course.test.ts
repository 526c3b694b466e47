import assert from 'node:assert/strict'
import test from 'node:test'

import { COURSE_SECONDS, edgeCourseQuery, readEdgeCourse } from '../src/core/edge-course.js'
import { checkPromql } from '../src/core/promql.js'
import { parseAnswer } from '../src/core/series.js'
import { queryInstantMatrix } from '../src/io/prometheus.js'
import { createHttp } from '../src/io/http-client.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { startFilledPrometheus } from './helpers/filled-prometheus.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'
import { selectorsOf } from './helpers/promql-parts.js'
import { noPromtool } from './helpers/promtool.js'

test('edge course: whatever an edge is called, its query asks for that edge and nothing else', () => {
  for (const name of HOSTILE_NAMES) {
    const query = edgeCourseQuery({ source: name, destination: `to ${name}` }, 15_000)
    checkPromql(query, name)
    const selectors = selectorsOf(query)
    assert.deepEqual(
      selectors.map(({ metric }) => metric),
      ['lab7_y', 'lab7_yhat', 'lab7_y_min', 'lab7_y_max', 'lab7_anomaly_score', 'lab7_verdict'],
    )
  }
  assert.match(edgeCourseQuery({ source: 'a', destination: 'b' }, 15_000), /\[1800s:15000ms\]$/)
  assert.match(edgeCourseQuery({ source: 'a', destination: 'b' }, 1_000), /\[1800s:5000ms\]$/)
})

test('edge course: without an answer there is nothing, and what is not asked for is not taken', () => {
  const empty = parseAnswer({ status: 'success', data: { resultType: 'matrix', result: [] } }, 'matrix')
  assert.deepEqual(readEdgeCourse(empty, [0.5]), {
    timesSeconds: [],
    verdicts: [],
    quantiles: [{ quantile: 0.5, yMs: [], yhatMs: [], yMinMs: [], yMaxMs: [], anomalous: [] }],
  })
})

test(
  'edge course: Prometheus tells what a monitor exported, with its gaps',
  { skip: noPromtool(), timeout: 60_000 },
  async (t) => {
    const pair = { source: 'a"b', destination: '購物車\\' }
    const nowSeconds = Math.floor(Date.now() / 15_000) * 15
    const times = [-45, -30, -15, 0].map((since) => nowSeconds + since)
    const series = (name: string, values: readonly number[], more: Readonly<Record<string, string>> = {}) => ({
      name,
      labels: { ...pair, ...more },
      samples: times.flatMap((time, i) => (values[i] === undefined ? [] : [[time, values[i]] as const])),
    })
    const p50 = { quantile: '0.5' }
    const other = { source: 'other', destination: 'edge' }
    const prometheus = await startFilledPrometheus([
      series('lab7_y', [9, 8.123456, 200, 210], p50),
      series('lab7_y', [5, 5, 5, 5], { quantile: '0.9' }),
      { ...series('lab7_y', [1, 1, 1, 1], p50), labels: { ...other, ...p50 } },
      series('lab7_yhat', [10, 10, 10, 10], p50),
      series('lab7_y_min', [5, 5, 5, 5], p50),
      series('lab7_y_max', [20, 20, 20, 20], p50),
      series('lab7_anomaly_score', [0, 0.1, 19, 20], p50),
      series('lab7_verdict', [1, 1, 0, 0], { verdict: 'ok' }),
      series('lab7_verdict', [0, 0, 1, 1], { verdict: 'anomalous' }),
    ])
    t.after(prometheus.stop)
    const runtime = { ...fakeRuntime([]), http: createHttp() }
    const query = edgeCourseQuery(pair, 15_000)
    const answer = await queryInstantMatrix(runtime, { prometheusUrl: prometheus.url, query, deadlineMs: 10_000 })
    assert.equal(answer.kind, 'answer')
    const course = readEdgeCourse(answer.data, [0.5, 0.99])
    const last = course.timesSeconds.findIndex((time) => time === nowSeconds)
    assert.ok(last >= 3 && course.timesSeconds[0]! > nowSeconds - COURSE_SECONDS - 60)
    const seen = <T>(column: readonly T[]): readonly T[] => column.slice(last - 3, last + 1)
    assert.deepEqual(seen(course.timesSeconds), times)
    assert.deepEqual(seen(course.verdicts), ['ok', 'ok', 'anomalous', 'anomalous'])
    const [half, absent] = course.quantiles
    assert.deepEqual(seen(half!.yMs), [9, 8.1235, 200, 210])
    assert.deepEqual(seen(half!.yhatMs), [10, 10, 10, 10])
    assert.deepEqual([seen(half!.yMinMs)[0], seen(half!.yMaxMs)[0]], [5, 20])
    assert.deepEqual(seen(half!.anomalous), [false, false, true, true])
    assert.deepEqual(seen(absent!.yMs), [null, null, null, null], 'a quantile that nobody exports is not another one')
  },
)
