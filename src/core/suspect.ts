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

/** A place that explains all hot pairs but fewer than this part of those it explains is named all the same. */
const STRAY = 0.1

/**
 * @param others - edges that leave the hot pairs' services and are not hot, or not watched: where a hot pair's callee waits
 * for one of them long enough to explain it, it is the edge that is judged
 */
export function suspectOf(hot: readonly HotPair[], others: readonly HotPair[] = []): Suspect {
  if (hot.length === 0) return { kind: 'none', because: 'no pair is hot' }
  const measured = hot.filter(({ facts }) => facts !== null)
  const mesh = hotMesh([...hot, ...others.filter((other) => measured.some((pair) => explainsWait(pair, other)))])
  const main = mainPart(mesh)
  if (main === null) return suspectIn(mesh)
  const suspect = suspectIn(main)
  const kept = new Set(main.pairs)
  const strays = names(mesh.pairs.filter((pair) => !kept.has(pair)))
  return { ...suspect, because: `${suspect.because}; ${strays} lead elsewhere` }
}

/** The hot pairs as a graph. */
interface HotMesh {
  readonly pairs: readonly HotPair[]
  readonly place: (pair: Pair) => Place
  /** Those that wait for no hot pair. Downstream first: who waits for a slow callee is slow, too. */
  readonly ends: readonly HotPair[]
  /** Those from which one of `some` is reached along hot pairs, these included. */
  readonly leadingTo: (some: readonly HotPair[]) => ReadonlySet<HotPair>
}

function hotMesh(pairs: readonly HotPair[]): HotMesh {
  const places = new Map(pairs.map((pair) => [pairKey(pair), placeOf(pair)]))
  const place = (pair: Pair): Place => places.get(pairKey(pair)) ?? { at: 'untold', because: '' }
  const sources = new Set(pairs.map(({ source }) => source))
  const callers = new Map<string, HotPair[]>()
  // Unless the time is measured to be lost on the way to it: then a pair waits for nobody.
  const waiting = pairs.filter((pair) => place(pair).at !== 'between' && sources.has(pair.destination))
  for (const pair of waiting) {
    const known = callers.get(pair.destination)
    if (known === undefined) callers.set(pair.destination, [pair])
    else known.push(pair)
  }
  const waits = new Set(waiting)
  return {
    pairs,
    place,
    ends: pairs.filter((pair) => !waits.has(pair)),
    leadingTo: (some) => {
      const found = new Set(some)
      // A set that grows is walked to its new end.
      for (const { source } of found) for (const caller of callers.get(source) ?? []) found.add(caller)
      return found
    },
  }
}

/**
 * The part of a large incident that leads to one destination, when it is nearly all of it: in a mesh of thousands of pairs
 * some are always hot for a reason of their own. Null when there is no such part, or nothing beside it.
 */
function mainPart({ pairs, ends, leadingTo }: HotMesh): HotMesh | null {
  const byDestination = new Map<string, HotPair[]>()
  for (const end of ends) byDestination.set(end.destination, [...(byDestination.get(end.destination) ?? []), end])
  const [largest] = [...byDestination.values()].sort((a, b) => b.length - a.length)
  if (largest === undefined) return null
  const part = leadingTo(largest)
  const strays = pairs.length - part.size
  return strays > 0 && strays < STRAY * part.size ? hotMesh(pairs.filter((pair) => part.has(pair))) : null
}

function suspectIn({ pairs, place, ends, leadingTo }: HotMesh): Suspect {
  const at = (pair: Pair): Place['at'] => place(pair).at
  const [end] = ends
  if (end === undefined || leadingTo(ends).size < pairs.length) {
    return { kind: 'none', because: `${names(pairs)} call each other in a circle: which of them began is not told` }
  }
  const last = new Set(ends)
  const upstream = pairs.filter((pair) => !last.has(pair))
  const waiting = upstream.length === 0 ? '' : `; ${names(upstream)} ${upstream.length === 1 ? 'waits' : 'wait'} for it`
  const because = (pair: HotPair): string => place(pair).because
  if (ends.length === 1) return suspectOfOne(end, at(end), { because: because(end), waiting })

  const told = firstFew(
    // Measured ones first: of a large incident only some pairs are.
    ends.toSorted((a, b) => unmeasured(a) - unmeasured(b)).map((pair) => `${pairName(pair)}: ${because(pair)}`),
    FEW,
    '; ',
  )
  if (ends.every(({ destination }) => destination === end.destination)) {
    const measured = ends.filter(({ facts }) => facts !== null)
    const onTheWay =
      measured.length > 0 && measured.every((pair) => at(pair) === 'between') ? ', on the way into it' : ''
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

function unmeasured({ facts }: HotPair): number {
  return facts === null ? 1 : 0
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
