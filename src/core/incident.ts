/*
 * The incident rule, a fold over polls: next(state, poll, rules) -> state.
 *
 * pair         an edge of the mesh, source to destination
 * accumulator  one number per pair: rises by the anomaly count of an anomalous poll, falls by coolBy on an ok one
 * temperature  the sum of the accumulators
 */
import type { Pair } from './pair.js'

/** What one poll says of a pair. Silence in any form is `unknown`: evidence of nothing. */
export type PairVerdict =
  | { readonly kind: 'anomalous'; readonly anomalyCount: number }
  | { readonly kind: 'ok' }
  | { readonly kind: 'unknown'; readonly reason: 'low_traffic' | 'no_data' | 'warming' | 'stale' }

export interface WatchedPair extends Pair {
  /** The pair is hot when its accumulator is above this. */
  readonly accumulatorThreshold: number
}

export interface IncidentRules {
  /** At least one; the order is that of the verdicts and the accumulators. */
  readonly pairs: readonly WatchedPair[]
  /** An incident opens when the temperature is above this. */
  readonly incidentThreshold: number
  /** An open incident closes when the temperature is at or below this. At most incidentThreshold. */
  readonly clearThreshold: number
  readonly coolBy: number
  readonly accumulatorMax: number
  /** Seconds without evidence on every pair that is not cold, after which it is forgotten. */
  readonly noDataTimeoutSeconds: number
}

export interface Poll {
  /** Unix seconds, by Prometheus's clock. */
  readonly timestampSeconds: number
  /** One per pair. */
  readonly verdicts: readonly PairVerdict[]
}

export type Severity = 1 | 2

export interface OpenIncident {
  /** When the temperature rose above the threshold, unix seconds. */
  readonly startedSeconds: number
  readonly severity: Severity
}

export interface IncidentState {
  /** One per pair, each from 0 to accumulatorMax. */
  readonly accumulators: readonly number[]
  /** When each pair was last heard of, unix seconds; null for never. */
  readonly heardSeconds: readonly (number | null)[]
  readonly open: OpenIncident | null
  /** True for the one poll in which silence ended what was there. */
  readonly expired: boolean
}

export const NO_SEVERITY = 0

export function coldState({ pairs }: IncidentRules): IncidentState {
  return { accumulators: pairs.map(() => 0), heardSeconds: pairs.map(() => null), open: null, expired: false }
}

/**
 * The hottest state there can be. A fold from here and one from the cold state that arrive at the same state prove that
 * nothing before their first poll matters any more (coupling from the past: Propp & Wilson, Random Struct. Algorithms 9, 1996).
 */
export function hottestState(rules: IncidentRules, startedSeconds: number): IncidentState {
  const accumulators = rules.pairs.map(() => rules.accumulatorMax)
  const opens = temperatureOf(accumulators) > rules.incidentThreshold
  return {
    accumulators,
    heardSeconds: rules.pairs.map(() => startedSeconds),
    open: opens ? { startedSeconds, severity: severityOf(accumulators, rules) } : null,
    expired: false,
  }
}

export function temperatureOf(accumulators: readonly number[]): number {
  return accumulators.reduce((sum, level) => sum + level, 0)
}

export function next(state: IncidentState, poll: Poll, rules: IncidentRules): IncidentState {
  const { timestampSeconds } = poll
  const heardSeconds = state.heardSeconds.map((heard, i) =>
    verdictAt(poll, i).kind === 'unknown' ? heard : timestampSeconds,
  )
  const raised = state.accumulators.map((level, i) => nextAccumulator(level, verdictAt(poll, i), rules))
  const expired =
    raised.some((level) => level > 0) &&
    raised.every(
      (level, i) => level === 0 || silentFor(heardSeconds[i], timestampSeconds) >= rules.noDataTimeoutSeconds,
    )
  const accumulators = expired ? raised.map(() => 0) : raised
  const temperature = temperatureOf(accumulators)
  const wasOpen = state.open !== null
  const isOpen = wasOpen ? temperature > rules.clearThreshold : temperature > rules.incidentThreshold
  return {
    accumulators,
    heardSeconds,
    open: isOpen
      ? {
          startedSeconds: state.open?.startedSeconds ?? timestampSeconds,
          severity: severityOf(accumulators, rules),
        }
      : null,
    expired,
  }
}

