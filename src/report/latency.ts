import { pairName } from '../core/pair.js'
import { paint } from './palette.js'
import { heading, type Key, type Panel, stacked } from './panel.js'
import { type Axis, type Encode, logAxis, plotWidth, said, timePlot } from './plot.js'
import type { ReportedPair } from './report.js'
import type { Span } from './span.js'
import { thin } from './thin.js'
import { keysOf, lanes, type Shade, shading } from './windows.js'

/** A point as it is drawn: seconds since the start; null where there is nothing to draw. */
interface Row {
  readonly t: number
  readonly y: number | null
  readonly low: number | null
  readonly high: number | null
  readonly expected: number | null
  readonly isAnomaly: boolean
}

/** What the plot of a pair shows, counted. */
export interface Counted {
  /** Points with a latency. */
  readonly samples: number
  readonly anomalies: number
  readonly missing: number
}

export function counted({ points }: ReportedPair, { startSeconds, endSeconds }: Span): Counted {
  const inSpan = points.filter(({ timestampSeconds: t }) => t >= startSeconds && t <= endSeconds)
  const samples = inSpan.filter(({ yMs }) => finite(yMs) !== null).length
  const anomalies = inSpan.filter(({ verdict }) => verdict === 'anomalous').length
  return { samples, anomalies, missing: inSpan.length - samples }
}

/** Latency of a pair in its band, on a log scale, over what really happened. */
export async function latencyPanel(
  pair: ReportedPair,
  { width, span, shades }: { readonly width: number; readonly span: Span; readonly shades: readonly Shade[] },
): Promise<Panel> {
  const plotHeight = 190
  const rows = rowsOf(pair, span)
  const y = axisOf(rows)
  const drawn = thin(rows, {
    columns: plotWidth(width),
    fromSeconds: 0,
    toSeconds: span.endSeconds - span.startSeconds,
    secondsOf: ({ t }) => t,
    valuesOf: ({ y: latency, low, high, expected }) => [latency, low, high, expected],
    isKept: ({ isAnomaly }) => isAnomaly,
  })
  const gaps = gapsOf(rows, { span, pixelSeconds: (span.endSeconds - span.startSeconds) / plotWidth(width) })
  const has = (field: 'y' | 'high' | 'expected'): boolean => rows.some((row) => row[field] !== null)
  const anomalies = anomaliesOf(drawn, { width, plotHeight, span, y })
  const keys: readonly Key[] = [
    ...(has('y') ? [{ mark: 'line', colour: 'measured', text: 'measured' } as const] : []),
    ...(has('expected') ? [{ mark: 'dashes', colour: 'expected', text: 'expected' } as const] : []),
    ...(has('high') ? [{ mark: 'area', colour: 'band', text: 'normal band' } as const] : []),
    ...(anomalies.length > 0 ? [{ mark: 'circle', colour: 'anomaly', text: 'anomaly' } as const] : []),
    ...(gaps.length > 0 ? [{ mark: 'strip', colour: 'muted', text: 'no sample' } as const] : []),
    ...keysOf(shades),
  ]
  const plot = await timePlot({
    name: 'latency',
    width,
    plotHeight,
    span,
    hasTimeAxis: true,
    y,
    layers: (encodeX, encodeY) => [
      ...shading(shades, encodeX),
      ...lines(drawn, { encodeX, encodeY, domain: y.domain }),
      ...(gaps.length === 0 ? [] : [strips(gaps, encodeX, plotHeight)]),
      ...(anomalies.length === 0 ? [] : [dots(anomalies, encodeX, encodeY)]),
      ...(has('y') ? [] : [said('no samples', { width, plotHeight })]),
    ],
  })
  const title = heading({
    width,
    title: pairName(pair.pair),
    subtitle: `p${Number((100 * pair.quantile).toFixed(3))} latency, ms, log scale`,
    keys,
  })
  return stacked([title, lanes(shades, { width, span }), plot], 0)
}

