import assert from 'node:assert/strict'
import test from 'node:test'

import { findSeason, phaseAt, type Season, seasonIn } from '../src/core/baseline/season.js'
import { seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'
import { DAY_SECONDS, noise } from './helpers/streams.js'

interface Made {
  readonly hours: number
  readonly stepSeconds: number
  readonly shape: (timeSeconds: number) => number
  readonly sigma?: number
  readonly kept?: (i: number) => boolean
}

function find({ hours, stepSeconds, shape, sigma = 0.08, kept = () => true }: Made): ReturnType<typeof findSeason> {
  const random = seededRandom(4)
  const count = (hours * 3_600) / stepSeconds
  const drawn = Array.from({ length: count }, (_, i) => {
    const time = T0 + i * stepSeconds
    return { time, value: shape(time) + Math.log(noise(random, sigma)) }
  }).filter((_, i) => kept(i))
  return findSeason(
    Float64Array.from(drawn, ({ time }) => time),
    Float64Array.from(drawn, ({ value }) => value),
    stepSeconds,
  )
}

const wave = (periodSeconds: number) => (time: number) => 0.4 * Math.sin((2 * Math.PI * time) / periodSeconds)

test('season: noise has none, and neither has a flat series', () => {
  assert.equal(find({ hours: 3, stepSeconds: 15, shape: () => 0 }), null)
  assert.equal(find({ hours: 30, stepSeconds: 60, shape: () => 0 }), null)
  assert.equal(find({ hours: 3, stepSeconds: 15, shape: () => 0, sigma: 0 }), null)
})

for (const { periodSeconds, stepSeconds, hours } of [
  { periodSeconds: 1_200, stepSeconds: 15, hours: 2 },
  { periodSeconds: 1_200, stepSeconds: 30, hours: 2 },
  { periodSeconds: 1_213.7, stepSeconds: 15, hours: 2 },
  { periodSeconds: 300, stepSeconds: 15, hours: 1 },
  { periodSeconds: 7_200, stepSeconds: 60, hours: 12 },
]) {
  test(`season: a load cycle of ${periodSeconds} s is found in ${hours} h of samples ${stepSeconds} s apart`, () => {
    const found = find({ hours, stepSeconds, shape: wave(periodSeconds) })
    assert.ok(found !== null && !found.season.byClock)
    const { season } = found
    assert.ok(Math.abs(season.periodSeconds / periodSeconds - 1) < 0.02, String(season.periodSeconds))
    const errors = Array.from({ length: 100 }, (_, i) => {
      const time = T0 + (i / 100) * periodSeconds
      return Math.abs(seasonIn(season, Math.floor(phaseAt(season, time))) - wave(periodSeconds)(time))
    })
    // The last phases may be as much as a phase off.
    assert.ok(errors.sort((a, b) => a - b)[70]! < 0.12, `70 % of the profile within ${errors[70]}`)
  })
}

test('season: a day is found from nine tenths of a day on, and goes by the clock', () => {
  const found = find({ hours: 48, stepSeconds: 60, shape: wave(DAY_SECONDS) })
  assert.ok(found?.season.byClock)
  assert.equal(found.season.periodSeconds, DAY_SECONDS)
  const { season } = found
  const profile = Array.from(season.profile.keys(), (phase) => seasonIn(season, phase))
  assert.ok(Math.max(...profile) > 0.3 && Math.min(...profile) < -0.3)
})

test('season: a season is found through gaps in a recording', () => {
  const found = find({
    hours: 3,
    stepSeconds: 15,
    shape: wave(1_200),
    kept: (i) => i % 5 !== 0 && (i < 200 || i > 260),
  })
  assert.ok(found !== null && Math.abs(found.season.periodSeconds / 1_200 - 1) < 0.02)
})

test('season: a slow wander is no season: what it predicts is not itself', () => {
  const random = seededRandom(8)
  let level = 0
  const wander = Array.from({ length: 720 }, () => (level = 0.99 * level + Math.log(noise(random, 0.03))))
  assert.equal(find({ hours: 3, stepSeconds: 15, shape: (time) => wander[(time - T0) / 15] ?? 0, sigma: 0.03 }), null)
})

for (const { timeSeconds, phase } of [
  { timeSeconds: 100, phase: 0 },
  { timeSeconds: 130, phase: 1.2 },
  { timeSeconds: 199.9, phase: 3.996 },
  { timeSeconds: 200, phase: 0 },
  { timeSeconds: 99, phase: 3.96 },
  { timeSeconds: -100, phase: 0 },
]) {
  test(`season: second ${timeSeconds} of a cycle of 100 s that starts at 100 is phase ${phase} of 4`, () => {
    const season: Season = {
      periodSeconds: 100,
      originSeconds: 100,
      endSeconds: 200,
      byClock: false,
      profile: new Int16Array(4),
      unit: 1,
    }
    assert.ok(Math.abs(phaseAt(season, timeSeconds) - phase) < 1e-9)
  })
}
