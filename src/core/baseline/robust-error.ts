import { quantileSorted } from 'simple-statistics'

/** Makes a MAD estimate the standard deviation of normal data: 1 / Phi^-1(3/4). Rousseeuw & Croux, JASA 88 (1993). */
export const MAD_TO_SIGMA = 1.4826

/** Mean absolute value of normal data is sigma / 1.25 (sqrt(2 / pi)). */
export const MEAN_ABS_TO_SIGMA = 1.25

/** Rising, without NaN. */
export function finiteSorted(values: ArrayLike<number>): number[] {
  return Array.from(Float64Array.from(values).filter(Number.isFinite).sort())
}

/** Quantile of rising values; NaN of none. @param p - in [0, 1] */
export function quantileOf(sorted: number[], p: number): number {
  return sorted.length === 0 ? NaN : quantileSorted(sorted, p)
}

/** Mean absolute residual, each counted at most at the 95 % point: a spike must not choose the baseline. Infinity of none. */
export function clippedMeanAbs(residuals: ArrayLike<number>): number {
  return clippedMean(residuals, 0.95, (value) => value)
}

/** Root mean square, clipped at the 99.5 % point: it feels rare surges, which is what traffic is there to explain. */
export function clippedRms(residuals: ArrayLike<number>): number {
  return Math.sqrt(clippedMean(residuals, 0.995, (value) => value * value))
}

function clippedMean(residuals: ArrayLike<number>, p: number, of: (magnitude: number) => number): number {
  const magnitudes = finiteSorted(Float64Array.from(residuals, Math.abs))
  if (magnitudes.length === 0) return Infinity
  const limit = quantileOf(magnitudes, p)
  let sum = 0
  for (const magnitude of magnitudes) sum += of(Math.min(magnitude, limit))
  return sum / magnitudes.length
}

export function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value
}
