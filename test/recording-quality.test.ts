import assert from 'node:assert/strict'
import test from 'node:test'

import type { Recording } from '../src/core/recording.js'
import { qualityLines, type RecordedRange, recordingQuality } from '../src/core/recording-quality.js'
import { DAY_SECONDS } from './helpers/streams.js'

/** A multiple of a day. */
const MIDNIGHT = 19_676 * DAY_SECONDS

interface Made {
  /** Seconds. */
  readonly length: number
  readonly step?: number
  /** Milliseconds by the sample's index, NaN for no request, null for no sample. */
  readonly ms?: (i: number) => number | null
  readonly rps?: ((i: number) => number) | null
  readonly leftOut?: RecordedRange['leftOut']
  readonly startSeconds?: number
  readonly quantile?: number | null
}

/** Five values in turn: the median is 8, and one of five lies outside of the bucket from 5 to 10 ms. */
const calm = (i: number): number => [7, 8, 9, 11, 8][i % 5]!

function made(options: Made): { readonly recording: Recording; readonly range: RecordedRange } {
  const { length, step = 15, ms = calm, rps = () => 5, leftOut = [], startSeconds = MIDNIGHT, quantile = 0.5 } = options
  const kept = Array.from({ length: length / step + 1 }, (_, i) => i).filter((i) => ms(i) !== null)
  const series = {
    quantile,
    timesSeconds: kept.map((i) => startSeconds + i * step),
    latenciesMs: kept.map((i) => ms(i) ?? NaN),
    requestsPerSecond: rps === null ? null : kept.map(rps),
  }
  return {
    recording: { series: [series], reordered: 0, rejected: 0 },
    range: { startSeconds, endSeconds: startSeconds + length, stepSeconds: step, leftOut },
  }
}

function qualityOf(options: Made): ReturnType<typeof recordingQuality> {
  const { recording, range } = made(options)
  return recordingQuality(recording, range)
}

test('recording quality: an hour of calm traffic is good, and the sentence says what it does not show', () => {
  assert.deepEqual(qualityOf({ length: 3_600, rps: (i) => (i === 7 ? 0.05 : 2 + (i % 3)) }), {
    series: [
      {
        quantile: 0.5,
        samples: 241,
        gaps: { count: 0, longestSeconds: 0 },
        nanShare: 0,
        medianMs: 8,
        driftRatio: 1,
        distinctValues: 4,
        bucket: { lowerMs: 5, upperMs: 10, share: 193 / 241 },
      },
    ],
    traffic: { median: 3, min: 0.05, max: 4, lowShare: 1 / 241, driftRatio: 1 },
    // Five minutes each, and the first sample of the hour after.
    dayCoverage: 13 / 288,
    goodToTrainOn: true,
    summary:
      'Good enough to train load-and-season on; it shows 4.51 % of the day, and with --range 1d or more the time of day is learnt, too.',
  })
})

test('recording quality: two days are good without a remark', () => {
  const { summary, dayCoverage } = qualityOf({ length: 2 * DAY_SECONDS, step: 60 })
  assert.deepEqual([summary, dayCoverage], ['Good enough to train load-and-season on.', 1])
})

test('recording quality: with a step of half an hour the day is seen when each half hour is', () => {
  assert.equal(qualityOf({ length: 3 * DAY_SECONDS, step: 1_800 }).dayCoverage, 1)
  assert.equal(qualityOf({ length: 3 * DAY_SECONDS, step: 1_800, ms: (i) => (i % 48 < 24 ? 8 : NaN) }).dayCoverage, 0.5)
})

test('recording quality: gaps are runs of times without a sample, at either end, too', () => {
  const missing = new Set([0, 1, 50, 100, 101, 102, 103, 240])
  const [series] = qualityOf({ length: 3_600, ms: (i) => (missing.has(i) ? null : calm(i)) }).series
  assert.deepEqual([series?.gaps, series?.samples], [{ count: 4, longestSeconds: 60 }, 233])
})

