import {
  bandExpression,
  type EdgeFacts,
  type IstioNaming,
  type MeshFacts,
  NO_GAUGES,
  type PairGauges,
  sidesExpression,
} from './edge-facts.js'
import {
  type IncidentRules,
  type IncidentState,
  type Poll,
  type Severity,
  temperatureOf,
  type Transition,
  transition,
} from './incident.js'
import { type Pair, pairKey, pairName } from './pair.js'
import { isoTime, milliseconds, oneLine, percent, plainName, rounded } from './plain-text.js'
import { type Suspect, suspectOf } from './suspect.js'

/** What the packet says of one pair that is not cold. Null: not exported at the time of the poll. */
export interface PairEvidence extends Pair {
  readonly accumulator: number
  readonly accumulatorThreshold: number
  readonly hot: boolean
  /** Of the scored quantiles, the one that is furthest out. */
  readonly quantile: number | null
  readonly latencyMs: number | null
  readonly yhatMs: number | null
  readonly yMinMs: number | null
  readonly yMaxMs: number | null
  /** latencyMs / yhatMs. */
  readonly ratio: number | null
  readonly requestsPerSecond: number | null
  /** The first anomalous poll since the pair was last cold without an incident, unix seconds. */
  readonly firstAnomalousSeconds: number | null
  /**
   * The accumulator from then on, at most MAX_COURSE of its polls, evenly spread, the last one always. Empty beyond the hottest
   * MAX_ASKED pairs.
   */
  readonly course: Course
}

export type Course = readonly (readonly [timestampSeconds: number, accumulator: number])[]

/** What happens to an incident. `merged`: its pairs are part of an older one from now on. */
export type IncidentTransition = Transition | 'merged'

/** A query to see it again in Prometheus. */
export interface EvidenceQuery {
  readonly expression: string
  readonly startSeconds: number
  readonly endSeconds: number
}

/** The packet that every transition carries. Made of nothing but what two replicas read alike. */
export interface Evidence {
  /** The incident's. */
  readonly id: string
  readonly transition: IncidentTransition
  /** The id of the older incident; only where the transition is `merged`. */
  readonly mergedInto?: string
  /** Afterwards; null when it is closed. */
  readonly severity: Severity | null
  readonly previousSeverity: Severity | null
  readonly startedSeconds: number
  readonly timestampSeconds: number
  readonly temperature: number
  /** Those that are not cold, in the order of the rules: the hottest MAX_TOLD. */
  readonly pairs: readonly PairEvidence[]
  /** How many more are not cold; absent for none. */
  readonly pairsLeftOut?: number
  readonly suspect: Suspect
  /** Measured facts, a sentence each: faults in force, roll-outs, load, and what was not answered. */
  readonly hints: readonly string[]
  readonly queries: readonly EvidenceQuery[]
}

export const MAX_COURSE = 120

/** Pairs that a packet tells of, and those that are looked into closely. */
export const MAX_TOLD = 20
export const MAX_ASKED = 10

/** The way of one pair's accumulator since the pair was last cold. */
export interface Trail {
  readonly firstAnomalousSeconds: number | null
  /** Polls since then. */
  readonly polls: number
  /** Every how many of them is kept: doubled whenever there are too many. */
  readonly stride: number
  /** Times and accumulators by turns: as points of their own they would take four times the memory. */
  readonly kept: readonly number[]
  readonly last: readonly [timestampSeconds: number, accumulator: number] | null
}

export const NO_TRAIL: Trail = { firstAnomalousSeconds: null, polls: 0, stride: 1, kept: [], last: null }

/** A trail of a past nobody knows: no trail of a known past equals it. */
export const UNKNOWN_TRAIL: Trail = { ...NO_TRAIL, firstAnomalousSeconds: -1 }

export function noTrails({ pairs }: IncidentRules): readonly Trail[] {
  return pairs.map(() => NO_TRAIL)
}

/**
 * Trails of a past nobody knows. They become like others only through a moment at which every pair is cold: so trails
 * folded from here that equal those folded from none owe nothing to the time before.
 */
export function unknownTrails({ pairs }: IncidentRules): readonly Trail[] {
  return pairs.map(() => UNKNOWN_TRAIL)
}

