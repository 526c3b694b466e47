import type { GroundTruth, Window } from '../core/ground-truth.js'
import { type Pair, pairKey } from '../core/pair.js'
import { type Colour, paint } from './palette.js'
import { fitted, FONT_SIZE, type Key, type Panel, textElement, textWidth } from './panel.js'
import { type Encode, plotLeft, plotWidth } from './plot.js'
import type { Span } from './span.js'

/** A stretch of time that is shaded, seconds since the start. */
export interface Shade {
  readonly kind: 'fault' | 'transient'
  readonly name: string
  readonly from: number
  readonly to: number
}

/** Faults that can be seen on the pair, or all of them, and transients, as far as they are in the span; in time order. */
export function shadesOf(truth: GroundTruth, span: Span, pair?: Pair): readonly Shade[] {
  const seen = truth.faults.filter(
    ({ pairs }) => pair === undefined || pairs.length === 0 || pairs.some((one) => pairKey(one) === pairKey(pair)),
  )
  const shade = (kind: Shade['kind'], { name, fromSeconds, toSeconds }: Window): Shade => ({
    kind,
    name,
    from: Math.max(fromSeconds, span.startSeconds) - span.startSeconds,
    to: Math.min(toSeconds, span.endSeconds) - span.startSeconds,
  })
  return [...seen.map((fault) => shade('fault', fault)), ...truth.transients.map((one) => shade('transient', one))]
    .filter(({ from, to }) => from < to)
    .sort((a, b) => a.from - b.from)
}

/** For the legend. */
export function keysOf(shades: readonly Shade[]): readonly Key[] {
  return (['fault', 'transient'] as const)
    .filter((kind) => shades.some((shade) => shade.kind === kind))
    .map((kind) => ({ mark: 'area', colour: kind, text: kind }))
}

const OPACITY = { fault: 0.22, transient: 0.2 } as const

/** Behind everything else in a plot. */
export function shading(shades: readonly Shade[], x: Encode): readonly object[] {
  return (['fault', 'transient'] as const).flatMap((kind) => {
    const values = shades.filter((shade) => shade.kind === kind)
    if (values.length === 0) return []
    const colour: Colour = kind
    return [
      {
        data: { values: joined(values) },
        mark: { type: 'rect', color: paint(colour), opacity: OPACITY[kind], stroke: paint(colour), strokeWidth: 1 },
        encoding: { x: x('from'), x2: { field: 'to' } },
      },
    ]
  })
}

/** Those that overlap as one: a shade says that there was one, and is no darker for two. */
function joined(shades: readonly Shade[]): readonly { readonly from: number; readonly to: number }[] {
  const stretches: { from: number; to: number }[] = []
  for (const { from, to } of shades) {
    const last = stretches.at(-1)
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to)
    else stretches.push({ from, to })
  }
  return stretches
}

const LANE_HEIGHT = 17
const MAX_LANES = 5

/** The names of the shades, each over its own: bars that do not hide one another, over the plot that comes below. */
export function lanes(
  shades: readonly Shade[],
  { width, span }: { readonly width: number; readonly span: Span },
): Panel {
  const left = plotLeft()
  const right = left + plotWidth(width)
  const seconds = span.endSeconds - span.startSeconds
  const pixel = (since: number): number => left + (plotWidth(width) * since) / seconds
  /** Where each lane is taken up to. */
  const taken: number[] = []
  const elements = shades.map(({ kind, name, from, to }) => {
    const [start, end] = [pixel(from), Math.max(pixel(to), pixel(from) + 1)]
    const text = fitted(name, 0.45 * plotWidth(width), FONT_SIZE - 1)
    const wide = textWidth(text, FONT_SIZE - 1) + 6
    // In its bar, or beside it, or as far right as there is room.
    const textStart = Math.min(wide <= end - start ? start : end, right - wide)
    const begin = Math.min(start, textStart)
    let lane = taken.findIndex((until) => until <= begin)
    if (lane === -1) lane = taken.length
    const isNamed = lane < MAX_LANES
    if (isNamed) taken[lane] = Math.max(end, textStart + wide) + 4
    const y = (isNamed ? lane : MAX_LANES) * LANE_HEIGHT
    const bar = `<rect x="${start.toFixed(1)}" y="${y}" width="${(end - start).toFixed(1)}" height="${isNamed ? LANE_HEIGHT - 3 : 4}" fill="${paint(kind)}" fill-opacity="0.5"/>`
    return isNamed ? bar + textElement(text, { x: Math.round(textStart + 3), y: y + 11, size: FONT_SIZE - 1 }) : bar
  })
  const isCrowded = taken.length === MAX_LANES && elements.length > MAX_LANES
  return { width, height: taken.length * LANE_HEIGHT + (isCrowded ? 5 : 0), elements: elements.join('') }
}