function finite(value: number | null): number | null {
  return value !== null && Number.isFinite(value) ? value : null
}

/** Holes in time longer than so many usual steps are gaps, as missing samples are. */
const HOLE_STEPS = 1.5

/** The points of the span, with a missing one in each hole. */
function rowsOf({ points }: ReportedPair, { startSeconds, endSeconds }: Span): readonly Row[] {
  const inSpan = points.filter(({ timestampSeconds: t }) => t >= startSeconds && t <= endSeconds)
  const step = usualStep(inSpan.map(({ timestampSeconds }) => timestampSeconds))
  const rows: Row[] = []
  for (const { timestampSeconds, yMs, yhatMs, yMinMs, yMaxMs, verdict } of inSpan) {
    const t = timestampSeconds - startSeconds
    const before = rows.at(-1)
    if (before !== undefined && t - before.t > HOLE_STEPS * step) {
      rows.push({ t: (before.t + t) / 2, y: null, low: null, high: null, expected: null, isAnomaly: false })
    }
    const [low, high] = [finite(yMinMs), finite(yMaxMs)]
    const hasBand = low !== null && high !== null
    const y = finite(yMs)
    rows.push({
      t,
      y,
      low: hasBand ? low : null,
      high: hasBand ? high : null,
      expected: finite(yhatMs),
      isAnomaly: verdict === 'anomalous' && y !== null,
    })
  }
  return rows
}

/** The median distance of times in order; Infinity for fewer than two. */
export function usualStep(timesSeconds: readonly number[]): number {
  const steps = timesSeconds.slice(1).map((t, i) => t - (timesSeconds[i] ?? t))
  return steps.sort((a, b) => a - b)[Math.floor(steps.length / 2)] ?? Infinity
}

/** A band that is further away than this from all that was measured or expected does not squeeze the plot. */
const MAX_BAND_RATIO = 10

function axisOf(rows: readonly Row[]): Axis {
  let [least, greatest] = [Infinity, 0]
  let [bandLeast, bandGreatest] = [Infinity, 0]
  for (const { y, expected, low, high } of rows) {
    for (const value of [y, expected]) {
      if (value === null || value <= 0) continue
      least = Math.min(least, value)
      greatest = Math.max(greatest, value)
    }
    if (low !== null && low > 0) bandLeast = Math.min(bandLeast, low)
    if (high !== null && high > 0) bandGreatest = Math.max(bandGreatest, high)
  }
  if (greatest === 0) return logAxis(1, 100)
  const low = Math.max(Math.min(least, bandLeast), least / MAX_BAND_RATIO)
  const high = Math.min(Math.max(greatest, bandGreatest), greatest * MAX_BAND_RATIO)
  return logAxis(rounded(low / 1.2), rounded(high * 1.2))
}

function rounded(value: number): number {
  return Number(value.toPrecision(4))
}

function lines(
  rows: readonly Row[],
  options: { readonly encodeX: Encode; readonly encodeY: Encode; readonly domain: Axis['domain'] },
): readonly object[] {
  const { encodeX, encodeY, domain } = options
  // A logarithm has no place for 0: what is below the plot is drawn on its edge.
  const clamped = (value: number | null): number | null =>
    value === null ? null : rounded(Math.min(domain[1], Math.max(domain[0], value)))
  const values = rows.map(({ t, y, low, high, expected }) => ({
    t,
    y: clamped(y),
    low: clamped(low),
    high: clamped(high),
    expected: clamped(expected),
  }))
  const alone = (field: 'y' | 'high' | 'expected'): typeof values =>
    values.filter(
      (row, i) =>
        row[field] !== null && (values[i - 1]?.[field] ?? null) === null && (values[i + 1]?.[field] ?? null) === null,
    )
  const [x, y] = [encodeX('t'), encodeY('y')]
  const layer = (data: readonly object[], mark: object, encoding: object): readonly object[] =>
    data.length === 0 ? [] : [{ data: { values: data }, mark, encoding }]
  const band = { x, y: encodeY('low'), y2: { field: 'high' } }
  return [
    ...layer(values, { type: 'area', color: paint('band'), opacity: 0.32 }, band),
    ...layer(alone('high'), { type: 'rule', color: paint('band'), opacity: 0.32, strokeWidth: 3 }, band),
    ...layer(
      values,
      { type: 'line', color: paint('expected'), strokeWidth: 1, strokeDash: [5, 3] },
      { x, y: encodeY('expected') },
    ),
    ...layer(
      alone('expected'),
      { type: 'tick', color: paint('expected'), orient: 'horizontal', size: 6, thickness: 1, opacity: 1 },
      { x, y: encodeY('expected') },
    ),
    ...layer(values, { type: 'line', color: paint('measured'), strokeWidth: 1.5, strokeJoin: 'round' }, { x, y }),
    // A sample between two gaps has no line.
    ...layer(alone('y'), { type: 'point', filled: true, size: 14, color: paint('measured'), opacity: 1 }, { x, y }),
  ]
}