/** @param after - `next(before, poll, rules)` */
export function nextTrails(
  trails: readonly Trail[],
  { before, after, poll }: { readonly before: IncidentState; readonly after: IncidentState; readonly poll: Poll },
): readonly Trail[] {
  return trails.map((trail, i) => {
    const from = before.open === null && before.accumulators[i] === 0 ? NO_TRAIL : trail
    const anomalous = poll.verdicts[i]?.kind === 'anomalous'
    return nextTrail(from, {
      anomalous,
      timestampSeconds: poll.timestampSeconds,
      accumulator: after.accumulators[i] ?? 0,
    })
  })
}

/** @param poll - what it found of the pair, and the accumulator after it; @param maxCourse - an even number */
export function nextTrail(
  trail: Trail,
  poll: { readonly anomalous: boolean; readonly timestampSeconds: number; readonly accumulator: number },
  maxCourse = MAX_COURSE,
): Trail {
  const { anomalous, timestampSeconds, accumulator } = poll
  if (trail.firstAnomalousSeconds === null && !anomalous) return NO_TRAIL
  const kept = trail.polls % trail.stride === 0 ? [...trail.kept, timestampSeconds, accumulator] : trail.kept
  // One place is left for the last poll.
  const full = kept.length >= 2 * maxCourse
  return {
    firstAnomalousSeconds: trail.firstAnomalousSeconds ?? timestampSeconds,
    polls: trail.polls + 1,
    stride: full ? 2 * trail.stride : trail.stride,
    kept: full ? kept.filter((_, i) => i % 4 < 2) : kept,
    last: [timestampSeconds, accumulator],
  }
}

export function courseOf({ kept, last }: Trail): Course {
  const points = Array.from(
    { length: kept.length / 2 },
    (_, i) => [kept[2 * i] ?? NaN, kept[2 * i + 1] ?? NaN] as const,
  )
  return last === null || points.at(-1)?.[0] === last[0] ? points : [...points, last]
}

/**
 * Derived from what replicas share: when the incident began, and which pairs are watched, in whatever order. The hash is
 * FNV-1a, 32 bits (Fowler, Noll, Vo; RFC 9923).
 */
export function incidentId(startedSeconds: number, pairs: readonly Pair[]): string {
  const time = isoTime(startedSeconds).replace(/[-:]/g, '')
  return `${time}-${fnv1a(pairs.map(pairKey).sort().join('\n'))}`
}

function fnv1a(text: string): string {
  let hash = 0x811c9dc5
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return hash.toString(16).padStart(8, '0')
}

/** A transition, before Prometheus is asked about it. */
export interface Happened {
  readonly transition: IncidentTransition
  /** The incident's, where it is not that of the rules' pairs. */
  readonly id?: string
  readonly mergedInto?: string
  readonly startedSeconds: number
  readonly before: IncidentState
  readonly after: IncidentState
  readonly timestampSeconds: number
  /** Up to and with the poll of the transition. */
  readonly trails: readonly Trail[]
}

/** The transition between two states, if there is one. */
export function happenedBetween(
  before: IncidentState,
  after: IncidentState,
  { timestampSeconds, trails }: Pick<Happened, 'timestampSeconds' | 'trails'>,
): Happened | null {
  const happened = transition(before, after)
  const startedSeconds = (after.open ?? before.open)?.startedSeconds
  if (happened === null || startedSeconds === undefined) return null
  return { transition: happened, startedSeconds, before, after, timestampSeconds, trails }
}

/** The pairs that the incident is about: those that are hot, or all that are not cold when none is. */
function involvedPairs({ after, trails }: Happened, { pairs }: IncidentRules): readonly Pair[] {
  const hot = pairs.filter((pair, i) => (after.accumulators[i] ?? 0) > pair.accumulatorThreshold)
  return hot.length > 0 ? hot : pairs.filter((_, i) => isTold(after.accumulators[i], trails[i]))
}

function isTold(accumulator = 0, { firstAnomalousSeconds }: Trail = NO_TRAIL): boolean {
  return accumulator > 0 || firstAnomalousSeconds !== null
}

/**
 * The pairs that Prometheus is asked about, at most MAX_ASKED. Of more, those that no hot pair leads on from, since what is
 * slow there makes the others slow; of these, those whose destination the most of them share.
 */
