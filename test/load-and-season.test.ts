import assert from 'node:assert/strict'
import test from 'node:test'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import type { Fitted, Judgement } from '../src/core/baseline/model.js'
import { seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'
import { DAY_SECONDS, judged, noise, outside, samplesOf, type Sample, trainingOn } from './helpers/streams.js'

/** The stream is a week after the training. */
const LATER = T0 + 7 * DAY_SECONDS

type Latency = Parameters<typeof samplesOf>[0]

function fitOn(latency: Latency, options: { count: number; stepSeconds?: number }): Fitted {
  const fitted = loadAndSeason.fit(trainingOn(samplesOf(latency, options)))
  assert.ok(!(fitted instanceof Promise))
  return fitted
}

function stream(
  latency: Latency,
  count: number,
  options: { stepSeconds?: number; startSeconds?: number } = {},
): Sample[] {
  return samplesOf(latency, { count, startSeconds: LATER, ...options })
}

const random = seededRandom(11)
const steady = (): number => 20 * noise(random, 0.05)
const cycle = (time: number): number => 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * time) / 1_200)) * noise(random, 0.05)
const day = (time: number): number =>
  100 * Math.exp(0.4 * Math.sin((2 * Math.PI * time) / DAY_SECONDS)) * noise(random, 0.08)
const trafficAt = (time: number): number => 5 * Math.exp(0.7 * Math.sin(time / 2_900) + 0.4 * Math.sin(time / 1_130))
const queue = (time: number): readonly [number, number] => {
  const rate = trafficAt(time)
  return [(10 / (1 - rate / 20)) * noise(random, 0.05), rate]
}

const LEVEL = fitOn(steady, { count: 240 })
const CYCLE = fitOn(cycle, { count: 240 })
const DAILY = fitOn(day, { count: 2_880 })
const RATE = fitOn(queue, { count: 2_880 })

for (const { name, fitted, found } of [
  { name: 'noise', fitted: LEVEL, found: /^a level; scatter 5 %, one sample may be \d+ % above$/ },
  { name: 'a load cycle', fitted: CYCLE, found: /^a level and a load cycle of 1\d\d\d s; / },
  { name: 'two days of a day', fitted: fitOn(day, { count: 5_760 }), found: /^a level and a daily profile; / },
  { name: 'a queue', fitted: RATE, found: /^a curve over the request rate with \d+ nodes; / },
]) {
  test(`load and season: in ${name} it finds what is there, and says so`, () => {
    assert.match(fitted.summary, found)
  })
}

for (const { name, fitted, latency } of [
  { name: 'noise', fitted: LEVEL, latency: steady },
  { name: 'a load cycle', fitted: CYCLE, latency: cycle },
  { name: 'a day', fitted: DAILY, latency: day },
  { name: 'a queue', fitted: RATE, latency: queue },
]) {
  test(`load and season: in ${name} more of the same is normal, to 1 %`, () => {
    const judgements = judged(fitted, stream(latency, 2_000))
    assert.ok(outside(judgements) <= 20, `${outside(judgements)} of 2,000 are outside`)
  })

  test(`load and season: in ${name} a doubling for ten minutes is outside, sample by sample`, () => {
    const calm = stream(latency, 200)
    const slow = stream(latency, 20, { startSeconds: LATER + 200 * 30 }).map((sample) => ({
      ...sample,
      latencyMs: 2 * sample.latencyMs,
    }))
    const judgements = judged(fitted, [...calm, ...slow]).slice(200)
    assert.ok(judgements.filter(({ deviation }) => deviation > 1).length >= 19, 'at most one is missed')
  })
}

