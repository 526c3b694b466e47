import assert from 'node:assert/strict'
import test from 'node:test'

import type { PairVerdict } from '../src/core/incident.js'
import { createStaleLog } from '../src/io/stale-log.js'
import { fakeRuntime, without } from './helpers/fake-runtime.js'

const OK: PairVerdict = { kind: 'ok' }
const STALE: PairVerdict = { kind: 'unknown', reason: 'stale' }
const NO_DATA: PairVerdict = { kind: 'unknown', reason: 'no_data' }
const LOW_TRAFFIC: PairVerdict = { kind: 'unknown', reason: 'low_traffic' }

function said(polls: readonly (readonly (readonly [string, PairVerdict | undefined])[])[]): readonly unknown[] {
  const runtime = fakeRuntime([])
  const log = createStaleLog(runtime)
  for (const poll of polls) log.note(poll)
  return runtime.logged.map((line) => without(line, 'level', 'time'))
}

const STALE_LINE = { pairs: ['a'], msg: 'what a monitor exports is stale' }
const FRESH_LINE = { pairs: ['a'], msg: 'what a monitor exports is fresh again' }

for (const { name, polls, lines } of [
  {
    name: 'a pair that stays stale once',
    polls: [[['a', STALE]], [['a', STALE]], [['a', STALE]]],
    lines: [STALE_LINE],
  },
  {
    name: 'one of two pairs by its name',
    polls: [
      [
        ['a', STALE],
        ['b', OK],
      ],
      [
        ['a', STALE],
        ['b', OK],
      ],
    ],
    lines: [STALE_LINE],
  },
  {
    name: 'once that it is fresh again',
    polls: [[['a', STALE]], [['a', OK]], [['a', OK]]],
    lines: [STALE_LINE, FRESH_LINE],
  },
  {
    name: 'that too little traffic is news of a pair',
    polls: [[['a', STALE]], [['a', LOW_TRAFFIC]]],
    lines: [STALE_LINE, FRESH_LINE],
  },
  {
    name: 'nothing of the silence that follows, nor that it is stale a second time',
    polls: [[['a', STALE]], [['a', NO_DATA]], [['a', undefined]], [['a', STALE]]],
    lines: [STALE_LINE],
  },
  {
    name: 'nothing of silence and of fresh samples',
    polls: [[['a', NO_DATA]], [['a', OK]], [['a', undefined]]],
    lines: [],
  },
] as const) {
  test(`stale log: says ${name}`, () => {
    assert.deepEqual(said(polls), lines)
  })
}

test('stale log: names twenty of very many', () => {
  const [line] = said([Array.from({ length: 25 }, (_, i) => [`pair ${i}`, STALE] as const)]) as readonly {
    pairs: string[]
    more: number
  }[]
  assert.deepEqual([line?.pairs.length, line?.more], [20, 5])
})
