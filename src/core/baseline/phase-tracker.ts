/*
 * Where in its load cycle a stream is: a weight for each shift of the phase against the training, moved by each calm sample (a
 * Bayes filter on a circle: Bar-Shalom et al., Estimation with Applications, 2001), and a level for each shift. Functions over
 * one array, and nothing else is kept: a mesh has thousands of them.
 */
import { clamp } from './robust-error.js'
import { phaseAt, type Season, seasonIn } from './season.js'

/** Random walk of the phase, cycles per square root of a cycle: load that people make does not keep time exactly. */
const PHASE_DRIFT = 0.02

/** A sample this many sigmas off every phase tells nothing of the phase. */
const MAX_SIGMAS = 3

/** How sure the phase is when the stream goes on where the training ended: +-3 % of a cycle. */
const CONTINUED_SIGMA = 0.03

/** No phase is ever ruled out. */
const LEAST_WEIGHT = 1e-4

/** A weight for each phase of the season, above 0 and 1 in sum; then a level for each: log latency on top of the season. */
export type PhaseBelief = Float32Array

/** Any phase is as likely as another. @param level - of all of them */
export function anyPhase({ profile }: Season, level: number): PhaseBelief {
  const phases = profile.length
  return new Float32Array(2 * phases).fill(1 / phases, 0, phases).fill(level, phases)
}

/** The stream goes on where the training ended. */
export function trainingsPhase({ profile }: Season): PhaseBelief {
  const phases = profile.length
  const weights = Float64Array.from(profile, (_, shift) => {
    const distance = Math.min(shift, phases - shift) / (CONTINUED_SIGMA * phases)
    return 0.1 / phases + Math.exp(-0.5 * distance * distance)
  })
  const sum = weights.reduce((a, b) => a + b, 0)
  const belief = new Float32Array(2 * phases)
  belief.set(weights.map((weight) => weight / sum))
  return belief
}

/** What the load cycle leads to expect. */
export interface PhaseExpectation {
  /** Of the log latency, over the phases that the stream may be in, season and level. */
  readonly mean: number
  readonly variance: number
  /** The part of the mean that is the stream's own level. */
  readonly level: number
}

export function expectPhase(belief: PhaseBelief, season: Season, timeSeconds: number): PhaseExpectation {
  const phases = season.profile.length
  let mean = 0
  let square = 0
  let level = 0
  for (let shift = 0, phase = phaseOf(season, timeSeconds); shift < phases; shift++) {
    const weight = belief[shift]!
    const own = belief[phases + shift]!
    const at = seasonIn(season, phase) + own
    mean += weight * at
    square += weight * at * at
    level += weight * own
    if (++phase === phases) phase = 0
  }
  return { mean, variance: Math.max(0, square - mean * mean), level }
}

/** Lets the phase drift for a while. */
export function driftPhase(belief: PhaseBelief, { profile, periodSeconds }: Season, elapsedSeconds: number): void {
  const phases = profile.length
  const drift = Math.min(0.25, (0.5 * (PHASE_DRIFT * phases) ** 2 * elapsedSeconds) / periodSeconds)
  const first = belief[0]!
  let before = belief[phases - 1]!
  for (let shift = 0; shift < phases; shift++) {
    const here = belief[shift]!
    const after = shift + 1 < phases ? belief[shift + 1]! : first
    belief[shift] = (1 - 2 * drift) * here + drift * (before + after)
    before = here
  }
}

/** Learns from a calm sample. */
export function learnPhase(
  belief: PhaseBelief,
  season: Season,
  sample: {
    readonly timeSeconds: number
    /** Log latency without the season. */
    readonly log: number
    /** Standard deviation of a sample around its phase's mean. */
    readonly sigma: number
    /** How much a sample tells besides its neighbours, times its share of a usual step. */
    readonly information: number
    /** Share of a residual that the level takes over, and how large a residual it believes. */
    readonly levelGain: number
    readonly reach: number
    /** The levels stay within it, either way. */
    readonly levelMax: number
  },
): void {
  const { timeSeconds, log, sigma, information, levelGain, reach, levelMax } = sample
  const phases = season.profile.length
  const precision = (-0.5 * information) / (sigma * sigma)
  const furthest = MAX_SIGMAS ** 2 * sigma * sigma
  const least = Math.exp(precision * furthest)
  let sum = 0
  for (let shift = 0, phase = phaseOf(season, timeSeconds); shift < phases; shift++) {
    const level = belief[phases + shift]!
    const residual = log - seasonIn(season, phase) - level
    const square = residual * residual
    const weight = belief[shift]! * (square < furthest ? Math.exp(precision * square) : least)
    belief[shift] = weight
    belief[phases + shift] = clamp(level + levelGain * clamp(residual, -reach, reach), -levelMax, levelMax)
    sum += weight
    if (++phase === phases) phase = 0
  }
  const scale = (1 - LEAST_WEIGHT) / sum
  for (let shift = 0; shift < phases; shift++) belief[shift] = scale * belief[shift]! + LEAST_WEIGHT / phases
}

function phaseOf(season: Season, timeSeconds: number): number {
  return Math.floor(phaseAt(season, timeSeconds)) % season.profile.length
}
