import assert from 'node:assert/strict'
import test from 'node:test'

import { changeOf, type EdgeFacts, type InjectedFault, type SideLatency } from '../src/core/edge-facts.js'
import { type HotPair, type Suspect, suspectOf } from '../src/core/suspect.js'

const NO_SIDE: SideLatency = { beforeMs: null, nowMs: null }
const CALM: SideLatency = { beforeMs: 8, nowMs: 8.5 }

function facts(callerSide: SideLatency, calleeSide: SideLatency, rps = 10): EdgeFacts {
  return {
    source: '',
    destination: '',
    quantile: 0.5,
    callerSide,
    calleeSide,
    requestsPerSecond: { before: rps, now: rps },
    versions: [],
  }
}

/** 200 ms more on the caller's side, and on both or not. */
const SLOW: SideLatency = { beforeMs: 8, nowMs: 208 }
const BOTH = facts(SLOW, { beforeMs: 7, nowMs: 206 })
const WAY = facts(SLOW, CALM)
const CALLER_ONLY = facts(SLOW, NO_SIDE)

function pair(
  name: string,
  edge: EdgeFacts | null,
  injected: readonly Omit<InjectedFault, 'source' | 'destination'>[] = [],
): HotPair {
  const [source = '', destination = ''] = name.split('>')
  return { source, destination, facts: edge, injected: injected.map((fault) => ({ source, destination, ...fault })) }
}

/** `service x`, `between x>y` or `none`. */
function told(suspect: Suspect): string {
  switch (suspect.kind) {
    case 'service':
      return `service ${suspect.name}`
    case 'between':
      return `between ${suspect.source}>${suspect.destination}`
    case 'none':
      return 'none'
  }
}

