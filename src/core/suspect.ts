/*
 * Whose fault an incident probably is, as far as measurements tell. No probability is made up: `because` says which facts a
 * suspect rests on, and where they do not tell, there is none.
 */
import { changeOf, type EdgeFacts, type InjectedFault, resolutionMs, roseMs } from './edge-facts.js'
import { type Pair, pairKey, pairName } from './pair.js'
import { firstFew, milliseconds, percent } from './plain-text.js'

export type Suspect =
  | { readonly kind: 'service'; readonly name: string; readonly because: string }
  | { readonly kind: 'between'; readonly source: string; readonly destination: string; readonly because: string }
  | { readonly kind: 'none'; readonly because: string }

export interface HotPair extends Pair {
  /** What Istio measured on both sides; null when that was not answered. */
  readonly facts: EdgeFacts | null
  /** Faults that the caller's sidecar reports to inject into this pair. */
  readonly injected: readonly InjectedFault[]
}

/** Where on its own pair a hot pair's time is lost, by the latency that either side measured. */
interface Place {
  readonly at: 'destination' | 'between' | 'untold'
  readonly because: string
}

/** More pairs than these are counted and not named. */
const FEW = 5

/** The callee explains its caller's wait when its own latency rose by at least this part of what the caller's rose by. */
const EXPLAINED = 0.5

/**
 * @param others - edges that leave the hot pairs' services and are not hot, or not watched: where a hot pair's callee waits
 * for one of them long enough to explain it, it is the edge that is judged
 */
export function suspectOf(hot: readonly HotPair[], others: readonly HotPair[] = []): Suspect {
  if (hot.length === 0) return { kind: 'none', because: 'no pair is hot' }
  const hotPairs = [...hot, ...others.filter((other) => hot.some((pair) => explainsWait(pair, other)))]
  const places = new Map(hotPairs.map((pair) => [pairKey(pair), placeOf(pair)]))
  const at = (pair: Pair): Place['at'] => places.get(pairKey(pair))?.at ?? 'untold'
  // Downstream first: who waits for a slow callee is slow, too, unless the time is measured to be lost on the way to it.
  const waitsFor = (pair: HotPair): readonly HotPair[] =>
    at(pair) === 'between' ? [] : hotPairs.filter(({ source }) => source === pair.destination)
  const ends = hotPairs.filter((pair) => waitsFor(pair).length === 0)
  const [end] = ends
  const explained = reached(ends, hotPairs, waitsFor)
  if (end === undefined || explained.size < hotPairs.length) {
    return { kind: 'none', because: `${names(hotPairs)} call each other in a circle: which of them began is not told` }
  }
  const upstream = hotPairs.filter((pair) => !ends.includes(pair))
  const waiting = upstream.length === 0 ? '' : `; ${names(upstream)} ${upstream.length === 1 ? 'waits' : 'wait'} for it`
  const because = (pair: HotPair): string => places.get(pairKey(pair))?.because ?? ''
  if (ends.length === 1) return suspectOfOne(end, at(end), { because: because(end), waiting })

  const told = firstFew(
    ends.map((pair) => `${pairName(pair)}: ${because(pair)}`),
    FEW,
    '; ',
  )
  if (ends.every(({ destination }) => destination === end.destination)) {
    const onTheWay = ends.every((pair) => at(pair) === 'between') ? ', on the way into it' : ''
    return {
      kind: 'service',
      name: end.destination,
      because: `the pairs ${names(ends)} share it as their destination${onTheWay}${waiting} (${told})`,
    }
  }
  if (ends.every(({ source }) => source === end.source) && ends.every((pair) => at(pair) !== 'destination')) {
    return {
      kind: 'service',
      name: end.source,
      because: `the pairs ${names(ends)} share it as their source, and no destination is slow by its own measurement${waiting} (${told})`,
    }
  }
  return { kind: 'none', because: `${ends.length} places, and nothing that they share (${told})` }
}

