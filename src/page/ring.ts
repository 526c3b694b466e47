/** What the page shows of the past. */
export const SHOWN_SECONDS = 30 * 60

/** More than these on a chart are not told apart. */
export const MAX_POINTS = 2_000

export interface Point {
  /** Unix seconds. */
  readonly timeSeconds: number
}

/**
 * The points with one more: none older than SHOWN_SECONDS, at most MAX_POINTS, times strictly rising. A point that is not
 * after the others takes the place of those that are not before it, as when a history is read once more.
 */
export function withPoint<P extends Point>(points: readonly P[], point: P): readonly P[] {
  const { timeSeconds } = point
  const kept = points.filter(
    (other) => other.timeSeconds > timeSeconds - SHOWN_SECONDS && other.timeSeconds < timeSeconds,
  )
  return [...kept.slice(Math.max(0, kept.length - MAX_POINTS + 1)), point]
}