for (const { name, pairs, expected, because } of [
  { name: 'no hot pair', pairs: [], expected: 'none', because: /no pair is hot/ },
  {
    name: 'both sides slow: the destination',
    pairs: [pair('a>b', BOTH)],
    expected: 'service b',
    because:
      /^both sides are slow, measured on both sides: a's 8 ms before, 208 ms now; b's own 7 ms before, 206 ms now$/,
  },
  {
    name: "only the caller's side slow: the way between",
    pairs: [pair('a>b', WAY)],
    expected: 'between a>b',
    because: /^only the caller's side is slow, measured on both sides/,
  },
  {
    name: 'the injected fault is named with the way',
    pairs: [pair('a>b', WAY, [{ fault: 'delay', share: 1 }])],
    expected: 'between a>b',
    because: /; on it delays \(response_flags DI\) are injected into 100 % of requests$/,
  },
  {
    name: 'a callee that got a little slower does not explain a caller that got much slower',
    pairs: [pair('a>b', facts(SLOW, { beforeMs: 8, nowMs: 13 }))],
    expected: 'between a>b',
    because: /only the caller's side/,
  },
  {
    name: 'a callee that moved inside its bucket does not explain it either',
    pairs: [pair('a>b', facts(SLOW, { beforeMs: 5.5, nowMs: 9.5 }))],
    expected: 'between a>b',
    because: /only the caller's side/,
  },
  {
    name: 'a callee that may have moved by all of a wide bucket: not told',
    pairs: [pair('a>b', facts({ beforeMs: 240, nowMs: 480 }, { beforeMs: 260, nowMs: 470 }))],
    expected: 'none',
    because: /within what a histogram bucket can tell/,
  },
  {
    name: 'a callee just under the factor that explains half of it: not told',
    pairs: [pair('a>b', facts({ beforeMs: 90, nowMs: 130 }, { beforeMs: 88, nowMs: 110 }))],
    expected: 'none',
    because: /within what a histogram bucket can tell/,
  },
  {
    name: "a caller's side that is not slower than before: not told",
    pairs: [pair('a>b', facts(CALM, SLOW))],
    expected: 'none',
    because: /not clearly slower than before/,
  },
  {
    name: "one pair, the destination's side missing: not told",
    pairs: [pair('a>b', CALLER_ONLY)],
    expected: 'none',
    because: /measured on the caller's side only .*no destination-side measurement of b/,
  },
  {
    name: "the destination's side missing, but most requests are delayed on purpose: the way between",
    pairs: [pair('a>b', CALLER_ONLY, [{ fault: 'delay', share: 0.6 }])],
    expected: 'between a>b',
    because: /measured on the caller's side only.*into 60 % of requests/,
  },
  {
    name: 'delays on too few requests to move the median tell nothing',
    pairs: [pair('a>b', CALLER_ONLY, [{ fault: 'delay', share: 0.4 }])],
    expected: 'none',
    because: /into 40 % of requests/,
  },
  {
    name: 'aborts delay nobody',
    pairs: [pair('a>b', CALLER_ONLY, [{ fault: 'abort', share: 1 }])],
    expected: 'none',
    because: /aborts \(response_flags FI\) are injected/,
  },
  {
    name: 'nothing answered',
    pairs: [pair('a>b', null)],
    expected: 'none',
    because: /neither side's measurement was answered/,
  },
  {
    name: 'downstream first, both sides slow all the way',
    pairs: [pair('frontend>checkout', BOTH), pair('checkout>payment', BOTH)],
    expected: 'service payment',
    because: /frontend -> checkout waits for it$/,
  },
  {
    name: 'downstream first, in whatever order, and with a fault on the last edge',
    pairs: [pair('checkout>payment', WAY), pair('frontend>checkout', BOTH)],
    expected: 'between checkout>payment',
    because: /frontend -> checkout waits for it$/,
  },
  {
    name: 'downstream first without any measurement of the sides, and it says so',
    pairs: [pair('frontend>checkout', CALLER_ONLY), pair('checkout>payment', CALLER_ONLY)],
    expected: 'service payment',
    because: /furthest downstream.*measured on the caller's side only/,
  },
  {
    name: 'three in a row',
    pairs: [pair('a>b', BOTH), pair('b>c', BOTH), pair('c>d', BOTH)],
    expected: 'service d',
    because: /a -> b, b -> c wait for it/,
  },
  {
    name: 'a slow way upstream is not explained by what is downstream',
    pairs: [pair('a>b', WAY), pair('b>c', BOTH)],
    expected: 'none',
    because: /2 places, and nothing that they share/,
  },
  {
    name: 'a shared destination, slow itself',
    pairs: [pair('a>d', BOTH), pair('b>d', BOTH)],
    expected: 'service d',
    because: /a -> d, b -> d share it as their destination/,
  },
  {
    name: "a shared destination, measured on the callers' sides only",
    pairs: [pair('a>d', CALLER_ONLY), pair('b>d', null)],
    expected: 'service d',
    because: /share it as their destination .*measured on the caller's side only/,
  },
  {
    name: 'a shared destination that is fast itself: the way into it',
    pairs: [pair('a>d', WAY), pair('b>d', WAY)],
    expected: 'service d',
    because: /share it as their destination, on the way into it/,
  },
  {
    name: 'a shared destination and who waits for its callers',
    pairs: [pair('a>d', BOTH), pair('b>d', BOTH), pair('f>a', BOTH)],
    expected: 'service d',
    because: /f -> a waits for it/,
  },
  {
    name: 'a shared source, the destinations fast',
    pairs: [pair('a>b', WAY), pair('a>c', WAY)],
    expected: 'service a',
    because: /share it as their source/,
  },
  {
    name: 'a shared source, no measurement of the destinations',
    pairs: [pair('a>b', CALLER_ONLY), pair('a>c', CALLER_ONLY), pair('a>d', CALLER_ONLY)],
    expected: 'service a',
    because: /share it as their source/,
  },
  {
    name: 'a shared source does not explain destinations that are slow themselves',
    pairs: [pair('a>b', BOTH), pair('a>c', BOTH)],
    expected: 'none',
    because: /2 places/,
  },
  {
    name: 'a shared source does not explain one that is slow and one that is not',
    pairs: [pair('a>b', BOTH), pair('a>c', WAY)],
    expected: 'none',
    because: /2 places/,
  },
  {
    name: 'two pairs that share nothing',
    pairs: [pair('a>b', WAY), pair('c>d', WAY)],
    expected: 'none',
    because: /2 places, and nothing that they share \(a -> b: .*; c -> d: /,
  },
  {
    name: 'three pairs of which only two share something',
    pairs: [pair('a>d', BOTH), pair('b>d', BOTH), pair('x>y', BOTH)],
    expected: 'none',
    because: /3 places/,
  },
  { name: 'a circle', pairs: [pair('a>b', BOTH), pair('b>a', BOTH)], expected: 'none', because: /in a circle/ },
  { name: 'a service that calls itself', pairs: [pair('a>a', BOTH)], expected: 'none', because: /in a circle/ },
  {
    name: 'a circle of three beside something else',
    pairs: [pair('a>b', BOTH), pair('b>c', BOTH), pair('c>a', BOTH), pair('x>y', BOTH)],
    expected: 'none',
    because: /in a circle/,
  },
  {
    name: 'a circle that waits for something outside',
    pairs: [pair('a>b', BOTH), pair('b>a', BOTH), pair('b>c', BOTH)],
    expected: 'service c',
    because: /a -> b, b -> a wait for it/,
  },
  {
    name: 'a circle that is cut by a measured slow way',
    pairs: [pair('a>b', BOTH), pair('b>a', WAY)],
    expected: 'between b>a',
    because: /a -> b waits for it/,
  },
]) {
  test(`suspect: ${name}`, () => {
    const suspect = suspectOf(pairs)
    assert.equal(told(suspect), expected, suspect.because)
    assert.match(suspect.because, because)
    assert.equal(told(suspectOf([...pairs].reverse())), expected, 'the order of the pairs means nothing')
  })
}

/** The callee became 100 ms slower. */
const WAITS = facts({ beforeMs: 20, nowMs: 120 }, { beforeMs: 20, nowMs: 120 })
const wait = (nowMs: number, rps = 10): EdgeFacts => facts({ beforeMs: 8, nowMs }, { beforeMs: 8, nowMs }, rps)

for (const { name, hot, others, expected } of [
  { name: 'one that explains it', hot: [pair('a>b', WAITS)], others: [pair('b>c', wait(108))], expected: 'service c' },
  {
    name: 'one that is asked often enough',
    hot: [pair('a>b', WAITS)],
    others: [pair('b>c', wait(30, 30))],
    expected: 'service c',
  },
  {
    name: 'one that rose too little',
    hot: [pair('a>b', WAITS)],
    others: [pair('b>c', wait(30))],
    expected: 'service b',
  },
  {
    name: 'one that is as fast as before',
    hot: [pair('a>b', WAITS)],
    others: [pair('b>c', wait(8))],
    expected: 'service b',
  },
  { name: 'one that was not measured', hot: [pair('a>b', WAITS)], others: [pair('b>c', null)], expected: 'service b' },
  { name: 'one somewhere else', hot: [pair('a>b', WAITS)], others: [pair('x>y', wait(108))], expected: 'service b' },
  { name: 'one beside it', hot: [pair('a>b', WAITS)], others: [pair('a>y', wait(108))], expected: 'service b' },
  {
    name: 'one with a slow way',
    hot: [pair('a>b', WAITS)],
    others: [pair('b>c', facts({ beforeMs: 8, nowMs: 108 }, CALM))],
    expected: 'between b>c',
  },
  {
    name: 'a slow way before the callee is not the fault of what comes after it',
    hot: [pair('a>b', WAY)],
    others: [pair('b>c', wait(208))],
    expected: 'between a>b',
  },
  {
    name: 'one that several wait for',
    hot: [pair('a>b', WAITS), pair('a>c', WAITS)],
    others: [pair('b>d', wait(108)), pair('c>d', wait(108))],
    expected: 'service d',
  },
]) {
  test(`suspect: of edges that are not hot, ${name}`, () => {
    const suspect = suspectOf(hot, others)
    assert.equal(told(suspect), expected, suspect.because)
  })
}

for (const { name, side, change } of [
  { name: 'as it was', side: { beforeMs: 8, nowMs: 8 }, change: 'as before' },
  { name: 'just under the factor, in another bucket', side: { beforeMs: 9, nowMs: 11.6 }, change: 'as before' },
  { name: 'above the factor, in another bucket', side: { beforeMs: 9, nowMs: 11.8 }, change: 'slow' },
  { name: 'above the factor, in the same bucket', side: { beforeMs: 260, nowMs: 490 }, change: 'unclear' },
  { name: 'faster', side: { beforeMs: 208, nowMs: 8 }, change: 'as before' },
  { name: 'unknown now', side: { beforeMs: 8, nowMs: null }, change: 'unknown' },
  { name: 'unknown before', side: { beforeMs: null, nowMs: 8 }, change: 'unknown' },
  { name: 'nothing before', side: { beforeMs: 0, nowMs: 8 }, change: 'unknown' },
] as const) {
  test(`suspect: a side ${name} is ${change}`, () => {
    assert.equal(changeOf(side), change)
  })
}
