import assert from 'node:assert/strict'
import test from 'node:test'

import fc from 'fast-check'

import { fitting, highest, matching, MAX_LIST_BYTES, MAX_LISTED, nameFilter } from '../src/page/edge-list.js'

for (const { text, source, destination, isFound } of [
  { text: '', source: 'a', destination: 'b', isFound: true },
  { text: 'CART', source: 'frontend', destination: 'cartservice', isFound: true },
  { text: 'front cart', source: 'frontend', destination: 'cartservice', isFound: true },
  { text: 'cart front', source: 'frontend', destination: 'cartservice', isFound: true },
  { text: 'frontend → cartservice', source: 'frontend', destination: 'cartservice', isFound: true },
  { text: 'frontend->cartservice', source: 'frontend', destination: 'cartservice', isFound: true },
  { text: 'front mail', source: 'frontend', destination: 'cartservice', isFound: false },
  { text: 'tendcart', source: 'frontend', destination: 'cartservice', isFound: false },
  { text: '購物', source: '購物車', destination: 'b', isFound: true },
  { text: '.*', source: 'frontend', destination: 'cartservice', isFound: false },
]) {
  test(`edge list: ${JSON.stringify(text)} ${isFound ? 'finds' : 'does not find'} ${source} to ${destination}`, () => {
    assert.equal(nameFilter(text)({ source, destination }), isFound)
  })
}

test('edge list: the highest are those of a full sort, equal ones in the order given', () => {
  const item = fc.record({ value: fc.integer({ min: -2, max: 9 }), id: fc.nat() })
  fc.assert(
    fc.property(fc.array(item, { maxLength: 60 }), fc.integer({ min: 1, max: 12 }), (items, most) => {
      const expected = items.toSorted((a, b) => b.value - a.value).slice(0, most)
      assert.deepEqual(
        highest(items, most, ({ value }) => value),
        expected,
      )
    }),
  )
})

test('edge list: what fits is as much as fits, by the bytes it takes as it is sent', () => {
  const items = ['購物車', '購物車', '購物車']
  const each = Buffer.byteLength(JSON.stringify(items[0])) + 1
  assert.deepEqual(
    [0, each - 1, each, 2 * each, 3 * each - 1, 3 * each].map((bytes) => fitting(items, bytes).length),
    [0, 0, 1, 2, 2, 3],
  )
})

test('edge list: 50,000 edges with the longest names that there are make no longer list than is allowed', () => {
  const edges = Array.from({ length: 50_000 }, (_, i) => ({
    source: '\u0000'.repeat(253),
    destination: `${i}`,
    heat: i,
  }))
  const { edges: listed, leftOut } = matching(edges, '\u0000', {
    pairOf: (edge) => edge,
    heatOf: ({ heat }) => heat,
    shown: (edge) => edge,
  })
  assert.equal(listed[0]?.heat, 49_999)
  assert.equal(listed.length + leftOut, 50_000)
  assert.ok(listed.length > 20 && listed.length < MAX_LISTED)
  assert.ok(JSON.stringify(listed).length <= MAX_LIST_BYTES)
})