test('load and season: the score is 1 on the edge of the band', () => {
  // A watch is asked twice: for its band, then with a latency on the edge.
  for (const fitted of [LEVEL, RATE, DAILY, CYCLE]) {
    const ask = { timestampSeconds: LATER, requestsPerSecond: 5 }
    const { yMaxMs, yMinMs, yhatMs } = fitted.watch().judge({ ...ask, latencyMs: null })
    const at = (latencyMs: number): number => fitted.watch().judge({ ...ask, latencyMs }).deviation
    assert.ok(Math.abs(at(yMaxMs) - 1) < 1e-9 && Math.abs(at(yMinMs) + 1) < 1e-9)
    assert.ok(at(1.001 * yMaxMs) > 1 && at(0.999 * yMaxMs) <= 1 && Math.abs(at(yhatMs)) < 1e-9)
    // On the scale of logarithms, in which the band is as wide as the scatter.
    const twice = yhatMs * (yMaxMs / yhatMs) ** 2
    assert.ok(Math.abs(at(twice) - 2) < 1e-9)
  }
})

test('load and season: a spike of +30 % is no anomaly, ten minutes of it are', () => {
  const spiked = stream(steady, 200).map((s, i) => ({ ...s, latencyMs: i === 150 ? 26 : s.latencyMs }))
  const lasting = stream(steady, 200).map((s, i) => ({
    ...s,
    latencyMs: i >= 150 && i < 170 ? 1.3 * s.latencyMs : s.latencyMs,
  }))
  const fitted = fitOn(() => 20 * noise(random, 0.12), { count: 240 })
  assert.ok((judged(fitted, spiked)[150]?.deviation ?? 9) <= 1)
  const judgements = judged(fitted, lasting)
  assert.ok((judgements[150]?.deviation ?? 9) <= 1, 'the first sample alone')
  assert.ok(
    judgements.slice(156, 170).every(({ deviation }) => deviation > 1),
    'from three minutes on',
  )
})

test('load and season: a burst of a minute does not make what follows anomalous', () => {
  const burst = stream(steady, 260).map((s, i) => ({ ...s, latencyMs: i >= 150 && i < 154 ? 400 : s.latencyMs }))
  const judgements = judged(LEVEL, burst)
  assert.equal(outside(judgements.slice(150, 154)), 4)
  assert.ok(outside(judgements.slice(154)) <= 1)
})

test('load and season: a fall counts from twice the distance of a rise', () => {
  const { yMinMs, yhatMs, yMaxMs } = LEVEL.watch().judge({
    timestampSeconds: LATER,
    latencyMs: null,
    requestsPerSecond: null,
  })
  const ratio = Math.log(yhatMs / yMinMs) / Math.log(yMaxMs / yhatMs)
  assert.ok(ratio > 1.6 && ratio < 2.4, String(ratio))
})

for (const { latencyMs, halfMs } of [
  { latencyMs: 3, halfMs: 0.24 },
  { latencyMs: 17.5, halfMs: 0.9 },
  { latencyMs: 175, halfMs: 9 },
]) {
  test(`load and season: a flat ${latencyMs} ms has a band of +-${halfMs} ms at least: 6 % of its bucket`, () => {
    const fitted = fitOn(() => latencyMs, { count: 240 })
    const judgements = judged(
      fitted,
      stream((_, i) => latencyMs + (i % 2 === 0 ? 0.99 : -0.99) * halfMs, 200),
    )
    assert.equal(outside(judgements), 0)
    for (const { yMinMs, yhatMs, yMaxMs } of judgements) {
      assert.ok(yMaxMs - yhatMs >= 0.9 * halfMs && yhatMs - yMinMs >= 0.9 * halfMs)
    }
    assert.ok(
      outside(
        judged(
          fitted,
          stream(() => 1.3 * latencyMs, 20),
        ),
      ) >= 15,
      'and +30 % is outside',
    )
  })
}

