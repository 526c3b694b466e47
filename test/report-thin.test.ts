import assert from 'node:assert/strict'
import test from 'node:test'

import { thin } from '../src/report/thin.js'

interface Point {
  readonly t: number
  readonly y: number | null
  readonly isKept?: true
}

/** Thinned to columns of ten seconds each. */
function thinned(points: readonly Point[], columns: number): readonly Point[] {
  return thin(points, {
    columns,
    fromSeconds: 0,
    toSeconds: 10 * columns,
    secondsOf: ({ t }) => t,
    valuesOf: ({ y }) => [y],
    isKept: ({ isKept }) => isKept === true,
  })
}

function points(values: readonly (number | null)[]): readonly Point[] {
  return values.map((y, t) => ({ t, y }))
}

test('thin: what fits is left as it is', () => {
  const few = points([1, 5, null, 2])
  assert.equal(thinned(few, 2), few)
})

test('thin: of a column stay the first, the least, the greatest and the last, in time order', () => {
  const column = [5, 4, 9, 6, 1, 6, 6, 6, 6, 7]
  const flat = Array.from({ length: 10 }, () => 3)
  assert.deepEqual(
    thinned(points([...column, ...flat]), 2).map(({ t, y }) => [t, y]),
    [
      [0, 5],
      [2, 9],
      [4, 1],
      [9, 7],
      [10, 3],
      [19, 3],
    ],
  )
})

test('thin: a point that must stay stays between the others', () => {
  const kept = points([5, 5, 5, 5, 5, 5, 5, 5, 5, 5]).map((point) =>
    point.t === 6 ? { ...point, isKept: true as const } : point,
  )
  assert.deepEqual(
    thinned(kept, 1).map(({ t }) => t),
    [0, 6, 9],
  )
})

test('thin: between two values that stay, a missing one stays when any was missing', () => {
  // Missing at 1 and 2, at 5, and from 9 to the end; of 5 and 5 there is nothing to choose.
  const gaps = points([5, null, null, 5, 9, null, 9, 1, 7, null, null])
  assert.deepEqual(
    thinned(gaps, 1).map(({ t, y }) => [t, y]),
    [
      [0, 5],
      [1, null],
      [4, 9],
      [5, null],
      [7, 1],
      [8, 7],
      [9, null],
    ],
  )
})

test('thin: a column of missing samples alone stays a gap', () => {
  const hole = [
    ...points([3, 3, 3]),
    ...points(Array.from({ length: 27 }, () => null)).map(({ t, y }) => ({ t: t + 3, y })),
  ]
  const after = { t: 30, y: 4 }
  assert.deepEqual(
    thinned([...hole, after], 4).map(({ t, y }) => [t, y]),
    [
      [0, 3],
      [2, 3],
      [3, null],
      [30, 4],
    ],
  )
})

test('thin: each of several values keeps its own extremes and its own gaps', () => {
  const rows = Array.from({ length: 10 }, (_, t) => ({ t, a: t === 3 ? 9 : 5, b: t === 6 ? 0 : t === 8 ? null : 5 }))
  const stays = thin(rows, {
    columns: 1,
    fromSeconds: 0,
    toSeconds: 10,
    secondsOf: ({ t }) => t,
    valuesOf: ({ a, b }) => [a, b],
    isKept: () => false,
  })
  assert.deepEqual(
    stays.map(({ t }) => t),
    [0, 3, 6, 8, 9],
  )
})

test('thin: points outside the plot count to its first and last column', () => {
  const outside = Array.from({ length: 30 }, (_, i) => ({ t: i - 10, y: i }))
  assert.deepEqual(
    thinned(outside, 1).map(({ t }) => t),
    [-10, 19],
  )
})

test('thin: of very many points no more stay than the plot can show, and never fewer than the peaks', () => {
  const many = Array.from({ length: 100_000 }, (_, i) => ({ t: i / 100, y: i === 77_777 ? 1_000 : Math.sin(i) }))
  const stays = thin(many, {
    columns: 100,
    fromSeconds: 0,
    toSeconds: 1_000,
    secondsOf: ({ t }) => t,
    valuesOf: ({ y }) => [y],
    isKept: () => false,
  })
  assert.ok(stays.length <= 400, `${stays.length} points`)
  assert.ok(stays.some(({ y }) => y === 1_000))
})