function suspectOfOne(
  { source, destination }: HotPair,
  at: Place['at'],
  { because, waiting }: { readonly because: string; readonly waiting: string },
): Suspect {
  switch (at) {
    case 'destination':
      return { kind: 'service', name: destination, because: `${because}${waiting}` }
    case 'between':
      return { kind: 'between', source, destination, because: `${because}${waiting}` }
    case 'untold':
      return waiting === ''
        ? { kind: 'none', because }
        : { kind: 'service', name: destination, because: `it is the furthest downstream${waiting}; ${because}` }
  }
}

/** The pairs from which one of `ends` is reached along hot pairs, the ends included. */
function reached(
  ends: readonly HotPair[],
  pairs: readonly HotPair[],
  waitsFor: (pair: HotPair) => readonly HotPair[],
): ReadonlySet<HotPair> {
  const found = new Set(ends)
  for (let before = -1; before < found.size;) {
    before = found.size
    for (const pair of pairs) if (waitsFor(pair).some((callee) => found.has(callee))) found.add(pair)
  }
  return found
}

/** Whether what `pair`'s callee waits for `other`, as often as it asks, explains how much slower the callee became. */
function explainsWait(pair: HotPair, other: HotPair): boolean {
  if (other.source !== pair.destination || pair.facts === null || other.facts === null) return false
  if (placeOf(pair).at === 'between') return false
  if (changeOf(other.facts.callerSide) !== 'slow') return false
  const waitMs = [pair.facts.calleeSide, pair.facts.callerSide].map(roseMs).find(Number.isFinite) ?? Infinity
  const [asked, asks] = [pair.facts.requestsPerSecond.now ?? 0, other.facts.requestsPerSecond.now ?? 0]
  const asksPerRequest = asked > 0 ? Math.max(1, asks / asked) : 1
  return waitMs > 0 && roseMs(other.facts.callerSide) * asksPerRequest >= EXPLAINED * waitMs
}

function placeOf({ source, destination, facts, injected }: HotPair): Place {
  if (facts === null) return { at: 'untold', because: "neither side's measurement was answered" }
  const { callerSide, calleeSide, quantile } = facts
  const [caller, callee] = [changeOf(callerSide), changeOf(calleeSide)]
  const told = (side: EdgeFacts['callerSide']): string =>
    `${milliseconds(side.beforeMs)} before, ${milliseconds(side.nowMs)} now`
  const fault = injected.length === 0 ? '' : `; on it ${injected.map(injectedWords).join(' and ')}`
  // A fault on enough requests to move the quantile is the way between, whoever else measures.
  const enough = injected.some(({ fault: kind, share }) => kind === 'delay' && share >= 1 - quantile)
  if (callee === 'unknown') {
    const seen = `measured on the caller's side only (${told(callerSide)}; no destination-side measurement of ${destination})${fault}`
    return enough && caller === 'slow' ? { at: 'between', because: seen } : { at: 'untold', because: seen }
  }
  const sides = `measured on both sides: ${source}'s ${told(callerSide)}; ${destination}'s own ${told(calleeSide)}${fault}`
  if (caller !== 'slow') {
    return { at: 'untold', because: `${sides}; the caller's side is not clearly slower than before` }
  }
  // Inside one bucket a quantile may have moved by all of the bucket's width.
  const calleeRoseMs = callee === 'unclear' ? resolutionMs(calleeSide.nowMs ?? NaN) : roseMs(calleeSide)
  const explains = calleeRoseMs >= EXPLAINED * roseMs(callerSide)
  if (!explains) return { at: 'between', because: `only the caller's side is slow, ${sides}` }
  if (callee === 'slow') return { at: 'destination', because: `both sides are slow, ${sides}` }
  return { at: 'untold', because: `${sides}; the difference is within what a histogram bucket can tell` }
}

function injectedWords({ fault, share }: InjectedFault): string {
  const flag = fault === 'delay' ? 'DI' : 'FI'
  return `${fault}s (response_flags ${flag}) are injected into ${percent(share)} of requests`
}

function names(pairs: readonly Pair[]): string {
  return firstFew(pairs.map(pairName), FEW, ', ')
}
