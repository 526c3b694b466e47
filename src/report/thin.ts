/** How points are thinned to what a plot can show. */
export interface Thinning<Point> {
  /** From `fromSeconds` up to `toSeconds` in so many columns; a point outside counts to the nearest one. */
  readonly columns: number
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly secondsOf: (point: Point) => number
  /** The values that are drawn, always as many; null where one is missing. */
  readonly valuesOf: (point: Point) => readonly (number | null)[]
  /** A point that is kept whatever its column has. */
  readonly isKept: (point: Point) => boolean
}

/**
 * Leaves out points that a plot has no pixels for. Of each column and each value stay the first, the last, the least and
 * the greatest one, and between two values that stay a missing one when any was missing there: no peak is lost, no point is
 * made up, and no line is drawn over a gap.
 *
 * @param points - in time order
 */
export function thin<Point>(points: readonly Point[], options: Thinning<Point>): readonly Point[] {
  const { columns, fromSeconds, toSeconds, secondsOf, valuesOf, isKept } = options
  if (points.length <= 2 * columns) return points
  const columnOf = (point: Point): number => {
    const column = Math.floor((columns * (secondsOf(point) - fromSeconds)) / (toSeconds - fromSeconds))
    return Math.min(columns - 1, Math.max(0, column))
  }
  const stays = new Set<number>()
  const keepColumn = (from: number, to: number): void => {
    const values = valuesOf(at(points, from)).length
    for (let value = 0; value < values; value++) {
      let first = -1
      let last = -1
      let least = -1
      let greatest = -1
      for (let i = from; i < to; i++) {
        const level = valuesOf(at(points, i))[value] ?? null
        if (level === null) continue
        if (first === -1) first = i
        last = i
        if (least === -1 || level < (valuesOf(at(points, least))[value] ?? 0)) least = i
        if (greatest === -1 || level > (valuesOf(at(points, greatest))[value] ?? 0)) greatest = i
      }
      if (first !== -1) for (const i of [first, last, least, greatest]) stays.add(i)
    }
    for (let i = from; i < to; i++) if (isKept(at(points, i))) stays.add(i)
  }
  let from = 0
  for (let i = 1; i <= points.length; i++) {
    if (i === points.length || columnOf(at(points, i)) !== columnOf(at(points, from))) {
      keepColumn(from, i)
      from = i
    }
  }
  keepGaps(points, { valuesOf, stays })
  return [...stays].sort((a, b) => a - b).map((i) => at(points, i))
}

/** Adds the first missing value between two of the points that stay. */
function keepGaps<Point>(
  points: readonly Point[],
  { valuesOf, stays }: { readonly valuesOf: Thinning<Point>['valuesOf']; readonly stays: Set<number> },
): void {
  const values = points[0] === undefined ? 0 : valuesOf(points[0]).length
  const gaps: number[] = []
  for (let value = 0; value < values; value++) {
    let missing = -1
    for (const [i, point] of points.entries()) {
      const isMissing = (valuesOf(point)[value] ?? null) === null
      if (isMissing && missing === -1) missing = i
      if (isMissing || !stays.has(i)) continue
      if (missing !== -1) gaps.push(missing)
      missing = -1
    }
    if (missing !== -1) gaps.push(missing)
  }
  for (const i of gaps) stays.add(i)
}

function at<Point>(points: readonly Point[], i: number): Point {
  return points[i] as Point
}