test('recording quality: what was left out because of an incident is no gap, and not missing', () => {
  const leftOut = [{ fromSeconds: MIDNIGHT + 15 * 20, toSeconds: MIDNIGHT + 15 * 199 }]
  const without = (i: number): number | null => (i >= 20 && i <= 199 ? null : calm(i))
  const { series, goodToTrainOn, summary } = qualityOf({ length: 7_200, ms: without, leftOut })
  assert.deepEqual(series[0]?.gaps, { count: 0, longestSeconds: 0 })
  assert.equal(goodToTrainOn, true, summary)
  const cut = qualityOf({ length: 7_200, ms: (i) => (i === 200 ? null : without(i)), leftOut })
  assert.deepEqual(cut.series[0]?.gaps, { count: 1, longestSeconds: 15 })
  assert.equal(qualityOf({ length: 7_200, ms: without }).series[0]?.gaps.longestSeconds, 180 * 15)
})

for (const { name, options, summary } of [
  {
    name: 'too few samples for a monitor to start',
    options: { length: 28 * 15 },
    summary:
      'p50 has 29 samples, and a monitor needs 30 to start; record a longer --range, or with a shorter --step-seconds',
  },
  {
    name: 'a pair of which hardly anything is there',
    options: { length: 3_600, ms: (i: number) => (i % 10 === 0 ? 8 + i / 100 : null) },
    summary: 'p50 has 25 samples, and a monitor needs 30 to start; ask meshfever doctor why',
  },
  {
    name: 'more gaps than samples',
    options: { length: 36_000, ms: (i: number) => (i % 3 === 0 ? calm(i) : null) },
    summary: '66.6 % of p50 is missing; ask meshfever doctor why',
  },
  {
    name: 'silence most of the time',
    options: {
      length: 36_000,
      ms: (i: number) => (i % 3 === 0 ? calm(i) : NaN),
      rps: (i: number) => (i % 3 === 0 ? 1 : 0),
    },
    summary: '66.6 % of p50 is missing; record while there is traffic',
  },
  {
    name: 'a request now and then',
    options: { length: 3_600, rps: (i: number) => (i < 150 ? 0.09 : 0.5) },
    summary:
      '62.2 % of the samples have less than 0.1 requests per second, too few to tell a quantile by; record while there is traffic',
  },
  {
    name: 'a minute at one sample a second',
    options: { length: 60, step: 1 },
    summary:
      'it holds 61 s of samples, and half an hour is the least that shows what is normal; record a longer --range',
  },
  {
    name: 'latency that doubles halfway',
    options: { length: 7_200, ms: (i: number) => (i > 240 ? 2 : 1) * calm(i) },
    summary:
      'p50 of the second half is 2 times that of the first, and traffic does not explain it; record a range without the change, or one of some days',
  },
  {
    name: 'latency that halves halfway',
    options: { length: 7_200, ms: (i: number) => (i > 240 ? 0.5 : 1) * calm(i) },
    summary:
      'p50 of the second half is 0.5 times that of the first, and traffic does not explain it; record a range without the change, or one of some days',
  },
  {
    name: 'latency that doubles while traffic falls',
    options: { length: 7_200, ms: (i: number) => (i > 240 ? 2 : 1) * calm(i), rps: (i: number) => (i > 240 ? 2 : 5) },
    summary:
      'p50 of the second half is 2 times that of the first, and traffic does not explain it; record a range without the change, or one of some days',
  },
  {
    name: 'latency that doubles in the second of four days',
    options: { length: 4 * DAY_SECONDS, step: 60, ms: (i: number) => (i > 2 * 1_440 ? 2 : 1) * calm(i) },
    summary:
      'p50 of the second half is 2 times that of the first, and traffic does not explain it; record a range without the change, or one of some days',
  },
] as readonly { readonly name: string; readonly options: Made; readonly summary: string }[]) {
  test(`recording quality: ${name} is not good enough, and the sentence says what to do`, () => {
    const quality = qualityOf(options)
    assert.deepEqual(
      [quality.goodToTrainOn, quality.summary],
      [false, `Not good enough to train load-and-season on: ${summary}.`],
    )
  })
}

