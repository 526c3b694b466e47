import assert from 'node:assert/strict'
import test from 'node:test'

import { ShapeError } from '../src/core/series.js'
import { vectorParts, wholeVector } from '../src/core/vector-parts.js'
import { seededRandom } from '../src/testbed/random.js'

interface Element {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly [number, string]
  readonly histogram?: unknown
}

function answerText(elements: readonly Element[], after = ''): string {
  return `{"status":"success","data":{"resultType":"vector","result":${JSON.stringify(elements)}}${after}}`
}

const element = (name: string): Element => ({ metric: { name }, value: [1_700_000_000.5, '1'] })

/** What the parts come to. */
function read(
  text: string,
  partLength: number,
): { readonly parts: number; readonly elements: readonly string[]; readonly warnings: number } {
  const parts = [...vectorParts(text, partLength)]
  return {
    parts: parts.length,
    elements: parts.flatMap(({ result }) => result.map((one) => JSON.stringify(one))),
    warnings: parts.reduce((sum, { warnings }) => sum + warnings, 0),
  }
}

const HOSTILE = [
  '},{"metric":',
  '"},{"metric":{"a":"b"',
  '\\',
  '\\"},{\\"metric\\":',
  ']}',
  ']}]}}',
  '"',
  '\n',
  '購物車',
  '\u2028',
  '{}',
  '',
]

test('vector parts: together they hold each element of the whole in its order, whatever the names are', () => {
  const random = seededRandom(1)
  for (let round = 0; round < 300; round++) {
    const elements = Array.from({ length: Math.floor(random() * 30) }, (): Element => {
      const name = Array.from(
        { length: 1 + Math.floor(random() * 3) },
        () => HOSTILE[Math.floor(random() * HOSTILE.length)],
      ).join('')
      return random() < 0.1
        ? { metric: { name }, histogram: [1, { count: '3', buckets: [[0, '1', '2', '3']] }] }
        : element(name)
    })
    const text = answerText(elements, round % 2 === 0 ? '' : ',"warnings":["},{\\"metric\\":"],"infos":[]')
    const { elements: found, warnings } = read(text, Math.floor(random() * 200))
    assert.deepEqual(
      found,
      elements.map((one) => JSON.stringify(one)),
      text,
    )
    assert.equal(warnings, round % 2)
  }
})

test('vector parts: a part has about the length asked for', () => {
  const text = answerText(Array.from({ length: 1_000 }, (_, i) => element(`service-${i}`)))
  for (const part of vectorParts(text, 5_000)) {
    const { length } = JSON.stringify(part.result)
    assert.ok(length < 5_200, `${length}`)
  }
  assert.ok(read(text, 5_000).parts >= text.length / 5_200)
})

for (const { name, text, parts } of [
  { name: 'of Prometheus', text: answerText([element('a'), element('b'), element('c')]), parts: 4 },
  {
    name: 'of VictoriaMetrics, with more around it',
    text: answerText([element('a'), element('b'), element('c')], ',"stats":{"seriesFetched": "3"}').replace(
      '"success",',
      '"success","isPartial":false,',
    ),
    parts: 4,
  },
  { name: 'with one element', text: answerText([element('a')]), parts: 1 },
  { name: 'with none', text: answerText([]), parts: 1 },
  {
    name: 'that a proxy formatted',
    text: JSON.stringify(JSON.parse(answerText([element('a'), element('b')])), null, 1),
    parts: 1,
  },
  {
    name: 'whose keys are in another order',
    text: `{"data":{"result":${JSON.stringify([element('a'), element('b')])},"resultType":"vector"},"status":"success"}`,
    parts: 1,
  },
]) {
  test(`vector parts: an answer ${name} is read in ${parts}`, () => {
    const found = read(text, 1)
    assert.equal(found.parts, parts)
    assert.deepEqual(
      found.elements,
      wholeVector(text).result.map((one) => JSON.stringify(one)),
    )
  })
}

for (const { name, text } of [
  { name: 'half an answer', text: answerText([element('a'), element('b'), element('c')]).slice(0, -60) },
  {
    name: 'a broken element between good ones',
    text: answerText([element('a'), element('b'), element('c')]).replace('"b"', '"b'),
  },
  { name: 'HTML', text: '<html>' },
  { name: 'nothing', text: '' },
]) {
  test(`vector parts: ${name} is no JSON`, () => {
    assert.throws(() => read(text, 1), SyntaxError)
    assert.throws(() => wholeVector(text), SyntaxError)
  })
}

test('vector parts: what looks like a border and is none makes them fail, and the whole is read all the same', () => {
  const text = answerText([element('a'), element('b')]).replace('"value"', '"more":[{"a":1},{"metric":2}],"value"')
  assert.throws(() => read(text, 1), SyntaxError)
  assert.equal(wholeVector(text).result.length, 2)
})

for (const { name, text, kind } of [
  { name: 'an error', text: '{"status":"error","errorType":"bad_data","error":"x"}', kind: 'api_error' },
  { name: 'a matrix', text: answerText([]).replace('vector', 'matrix'), kind: 'wrong_type' },
  { name: 'another document', text: '{"a":1}', kind: 'bad_shape' },
]) {
  test(`vector parts: ${name} is refused with the first`, () => {
    const parts = vectorParts(text, 100)
    assert.throws(
      () => parts.next(),
      (error: unknown) => error instanceof ShapeError && error.kind === kind,
    )
  })
}
