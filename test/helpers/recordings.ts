import { matrixAnswer } from './fake-runtime.js'

export const T0 = 1_700_000_000

export function times(count: number, { startSeconds = T0, stepSeconds = 15 } = {}): readonly number[] {
  return Array.from({ length: count }, (_, i) => startSeconds + i * stepSeconds)
}

/** A recording of one unlabelled series, a value every 15 s. */
export function recordingOf(values: readonly (number | string)[], options: { startSeconds?: number } = {}): string {
  const at = times(values.length, options)
  return matrixAnswer([{ values: values.map((value, i) => [at[i]!, String(value)] as const) }])
}

/** Forty calm values around 10 ms: 8, 9, 10, 11, 12, 8, ... Median 10. */
export const CALM_MS: readonly number[] = Array.from({ length: 40 }, (_, i) => 8 + (i % 5))