for (const { name, options } of [
  { name: 'thirty samples at a minute each', options: { length: 29 * 60, step: 60 } },
  {
    name: 'half of the samples missing',
    options: { length: 36_000, ms: (i: number) => (i % 2 === 0 ? calm(i) : null) },
  },
  { name: 'a quiet half', options: { length: 7_200, rps: (i: number) => (i < 240 ? 0.09 : 0.5) } },
  { name: 'a rise of a fifth', options: { length: 7_200, ms: (i: number) => (i > 240 ? 1.2 : 1) * calm(i) } },
  {
    name: 'a rise that comes with traffic',
    options: { length: 7_200, ms: (i: number) => (i > 240 ? 2 : 1) * calm(i), rps: (i: number) => (i > 240 ? 10 : 5) },
  },
  {
    name: 'a day whose halves differ',
    options: { length: DAY_SECONDS, step: 60, ms: (i: number) => (i > 720 ? 2 : 1) * calm(i) },
  },
] as readonly { readonly name: string; readonly options: Made }[]) {
  test(`recording quality: ${name} is good enough`, () => {
    const { goodToTrainOn, summary } = qualityOf(options)
    assert.equal(goodToTrainOn, true, summary)
  })
}

test('recording quality: latency that never leaves one bucket is trained on, and the sentence says that it is a guess', () => {
  const { summary, series } = qualityOf({ length: 2 * DAY_SECONDS, step: 60, ms: () => 3 })
  const [one] = series
  assert.deepEqual([one?.bucket, one?.distinctValues], [{ lowerMs: 1, upperMs: 5, share: 1 }, 1])
  assert.equal(
    summary,
    "Good enough to train load-and-season on; p50 never leaves the histogram's bucket from 1 to 5 ms, within which it is a guess.",
  )
})

test('recording quality: of several quantiles the one that is not good enough decides', () => {
  const good = made({ length: 3_600 })
  const bad = made({ length: 3_600, quantile: 0.99, ms: (i) => (i > 120 ? 2 : 1) * calm(i) })
  const series = [...good.recording.series, ...bad.recording.series]
  const { summary } = recordingQuality({ ...good.recording, series }, good.range)
  assert.match(summary, /^Not good enough to train load-and-season on: p99 of the second half is /)
})

test('recording quality: no latency at all, and no request rate, are said as such', () => {
  const { series, traffic, goodToTrainOn } = qualityOf({ length: 3_600, ms: () => NaN, rps: null })
  assert.deepEqual(series[0], {
    quantile: 0.5,
    samples: 0,
    gaps: { count: 0, longestSeconds: 0 },
    nanShare: 1,
    medianMs: NaN,
    driftRatio: null,
    distinctValues: 0,
    bucket: null,
  })
  assert.deepEqual([traffic, goodToTrainOn], [null, false])
})

test('recording quality: for people it is a line a quantile, one of traffic, one of the day, and the sentence', () => {
  const quality = qualityOf({
    length: 7_200,
    ms: (i) => (i === 9 ? null : i === 10 ? NaN : calm(i)),
    rps: (i) => 1 + (i % 2),
  })
  assert.deepEqual(qualityLines(quality), [
    'p50: 479 samples, 1 gap of 15 s, 0.208 % NaN, median 8 ms, second half 1 times the first, 4 distinct values, 80 % in the bucket from 5 to 10 ms',
    'traffic: median 1 requests per second, 1 to 2, 0 % below 0.1',
    'time of day: 8.68 % of it seen',
    quality.summary,
  ])
  const nothing = qualityLines(qualityOf({ length: 3_600, ms: () => NaN, rps: null }))
  assert.deepEqual(nothing.slice(0, 2), [
    'p50: 0 samples, no gap, 100 % NaN, median unknown, second half unknown, 0 distinct values',
    'traffic: not recorded',
  ])
})