test('load and season: with its request rate a surge is normal, without it is not', () => {
  // Training: mostly calm, and a surge of four minutes in each hour.
  const surging = (time: number): readonly [number, number] => {
    const rate = (time % 3_600) / 60 < 4 ? 15 : 5 + Math.sin(time / 777)
    return [(10 / (1 - rate / 20)) * noise(random, 0.05), rate]
  }
  const training = samplesOf(surging, { count: 1_440, stepSeconds: 15 })
  const withRate = loadAndSeason.fit(trainingOn(training)) as Fitted
  const without = loadAndSeason.fit({ ...trainingOn(training), requestsPerSecond: null }) as Fitted
  // The stream: half an hour of the same traffic at another time.
  const calm = stream(() => [(10 / (1 - 5 / 20)) * noise(random, 0.05), 5], 100, { stepSeconds: 15 })
  const surge = stream(() => [(10 / (1 - 15 / 20)) * noise(random, 0.05), 15], 120, {
    stepSeconds: 15,
    startSeconds: LATER + 1_500,
  })
  const found = [withRate, without].map((fitted) => outside(judged(fitted, [...calm, ...surge]).slice(100)))
  assert.ok(found[0]! <= 2 && found[1]! > 60, `${found.join(' and ')} of 120 outside`)
  // A doubling on top of the surge is found all the same.
  const fault = surge.map((s) => ({ ...s, latencyMs: 2 * s.latencyMs }))
  assert.ok(outside(judged(withRate, [...calm, ...fault]).slice(100)) >= 118)
})

test('load and season: traffic beyond the training widens the band the more the further, and says so', () => {
  const watch = RATE.watch()
  const busiest = Math.max(...samplesOf(queue, { count: 2_880 }).map(({ requestsPerSecond }) => requestsPerSecond ?? 0))
  const at = (rate: number): Judgement =>
    watch.judge({ timestampSeconds: LATER, latencyMs: null, requestsPerSecond: rate })
  const [within, twice, fourfold] = [5, 2 * busiest, 4 * busiest].map(at)
  assert.ok(within !== undefined && twice !== undefined && fourfold !== undefined)
  assert.deepEqual(
    [within, twice, fourfold].map(({ beyondTraining }) => beyondTraining),
    [false, true, true],
  )
  const width = ({ yMaxMs, yhatMs }: Judgement): number => yMaxMs / yhatMs
  // At least in proportion to the traffic.
  assert.ok(width(twice) >= 1.9 * width(within) && width(fourfold) >= 1.9 * width(twice))
  // What is expected stays: a slope that nobody saw is no promise.
  assert.equal(fourfold.yhatMs, twice.yhatMs)
  assert.ok(within.yhatMs < twice.yhatMs)
})

test('load and season: without the request rate of a sample the band is that of all traffic', () => {
  const unknown = RATE.watch().judge({ timestampSeconds: LATER, latencyMs: null, requestsPerSecond: null })
  const known = RATE.watch().judge({ timestampSeconds: LATER, latencyMs: null, requestsPerSecond: 5 })
  assert.ok(unknown.yMaxMs / unknown.yhatMs > known.yMaxMs / known.yhatMs)
  assert.equal(unknown.beyondTraining, false)
})

for (const { name, rates } of [
  { name: 'too few samples', rates: Array.from({ length: 59 }, (_, i) => 1 + i) },
  { name: 'gaps in the rate', rates: Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? NaN : 1 + i)) },
  { name: 'a constant rate', rates: Array.from({ length: 200 }, () => 3) },
]) {
  test(`load and season: ${name} show no curve over the request rate`, () => {
    const samples = samplesOf(() => 20 * noise(random, 0.1), { count: rates.length })
    const { summary } = loadAndSeason.fit({ ...trainingOn(samples), requestsPerSecond: rates }) as Fitted
    assert.doesNotMatch(summary, /request rate/)
  })
}

