import assert from 'node:assert/strict'
import test from 'node:test'

import { UsageError } from '../src/core/errors.js'
import { type GroundTruth, groundTruthJson, parseGroundTruth } from '../src/core/ground-truth.js'

const DOCUMENT = {
  faults: [
    { name: 'delay', from: 1700000000, to: 1700000300.5, pairs: [{ source: 'a', destination: 'b' }] },
    { name: 'node lost', from: 1700001000, to: 1700001100 },
  ],
  transients: [{ name: '+400 users', from: 1700000500, to: 1700000560 }],
}

const TRUTH: GroundTruth = {
  faults: [
    {
      name: 'delay',
      fromSeconds: 1700000000,
      toSeconds: 1700000300.5,
      pairs: [{ source: 'a', destination: 'b' }],
    },
    { name: 'node lost', fromSeconds: 1700001000, toSeconds: 1700001100, pairs: [] },
  ],
  transients: [{ name: '+400 users', fromSeconds: 1700000500, toSeconds: 1700000560 }],
}

test('ground truth: a file is read, and a fault without pairs can be seen on all of them', () => {
  assert.deepEqual(parseGroundTruth(DOCUMENT, 'F'), TRUTH)
})

test('ground truth: what is written is what was read', () => {
  assert.deepEqual(parseGroundTruth(JSON.parse(JSON.stringify(groundTruthJson(TRUTH))), 'F'), TRUTH)
})

test('ground truth: a list may be left out; then there is nothing of it', () => {
  assert.deepEqual(parseGroundTruth({}, 'F'), { faults: [], transients: [] })
})

const [FAULT] = DOCUMENT.faults
for (const { what, document, message } of [
  { what: 'no object', document: [], message: 'F: expected an object, got an array of 0' },
  { what: 'a misspelt list', document: { fault: [] }, message: 'F: expected faults, transients, got "fault"' },
  { what: 'no list', document: { faults: {} }, message: 'F: faults: expected an array, got an object' },
  { what: 'no fault', document: { faults: [7] }, message: 'F: faults[0]: expected an object, got 7' },
  {
    what: 'a misspelt field',
    document: { faults: [{ ...FAULT, pair: 'a:b' }] },
    message: 'F: faults[0]: expected name, from, to, pairs, got "pair"',
  },
  {
    what: 'pairs of a transient',
    document: { transients: [{ name: 'x', from: 1, to: 2, pairs: [] }] },
    message: 'F: transients[0]: expected name, from, to, got "pairs"',
  },
  {
    what: 'no name',
    document: { faults: [{ ...FAULT, name: ' ' }] },
    message: 'F: faults[0]: name: expected a text, got " "',
  },
  {
    what: 'a text for a time',
    document: { faults: [{ ...FAULT, from: '1700000000' }] },
    message: 'F: faults[0]: from: expected a unix time in seconds, got "1700000000"',
  },
  {
    what: 'milliseconds',
    document: { transients: [{ name: 'x', from: 1, to: 1700000000000 }] },
    message: 'F: transients[0]: to: expected a unix time in seconds, not milliseconds, got 1700000000000',
  },
  {
    what: 'an end before the start',
    document: { faults: [FAULT, { name: 'x', from: 20, to: 20 }] },
    message: 'F: faults[1]: to: expected a time after from (20), got 20',
  },
  {
    what: 'a service that is none',
    document: { faults: [{ ...FAULT, pairs: [{ source: 'a', destination: 'b c' }] }] },
    message:
      'F: faults[0]: pairs[0]: destination must be a service name (1 to 253 letters, digits or any of _ . : / @ -), got "b c"',
  },
]) {
  test(`ground truth: ${what} is refused in one line that names the place`, () => {
    assert.throws(
      () => parseGroundTruth(document, 'F'),
      (error) => error instanceof UsageError && error.message === message,
      message,
    )
  })
}