export function askedPairs(happened: Happened, rules: IncidentRules): readonly Pair[] {
  const involved = involvedPairs(happened, rules)
  if (involved.length <= MAX_ASKED) return involved
  const callers = new Set(involved.map(({ source }) => source))
  const ends = new Map<string, number>()
  for (const { destination } of involved) {
    if (!callers.has(destination)) ends.set(destination, (ends.get(destination) ?? 0) + 1)
  }
  const shared = ({ destination }: Pair): number => ends.get(destination) ?? 0
  return involved.toSorted((a, b) => shared(b) - shared(a)).slice(0, MAX_ASKED)
}

/** The pairs whose monitors' values are told: the hottest, and those that are asked about. */
export function toldPairs(happened: Happened, rules: IncidentRules): readonly Pair[] {
  if (rules.pairs.length <= MAX_TOLD) return rules.pairs
  const told = hottest(happened.after.accumulators, MAX_TOLD).flatMap((i) => rules.pairs[i] ?? [])
  return [...new Set([...told, ...askedPairs(happened, rules)])]
}

/** The places of the highest levels, highest first; of equal ones the first. */
function hottest(levels: readonly number[], count: number): readonly number[] {
  return [...levels.keys()].sort((a, b) => (levels[b] ?? 0) - (levels[a] ?? 0)).slice(0, count)
}

/** The first anomalous poll of any pair; the incident's start when none is known. */
export function firstAnomalousSeconds({ trails, startedSeconds }: Happened): number {
  return Math.min(startedSeconds, ...trails.flatMap(({ firstAnomalousSeconds: first }) => first ?? []))
}

/** What Prometheus answered about a transition; an Unanswered where it did not. */
export interface Findings {
  readonly gauges: ReadonlyMap<string, PairGauges> | Unanswered
  readonly facts: MeshFacts | Unanswered
}

export interface Unanswered {
  readonly unanswered: string
}

/** More than these are not spelled out. */
const MAX_QUERIED_PAIRS = 10

/** How much of the time before the first anomaly a query shows, in rate windows. */
const SHOWN_WINDOWS = 5

export function evidenceOf(
  happened: Happened,
  { gauges, facts }: Findings,
  { rules, istio }: { readonly rules: IncidentRules; readonly istio: IstioNaming },
): Evidence {
  const { before, after, trails, startedSeconds, timestampSeconds, mergedInto } = happened
  const values = 'unanswered' in gauges ? new Map<string, PairGauges>() : gauges
  const notCold = rules.pairs.flatMap((_, i) => (isTold(after.accumulators[i], trails[i]) ? [i] : []))
  const byHeat = hottest(
    notCold.map((i) => after.accumulators[i] ?? 0),
    MAX_TOLD,
  ).flatMap((place) => notCold[place] ?? [])
  const withCourse = new Set(byHeat.slice(0, MAX_ASKED))
  const pairs = byHeat
    .toSorted((a, b) => a - b)
    .flatMap((i): readonly PairEvidence[] => {
      const pair = rules.pairs[i]
      if (pair === undefined) return []
      const { source, destination, accumulatorThreshold } = pair
      const trail = trails[i] ?? NO_TRAIL
      const accumulator = after.accumulators[i] ?? 0
      const exported = values.get(pairKey(pair)) ?? NO_GAUGES
      const { latencyMs, yhatMs } = exported
      return [
        {
          source,
          destination,
          accumulator,
          accumulatorThreshold,
          hot: accumulator > accumulatorThreshold,
          ...exported,
          ratio: latencyMs === null || yhatMs === null || !(yhatMs > 0) ? null : latencyMs / yhatMs,
          firstAnomalousSeconds: trail.firstAnomalousSeconds,
          course: withCourse.has(i) ? courseOf(trail) : [],
        },
      ]
    })
  const asked = askedPairs(happened, rules)
  const suspect = suspectIn(happened, involvedPairs(happened, rules), facts)
  const startSeconds = firstAnomalousSeconds(happened) - SHOWN_WINDOWS * istio.window.seconds
  return {
    id: happened.id ?? incidentId(startedSeconds, rules.pairs),
    transition: happened.transition,
    ...(mergedInto === undefined ? {} : { mergedInto }),
    severity: after.open?.severity ?? null,
    previousSeverity: before.open?.severity ?? null,
    startedSeconds,
    timestampSeconds,
    temperature: temperatureOf(after.accumulators),
    pairs,
    ...(notCold.length > pairs.length ? { pairsLeftOut: notCold.length - pairs.length } : {}),
    suspect,
    hints: [
      ...('unanswered' in gauges ? [`not answered: the monitors' values (${plainName(gauges.unanswered)})`] : []),
      ...('unanswered' in facts
        ? [`not answered: Istio's own metrics (${plainName(facts.unanswered)})`]
        : hintsOf(asked, facts)),
    ],
    queries: suspectFirst(asked, suspect)
      .slice(0, MAX_QUERIED_PAIRS)
      .flatMap((pair) => {
        const quantile = values.get(pairKey(pair))?.quantile ?? DEFAULT_QUANTILE
        return [sidesExpression(pair, quantile, istio), bandExpression(pair)].map((expression) => ({
          expression,
          startSeconds,
          endSeconds: timestampSeconds,
        }))
      }),
  }
}