test('load and season: a lasting change within a fifth is followed, and the drift says by how much', () => {
  const followed = judged(
    LEVEL,
    stream(() => 1.1 * steady(), 1_000),
  )
  const last = followed.at(-1)
  assert.ok(last !== undefined && Math.abs((last.driftRatio ?? 0) - 1.1) < 0.02, String(last?.driftRatio))
  assert.ok(outside(followed.slice(100)) <= 9)
  assert.ok(Math.abs((judged(LEVEL, stream(steady, 1_000)).at(-1)?.driftRatio ?? 0) - 1) < 0.02)
})

test('load and season: whatever comes, no more than a fifth is ever forgiven', () => {
  for (const factor of [0.001, 0.5, 1.3, 10, 1e6]) {
    // A ramp so slow that each step is inside of the band that the one before left.
    const ramp = stream((_, i) => steady() * Math.exp((Math.log(factor) * i) / 8_000), 8_000)
    for (const { driftRatio } of judged(LEVEL, ramp)) {
      assert.ok(driftRatio !== null && driftRatio <= Math.exp(0.2) + 1e-12 && driftRatio >= Math.exp(-0.2) - 1e-12)
    }
  }
})

test('load and season: where the load cycle stands is found from the stream', () => {
  const shifted = stream((time) => cycle(time + 500), 240)
  const judgements = judged(CYCLE, shifted)
  assert.ok(outside(judgements) <= 3)
  const width = ({ yMaxMs, yhatMs }: Judgement): number => yMaxMs / yhatMs
  // Before the first sample it may be anywhere; two cycles later it is known.
  assert.ok(
    width(judgements[0]!) > 1.2 * width(judgements[120]!),
    `${width(judgements[0]!)} ${width(judgements[120]!)}`,
  )
  const errors = judgements.slice(160).map(({ yhatMs }, i) => {
    const time = LATER + 30 * (160 + i) + 500
    return Math.abs(Math.log(yhatMs / (4 * Math.exp(0.3 * Math.sin((2 * Math.PI * time) / 1_200)))))
  })
  assert.ok(errors.sort((a, b) => a - b)[60]! < 0.1, 'three quarters of the stream within 10 %')
})

test('load and season: a gap of a day is no anomaly, on a load cycle neither, whatever its phase is then', () => {
  const after = LATER + DAY_SECONDS
  for (const [fitted, latency] of [
    [LEVEL, steady],
    [CYCLE, cycle],
  ] as const) {
    const samples = [
      ...stream(latency, 200),
      ...samplesOf((time) => latency(time + 700), { count: 200, startSeconds: after }),
    ]
    assert.ok(outside(judged(fitted, samples)) <= 10)
  }
})

test('load and season: a sample that comes twice, or late, is judged and not learnt from', () => {
  const samples = stream(steady, 100)
  const once = judged(LEVEL, samples)
  const watch = LEVEL.watch()
  const twice = samples.map((sample) => {
    const judgement = watch.judge(sample)
    assert.ok(watch.judge({ ...sample, latencyMs: 500 }).deviation > 1, 'judged')
    watch.judge({ ...sample, timestampSeconds: sample.timestampSeconds - 60, latencyMs: 500 })
    return judgement
  })
  assert.deepEqual(twice, once)
})

test('load and season: a missing sample has its band and changes nothing', () => {
  const samples = stream(steady, 100)
  const watch = LEVEL.watch()
  const asked = samples.map((sample) => {
    const { yhatMs, yMaxMs, deviation } = watch.judge({ ...sample, latencyMs: null })
    assert.ok(Number.isFinite(yMaxMs) && yMaxMs > yhatMs)
    assert.equal(deviation, 0)
    return watch.judge(sample)
  })
  assert.deepEqual(asked, judged(LEVEL, samples))
})

test('load and season: the order of times is the only order: a recording is fitted to the same baseline twice', () => {
  const training = trainingOn(samplesOf(cycle, { count: 240 }))
  const [one, two] = [training, structuredClone(training)].map((each) => loadAndSeason.fit(each) as Fitted)
  const samples = stream(cycle, 100)
  assert.deepEqual(judged(one!, samples), judged(two!, samples))
})
