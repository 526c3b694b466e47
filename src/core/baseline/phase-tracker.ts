import { clamp } from './robust-error.js'
import { phaseAt, type Season } from './season.js'

/** Random walk of the phase, cycles per square root of a cycle: load that people make does not keep time exactly. */
const PHASE_DRIFT = 0.02

/** A sample this many sigmas off every phase tells nothing of the phase. */
const MAX_SIGMAS = 3

/** How sure the phase is when the stream goes on where the training ended: +-3 % of a cycle. */
const CONTINUED_SIGMA = 0.03

/** No phase is ever ruled out. */
const LEAST_WEIGHT = 1e-4

/** What the load cycle leads to expect: mean and spread of the log latency over the phases it may be in. */
export interface PhaseExpectation {
  readonly mean: number
  /** Variance of the mean over the phases. */
  readonly variance: number
  /** Standard deviation of a sample around its phase's mean. */
  readonly sigma: number
  /** The part of the mean that is the stream's own level. */
  readonly level: number
}

/**
 * Where in its load cycle a stream is: a weight for each shift of the phase against the training, moved by each calm sample
 * (a Bayes filter on a circle: Bar-Shalom et al., Estimation with Applications, 2001), and a level for each shift.
 */
export interface PhaseTracker {
  expect(timeSeconds: number): PhaseExpectation
  /** After a gap of more than a cycle any phase is as likely as another; the level stays. */
  forget(): void
  /** Lets the phase drift, and learns from a sample if it is calm. */
  advance(options: {
    readonly timeSeconds: number
    readonly elapsedSeconds: number
    /** Log latency without the season; null for a sample that must not teach. */
    readonly calm: number | null
    /** How much a sample tells besides its neighbours, times its share of a usual step. */
    readonly information: number
    /** Share of a residual that the level takes over. */
    readonly levelGain: number
  }): void
}

export interface CycleScatter {
  /** Standard deviation of a sample around the profile, one per phase. */
  readonly local: Float64Array
  readonly overall: number
}

export function trackPhase(
  season: Season,
  scatter: CycleScatter,
  options: { readonly continuesTraining: boolean; readonly levelMax: number },
): PhaseTracker {
  const { profile } = season
  const phases = profile.length
  let weights: Float64Array = options.continuesTraining ? aroundZero(phases) : new Float64Array(phases).fill(1 / phases)
  let spare: Float64Array = new Float64Array(phases)
  const levels = new Float64Array(phases)
  const first = (timeSeconds: number): number => Math.floor(phaseAt(season, timeSeconds)) % phases
  let expectedSigma = scatter.overall
  const levelOf = (): number => weights.reduce((sum, weight, shift) => sum + weight * levels[shift]!, 0)
  return {
    expect: (timeSeconds) => {
      let mean = 0
      let square = 0
      let variance = 0
      let level = 0
      for (let shift = 0, phase = first(timeSeconds); shift < phases; shift++) {
        const at = profile[phase]! + levels[shift]!
        const weight = weights[shift]!
        const sigma = scatter.local[phase]!
        mean += weight * at
        level += weight * levels[shift]!
        square += weight * at * at
        variance += weight * sigma * sigma
        if (++phase === phases) phase = 0
      }
      expectedSigma = Math.sqrt(variance)
      return { mean, variance: Math.max(0, square - mean * mean), sigma: expectedSigma, level }
    },
    forget: () => {
      levels.fill(levelOf())
      weights.fill(1 / phases)
    },
    advance: ({ timeSeconds, elapsedSeconds, calm, information, levelGain }) => {
      const drift = Math.min(0.25, (0.5 * (PHASE_DRIFT * phases) ** 2 * elapsedSeconds) / season.periodSeconds)
      const precision = (-0.5 * information) / (scatter.overall * scatter.overall)
      const furthest = MAX_SIGMAS ** 2 * scatter.overall * scatter.overall
      const reach = 2 * expectedSigma
      let sum = 0
      for (let shift = 0, phase = first(timeSeconds); shift < phases; shift++) {
        const before = weights[shift > 0 ? shift - 1 : phases - 1]!
        const after = weights[shift + 1 < phases ? shift + 1 : 0]!
        let weight = (1 - 2 * drift) * weights[shift]! + drift * (before + after)
        if (calm !== null) {
          const residual = calm - profile[phase]! - levels[shift]!
          weight *= Math.exp(precision * Math.min(furthest, residual * residual))
          const moved = levels[shift]! + levelGain * clamp(residual, -reach, reach)
          levels[shift] = clamp(moved, -options.levelMax, options.levelMax)
        }
        spare[shift] = weight
        sum += weight
        if (++phase === phases) phase = 0
      }
      const scale = (1 - LEAST_WEIGHT) / sum
      for (let shift = 0; shift < phases; shift++) spare[shift] = scale * spare[shift]! + LEAST_WEIGHT / phases
      const swap = weights
      weights = spare
      spare = swap
    },
  }
}

function aroundZero(phases: number): Float64Array {
  const weights = new Float64Array(phases)
  let sum = 0
  for (let shift = 0; shift < phases; shift++) {
    const distance = Math.min(shift, phases - shift) / (CONTINUED_SIGMA * phases)
    weights[shift] = 0.1 / phases + Math.exp(-0.5 * distance * distance)
    sum += weights[shift]!
  }
  return weights.map((weight) => weight / sum)
}