/** The pairs to look at again: first where the suspect shows. */
function suspectFirst(asked: readonly Pair[], suspect: Suspect): readonly Pair[] {
  switch (suspect.kind) {
    case 'between': {
      const way = { source: suspect.source, destination: suspect.destination }
      return [way, ...asked.filter((pair) => pairKey(pair) !== pairKey(way))]
    }
    case 'service': {
      const shows = ({ destination }: Pair): number => (destination === suspect.name ? 0 : 1)
      return asked.toSorted((a, b) => shows(a) - shows(b))
    }
    case 'none':
      return asked
  }
}

/** Asked for where no monitor says which quantile it scores. */
export const DEFAULT_QUANTILE = 0.5

function suspectIn({ after, mergedInto }: Happened, involved: readonly Pair[], facts: Findings['facts']): Suspect {
  if (mergedInto !== undefined) return { kind: 'none', because: `incident ${mergedInto} goes on with it` }
  if (after.open === null) return { kind: 'none', because: 'the incident is over: its earlier transitions tell' }
  const known = 'unanswered' in facts ? null : facts
  const injected = (pair: Pair): MeshFacts['injected'] =>
    (known?.injected ?? []).filter((fault) => pairKey(fault) === pairKey(pair))
  const hot = involved.map(({ source, destination }) => {
    const pair = { source, destination }
    return { ...pair, facts: known?.edges.get(pairKey(pair)) ?? null, injected: injected(pair) }
  })
  const keys = new Set(involved.map(pairKey))
  const others = [...(known?.edges ?? [])].flatMap(([key, edge]) =>
    keys.has(key)
      ? []
      : [{ source: edge.source, destination: plainName(edge.destination), facts: edge, injected: injected(edge) }],
  )
  return suspectOf(hot, others)
}

const MAX_HINTS = 20

/** Load has changed when the requests are this many times what they were, or less than one part in as many. */
const LOAD_RATIO = 1.5

function hintsOf(asked: readonly Pair[], { edges, injected }: MeshFacts): readonly string[] {
  const name = ({ source, destination }: Pair): string => `${plainName(source)} -> ${plainName(destination)}`
  const hints = [
    ...injected.map((found) => `${injectedHint(found)} of requests on ${name(found)}`),
    ...asked.flatMap((pair) => {
      const facts = edges.get(pairKey(pair))
      return facts === undefined ? [] : [...rollOutHints(name(pair), facts), ...loadHints(name(pair), facts)]
    }),
  ]
  return hints.length <= MAX_HINTS ? hints : [...hints.slice(0, MAX_HINTS), `${hints.length - MAX_HINTS} more`]
}

const FAULT_INJECTED = 'fault injected'

/** `fault injected: Envoy reports delays (response_flags DI) for 100 %`. */
function injectedHint({ fault, share }: MeshFacts['injected'][number]): string {
  return `${FAULT_INJECTED}: Envoy reports ${fault}s (response_flags ${fault === 'delay' ? 'DI' : 'FI'}) for ${percent(share)}`
}

