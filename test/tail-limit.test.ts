import assert from 'node:assert/strict'
import test from 'node:test'

import { tailLimit } from '../src/core/baseline/tail-limit.js'
import { seededRandom } from '../src/testbed/random.js'

test('tail limit: threshold at the 90 % point, mean excess times the logarithm of the shares beyond it', () => {
  // 1 .. 100: the 90 % quantile is 1 + 0.9 x 99 = 90.1, the mean of 91 .. 100 is 95.5: a mean excess of 5.4.
  const values = Array.from({ length: 100 }, (_, i) => i + 1)
  const limit = tailLimit(values, 0.01, 0)
  assert.ok(Math.abs(limit - (90.1 + 5.4 * Math.log(10))) < 1e-9, String(limit))
})

test('tail limit: order and missing values do not matter', () => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1)
  const shuffled = values.map((value) => (37 * value) % 101)
  assert.equal(tailLimit([NaN, ...shuffled, NaN], 0.01, 0), tailLimit(values, 0.01, 0))
})

test('tail limit: at a share of one tenth it is the 90 % quantile', () => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1)
  assert.ok(Math.abs(tailLimit(values, 0.1, 0) - 90.1) < 1e-9)
})

test('tail limit: none is below the floor, and few values make it half as much again', () => {
  assert.equal(tailLimit([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 0.01, 3.2), 3.2)
  assert.ok(Math.abs(tailLimit([9, 9, 9], 0.01, 3.2) - 4.8) < 1e-12)
  assert.ok(Math.abs(tailLimit([NaN, NaN], 0.01, 3.2) - 4.8) < 1e-12)
})

for (const share of [0.05, 0.01, 0.003]) {
  test(`tail limit: of an exponential tail a share of ${share} lies above`, () => {
    const random = seededRandom(1)
    const draws = Array.from({ length: 60_000 }, () => -Math.log(1 - random()))
    const limit = tailLimit(draws.slice(0, 30_000), share, 0)
    const above = draws.slice(30_000).filter((value) => value > limit).length / 30_000
    assert.ok(above > 0.8 * share && above < 1.25 * share, `${above} instead of ${share}`)
  })
}