function verdictAt({ verdicts }: Poll, pair: number): PairVerdict {
  return verdicts[pair] ?? { kind: 'unknown', reason: 'no_data' }
}

function silentFor(heardSeconds: number | null | undefined, nowSeconds: number): number {
  return heardSeconds === null || heardSeconds === undefined ? Infinity : nowSeconds - heardSeconds
}

/** What a poll makes of one accumulator. */
export function nextAccumulator(
  level: number,
  verdict: PairVerdict,
  rules: Pick<IncidentRules, 'accumulatorMax' | 'coolBy'>,
): number {
  switch (verdict.kind) {
    case 'anomalous':
      return Math.min(rules.accumulatorMax, level + verdict.anomalyCount)
    case 'ok':
      return Math.max(0, level - rules.coolBy)
    case 'unknown':
      return level // silence is evidence of nothing
  }
}

function severityOf(accumulators: readonly number[], { pairs }: IncidentRules): Severity {
  const hot = accumulators.filter((level, i) => level > (pairs[i]?.accumulatorThreshold ?? Infinity))
  return hot.length >= 2 ? 1 : 2
}

export type Transition = 'opened' | 'escalated' | 'de-escalated' | 'resolved' | 'expired'

/** What happened to the incident between two states, if anything did. */
export function transition(before: IncidentState, after: IncidentState): Transition | null {
  if (before.open === null) return after.open === null ? null : 'opened'
  if (after.open === null) return after.expired ? 'expired' : 'resolved'
  if (after.open.severity === before.open.severity) return null
  return after.open.severity < before.open.severity ? 'escalated' : 'de-escalated'
}

/** What the rules promise, in polls; null for never. */
export interface TimingContract {
  /** Polls from the first anomaly on one pair until Sev 2. */
  readonly toSev2: number | null
  /** Polls from the first anomaly on two pairs at once until Sev 1. */
  readonly toSev1: number | null
  /** Longest run of anomalous polls on one pair, from cold, that opens no incident; null when none ever does. */
  readonly tolerated: number | null
  /** Polls from recovery until the incident is closed, at most: from one hot pair and from all of them. */
  readonly onePairToClosed: number | null
  readonly allPairsToClosed: number | null
}

/** Longer than any configuration that makes sense. */
const MAX_CONTRACT_POLLS = 100_000

/** Worked out by running the rule itself on the simplest histories there are. */
export function timingContract(rules: IncidentRules): TimingContract {
  const polls = (from: IncidentState, bad: number, done: (state: IncidentState) => boolean): number | null => {
    let state = from
    for (let n = 1; n <= MAX_CONTRACT_POLLS; n++) {
      const verdicts = rules.pairs.map((_, i): PairVerdict =>
        i < bad ? { kind: 'anomalous', anomalyCount: 1 } : { kind: 'ok' },
      )
      const after = next(state, { timestampSeconds: n, verdicts }, rules)
      if (done(after)) return n
      if (after.open?.severity === state.open?.severity && sameNumbers(after.accumulators, state.accumulators))
        return null
      state = after
    }
    return null
  }
  const cold = coldState(rules)
  const hot = (pairs: number): IncidentState => {
    const { accumulators, ...state } = hottestState(rules, 0)
    const levels = accumulators.map((level, i) => (i < pairs ? level : 0))
    return { ...state, accumulators: levels, open: { startedSeconds: 0, severity: severityOf(levels, rules) } }
  }
  const toSev2 = polls(cold, 1, ({ open }) => open !== null)
  return {
    toSev2,
    toSev1: rules.pairs.length < 2 ? null : polls(cold, 2, ({ open }) => open?.severity === 1),
    tolerated: toSev2 === null ? null : toSev2 - 1,
    onePairToClosed: polls(hot(1), 0, ({ open }) => open === null),
    allPairsToClosed: polls(hot(rules.pairs.length), 0, ({ open }) => open === null),
  }
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  return a.every((value, i) => value === b[i])
}