function rollOutHints(name: string, { versions, quantile }: EdgeFacts): readonly string[] {
  if (versions.length < 2) return []
  const told = versions.map(({ version, share, latencyMs }) => {
    const latency = latencyMs === null ? '' : `, p${rounded(100 * quantile)} ${milliseconds(latencyMs)}`
    return `${plainName(version)} (${percent(share)} of requests${latency})`
  })
  return [`${versions.length} versions of the destination carry traffic on ${name}: ${told.join(', ')}`]
}

function loadHints(name: string, { requestsPerSecond: { before, now } }: EdgeFacts): readonly string[] {
  if (before === null || now === null || !(before > 0)) return []
  if (now / before < LOAD_RATIO && now / before > 1 / LOAD_RATIO) return []
  return [`load on ${name}: ${rounded(now)} requests/s, ${rounded(now / before)} times the ${rounded(before)}/s before`]
}

/** Pairs that the first line spells out. */
const MAX_TOLD_PAIRS = 4

/** The packet in three lines for people: what, how severe, since when, by how much; whose fault; how to see it again. */
export function evidenceText(evidence: Evidence): readonly [string, string, string] {
  const { transition: what, severity, previousSeverity, suspect, hints, pairs, pairsLeftOut = 0, queries } = evidence
  const level =
    severity === null
      ? `was Sev ${previousSeverity ?? '?'}`
      : previousSeverity === null || previousSeverity === severity
        ? `Sev ${severity}`
        : `Sev ${severity}, was Sev ${previousSeverity}`
  const told = pairs.toSorted((a, b) => b.accumulator - a.accumulator).map(pairWords)
  const more = pairs.length + pairsLeftOut - MAX_TOLD_PAIRS
  const [query] = queries
  const lines = [
    `Incident ${evidence.id} ${what} (${level}) at ${isoTime(evidence.timestampSeconds)}, began ${isoTime(evidence.startedSeconds)}, temperature ${rounded(evidence.temperature)}: ${[...told.slice(0, MAX_TOLD_PAIRS), ...(more > 0 ? [`${more} more`] : [])].join('; ')}`,
    [suspectWords(suspect), ...hints.filter((hint) => !isSuspects(hint, suspect))].join('. '),
    query === undefined
      ? 'See it again: nothing to ask for'
      : `See it again from ${isoTime(query.startSeconds)} to ${isoTime(query.endSeconds)}: ${query.expression}${queries.length > 1 ? ` (and ${queries.length - 1} more in the JSON)` : ''}`,
  ] as const
  return [oneLine(lines[0]), oneLine(lines[1]), oneLine(lines[2])]
}

/** A fault on the suspected way is part of why it is suspected. */
function isSuspects(hint: string, suspect: Suspect): boolean {
  return suspect.kind === 'between' && hint.startsWith(FAULT_INJECTED) && hint.endsWith(` on ${pairName(suspect)}`)
}

function suspectWords(suspect: Suspect): string {
  switch (suspect.kind) {
    case 'service':
      return `Suspect: ${suspect.name}, because ${suspect.because}`
    case 'between':
      return `Suspect: the way from ${suspect.source} to ${suspect.destination} (network, proxy, retries, an injected fault), because ${suspect.because}`
    case 'none':
      return `No suspect: ${suspect.because}`
  }
}

function pairWords(pair: PairEvidence): string {
  const { latencyMs, quantile, yhatMs, yMinMs, yMaxMs, ratio, requestsPerSecond, firstAnomalousSeconds: first } = pair
  const latency =
    latencyMs === null
      ? 'latency unknown'
      : [
          `${quantile === null ? '' : `p${rounded(100 * quantile)} `}${milliseconds(latencyMs)}`,
          ...(ratio === null ? [] : [`${rounded(ratio)} times the expected ${milliseconds(yhatMs)}`]),
          ...(yMinMs === null || yMaxMs === null ? [] : [`band ${rounded(yMinMs)} to ${rounded(yMaxMs)}`]),
        ].join(', ')
  return [
    `${pairName(pair)} ${latency}`,
    ...(requestsPerSecond === null ? [] : [`${rounded(requestsPerSecond)} requests/s`]),
    `accumulator ${rounded(pair.accumulator)}${pair.hot ? ', hot' : ''}`,
    ...(first === null ? [] : [`anomalous since ${isoTime(first)}`]),
  ].join(', ')
}
