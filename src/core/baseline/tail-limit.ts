import { finiteSorted, quantileOf } from './robust-error.js'

/** The upper tenth of the values tells the tail. */
const TAIL_SHARE = 0.1

/** Too few to see a tail in. */
const MIN_VALUES = 10

/**
 * The limit that a share `exceedance` of values like these lies above: peaks over threshold, with exponential excesses
 * over the 90 % quantile u, so u + mean excess x ln(0.1 / exceedance). The generalised Pareto tail with shape 0 (Balkema &
 * de Haan 1974, Pickands 1975), fitted to calibration residuals as in split conformal prediction (Vovk et al. 2005).
 *
 * @param values - calibration statistics, any order, NaN for missing
 * @param exceedance - wanted share above the limit, in (0, 1]
 * @param floor - no limit is below it; half as much again where there are too few values to tell
 */
export function tailLimit(values: ArrayLike<number>, exceedance: number, floor: number): number {
  const sorted = finiteSorted(values)
  if (sorted.length < MIN_VALUES) return 1.5 * floor
  const threshold = quantileOf(sorted, 1 - TAIL_SHARE)
  let sum = 0
  let count = 0
  for (let i = sorted.length - 1; i >= 0 && sorted[i]! > threshold; i--) {
    sum += sorted[i]! - threshold
    count++
  }
  const meanExcess = count === 0 ? 0 : sum / count
  return Math.max(floor, threshold + meanExcess * Math.log(TAIL_SHARE / exceedance))
}
