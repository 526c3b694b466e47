import assert from 'node:assert/strict'
import test from 'node:test'

import fc from 'fast-check'

import type { Pair } from '../src/core/pair.js'
import { BOX_WIDTH, layOut, type MapLayout } from '../src/page/browser/map-layout.js'

const edges = (...names: readonly string[]): readonly Pair[] =>
  names.map((name) => {
    const [source = '', destination = ''] = name.split('>')
    return { source, destination }
  })

/** The services from left to right. */
function columns({ boxes }: MapLayout): readonly string[] {
  const byX = new Map<number, string[]>()
  for (const { x, name } of boxes) byX.set(x, [...(byX.get(x) ?? []), name])
  return [...byX].sort(([a], [b]) => a - b).map(([, names]) => names.sort().join(' '))
}

for (const { name, given, expected } of [
  { name: 'one edge', given: edges('a>b'), expected: ['a', 'b'] },
  { name: 'a chain', given: edges('b>c', 'a>b'), expected: ['a', 'b', 'c'] },
  { name: 'many callers of one', given: edges('a>d', 'b>d', 'c>d'), expected: ['a b c', 'd'] },
  { name: 'who is called by nobody', given: edges('a>b', 'b>c', 'x>c'), expected: ['a', 'b x', 'c'] },
  { name: 'a shortcut', given: edges('a>b', 'b>c', 'a>c'), expected: ['a', 'b', 'c'] },
  {
    name: 'a cycle, which is broken at its coolest edge',
    given: edges('b>c', 'a>b', 'c>a'),
    expected: ['a', 'b', 'c'],
  },
  { name: 'two that call each other', given: edges('b>a', 'a>b'), expected: ['b', 'a'] },
  { name: 'one that calls itself', given: edges('a>a', 'a>b'), expected: ['a', 'b'] },
  { name: 'nothing', given: [], expected: [] },
]) {
  test(`map layout: ${name}`, () => {
    assert.deepEqual(columns(layOut(given)), expected)
  })
}

test('map layout: an arrow ends at the service that is called, and comes from the side of who calls', () => {
  const { boxes, links } = layOut(edges('a>b', 'b>c', 'c>a', 'c>c'))
  const at = (name: string) => boxes.find((box) => box.name === name)!
  assert.deepEqual(
    links.map(({ edge, tip }) => [edge, tip.x, tip.fromLeft]),
    [
      [0, at('b').x, true],
      [1, at('c').x, true],
      [2, at('a').x + BOX_WIDTH, false],
      [3, at('c').x + BOX_WIDTH, false],
    ],
  )
})

test('map layout: callers stand in the order that crosses least', () => {
  const { boxes } = layOut(edges('x>p', 'y>q', 'a>y', 'b>x', 'p>z', 'q>z'))
  const y = (name: string): number => boxes.find((box) => box.name === name)!.y
  assert.equal(y('b') < y('a'), y('x') < y('y'))
  assert.equal(y('x') < y('y'), y('p') < y('q'))
})

test('map layout: whatever the edges, each has its arrow, boxes lie apart and within the picture, and it is the same each time', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', '購物車', '<b>')
  const some = fc.uniqueArray(fc.record({ source: name, destination: name }), {
    maxLength: 30,
    selector: ({ source, destination }) => `${source}>${destination}`,
  })
  fc.assert(
    fc.property(some, (given) => {
      const layout = layOut(given)
      const { boxes, links, width, height } = layout
      assert.deepEqual(layOut(given), layout)
      assert.deepEqual(
        links.map(({ edge }) => edge).sort((a, b) => a - b),
        [...given.keys()],
      )
      for (const { path } of links) assert.doesNotMatch(path, /NaN|undefined|Infinity/)
      for (const [i, box] of boxes.entries()) {
        assert.ok(
          box.x >= 0 && box.x + BOX_WIDTH <= width && box.y - box.height / 2 >= 0 && box.y + box.height / 2 <= height,
        )
        for (const other of boxes.slice(i + 1)) {
          const isBeside = Math.abs(box.x - other.x) >= BOX_WIDTH
          assert.ok(
            isBeside || Math.abs(box.y - other.y) >= (box.height + other.height) / 2,
            `${box.name} on ${other.name}`,
          )
        }
      }
    }),
    { numRuns: 200 },
  )
})