interface Dot {
  readonly t: number
  readonly y: number
}

/** The anomalies, but of those that would be drawn in the same pixel one. */
function anomaliesOf(
  rows: readonly Row[],
  plot: { readonly width: number; readonly plotHeight: number; readonly span: Span; readonly y: Axis },
): readonly Dot[] {
  const { width, plotHeight, span, y: axis } = plot
  const [low, high] = axis.domain
  const dotted = new Map<string, Dot>()
  for (const { t, y, isAnomaly } of rows) {
    if (!isAnomaly || y === null) continue
    const clamped = Math.min(high, Math.max(low, y))
    const column = Math.round((plotWidth(width) * t) / (span.endSeconds - span.startSeconds))
    const row = Math.round((plotHeight * Math.log(clamped / low)) / Math.log(high / low))
    const pixel = `${column} ${row}`
    if (!dotted.has(pixel)) dotted.set(pixel, { t, y: rounded(clamped) })
  }
  return [...dotted.values()]
}

function dots(anomalies: readonly Dot[], x: Encode, y: Encode): object {
  return {
    data: { values: anomalies },
    mark: { type: 'point', filled: true, size: 30, color: paint('anomaly'), opacity: 1 },
    encoding: { x: x('t'), y: y('y') },
  }
}

interface Gap {
  readonly from: number
  readonly to: number
}

/** Where no line is drawn: from the last sample before to the first one after. Those less than a pixel apart are one. */
function gapsOf(
  rows: readonly Row[],
  { span, pixelSeconds }: { readonly span: Span; readonly pixelSeconds: number },
): readonly Gap[] {
  const seconds = span.endSeconds - span.startSeconds
  const step = usualStep(rows.map(({ t }) => t))
  const gaps: Gap[] = []
  let last = 0
  const close = (at: number, isGap: boolean): void => {
    if (isGap && at > last) {
      const before = gaps.at(-1)
      if (before !== undefined && last - before.to < pixelSeconds) gaps[gaps.length - 1] = { ...before, to: at }
      else gaps.push({ from: last, to: at })
    }
    last = at
  }
  let isMissing = (rows[0]?.t ?? 0) > HOLE_STEPS * step
  for (const { t, y } of rows) {
    if (y === null) isMissing = true
    else {
      close(t, isMissing)
      isMissing = false
    }
  }
  if (rows.length > 0) close(seconds, isMissing || seconds - last > HOLE_STEPS * step)
  return gaps
}

/** Along the bottom of a plot. */
function strips(gaps: readonly Gap[], x: Encode, plotHeight: number): object {
  return {
    data: { values: gaps },
    // The stroke shows a gap that is narrower than a pixel.
    mark: { type: 'rect', color: paint('muted'), opacity: 1, stroke: paint('muted'), strokeWidth: 0.7 },
    encoding: { x: x('from'), x2: { field: 'to' }, y: { value: plotHeight - 4 }, y2: { value: plotHeight } },
  }
}
