import { parse as parseVega, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'

import { type Colour, paint } from './palette.js'
import { FONT_FAMILY, FONT_SIZE, type Panel } from './panel.js'
import { type Span, ticksOf, utcOf } from './span.js'

/** Room beside a plot, the same for all so that those in a stack share their times. */
const LEFT = 54
const RIGHT = 16
/** Above a plot, so that the highest label is not cut. */
const TOP = 7
/** For the labels of the time axis, two lines, and its title. */
const AXIS_HEIGHT = 52
/** Under a plot without a time axis. */
const NO_AXIS_HEIGHT = 6
/** What a label of the time axis takes, with a day in it more. */
const TICK_WIDTH = { time: 74, day: 112 }

const DAY = 86_400

/** Where a plot begins, from its panel's left edge. */
export function plotLeft(): number {
  return LEFT
}

export function plotWidth(width: number): number {
  return width - LEFT - RIGHT
}

/** An axis of numbers. */
export interface Axis {
  readonly domain: readonly [number, number]
  readonly isLog: boolean
  /** Where there are labels and lines. */
  readonly ticks: readonly number[]
  /** In Vega's expression language; undefined for the number itself. */
  readonly labelExpression?: string
}

/** Draws marks over time. */
export interface TimePlot {
  /** What it is, for tests and for those who read the source. */
  readonly name: string
  readonly width: number
  readonly plotHeight: number
  readonly span: Span
  readonly hasTimeAxis: boolean
  readonly y: Axis
  /** Of Vega-Lite; `x` and `y` make the encodings, in seconds since the start and in the axis's unit. */
  readonly layers: (x: Encode, y: Encode) => readonly object[]
}

export type Encode = (field: string) => object

export async function timePlot(plot: TimePlot): Promise<Panel> {
  const { width, plotHeight, span, hasTimeAxis, y, name } = plot
  const seconds = span.endSeconds - span.startSeconds
  const atMost = Math.floor(plotWidth(width) / (seconds > DAY ? TICK_WIDTH.day : TICK_WIDTH.time))
  const ticks = ticksOf(span, atMost)
  const labels = Object.fromEntries(ticks.map(({ seconds: since, label }) => [since, label]))
  const encodeX: Encode = (field) => ({
    field,
    type: 'quantitative',
    scale: { domain: [0, seconds], nice: false, zero: false },
    axis: {
      title: hasTimeAxis ? `since ${utcOf(span.startSeconds)}, and UTC` : null,
      values: ticks.map(({ seconds: since }) => since),
      labels: hasTimeAxis,
      labelExpr: `${JSON.stringify(labels)}[datum.value]`,
      labelFlush: 24,
      ticks: hasTimeAxis,
      grid: true,
    },
  })
  return drawn({
    name,
    width,
    plotHeight,
    below: hasTimeAxis ? AXIS_HEIGHT : NO_AXIS_HEIGHT,
    domains: [[0, seconds], y.domain],
    layers: [axes(encodeX, encodeAxis(y)), ...plot.layers(encodeX, encodeAxis(y))],
  })
}

/** Draws marks over a number. */
export interface NumberPlot {
  readonly name: string
  readonly width: number
  readonly plotHeight: number
  readonly x: Axis
  readonly xTitle: string
  readonly y: Axis
  readonly layers: (x: Encode, y: Encode) => readonly object[]
}

export function numberPlot({ x, xTitle, y, layers, ...plot }: NumberPlot): Promise<Panel> {
  return drawn({
    ...plot,
    below: AXIS_HEIGHT - FONT_SIZE,
    domains: [x.domain, y.domain],
    layers: [axes(encodeAxis(x, xTitle), encodeAxis(y)), ...layers(encodeAxis(x, xTitle), encodeAxis(y))],
  })
}

/** Draws nothing but brings the axes, also where there is nothing to show. */
function axes(x: Encode, y: Encode): object {
  return { data: { values: [] }, mark: 'point', encoding: { x: x('x'), y: y('y') } }
}

function encodeAxis({ domain, isLog, ticks, labelExpression }: Axis, title: string | null = null): Encode {
  return (field) => ({
    field,
    type: 'quantitative',
    scale: { domain, nice: false, ...(isLog ? { type: 'log' } : { zero: false }) },
    axis: {
      title,
      values: ticks,
      grid: true,
      ...(labelExpression === undefined ? { format: ',~f' } : { labelExpr: labelExpression }),
    },
  })
}

const CONFIG = {
  aria: false,
  font: FONT_FAMILY,
  view: { stroke: null },
  axis: {
    labelFontSize: FONT_SIZE,
    labelColor: paint('muted'),
    labelOverlap: false,
    labelLimit: 0,
    titleFontSize: FONT_SIZE,
    titleFontWeight: 'normal',
    titleColor: paint('muted'),
    titleAnchor: 'start',
    titlePadding: 3,
    titleLimit: 0,
    gridColor: paint('grid'),
    domainColor: paint('muted'),
    tickColor: paint('muted'),
  },
}

/** No text is measured for the layout, which only a browser could: every plot has its place, and its labels have room. */
async function drawn(plot: {
  readonly name: string
  readonly width: number
  readonly plotHeight: number
  readonly below: number
  readonly domains: readonly [readonly number[], readonly number[]]
  readonly layers: readonly object[]
}): Promise<Panel> {
  const { name, width, plotHeight, below, domains, layers } = plot
  const spec = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    autosize: 'none',
    padding: { left: LEFT, right: RIGHT, top: TOP, bottom: below },
    width: plotWidth(width),
    height: plotHeight,
    background: null,
    config: CONFIG,
    layer: layers,
  }
  const view = new View(parseVega(compile(spec as unknown as TopLevelSpec).spec), { renderer: 'none' })
  const svg = await view.toSVG()
  view.finalize()
  const inner = svg
    .slice(svg.indexOf('>') + 1, svg.lastIndexOf('</svg>'))
    // A tenth of a pixel is enough; more would be half of a long report.
    .replace(/ d="[^"]*"/g, (path) => path.replace(/(\.\d)\d+/g, '$1'))
  const place = [LEFT, TOP, plotWidth(width), plotHeight].join(' ')
  const shown = domains.map((domain) => domain.join(' '))
  return {
    width,
    height: TOP + plotHeight + below,
    elements: `<g data-plot="${name}" data-place="${place}" data-x="${shown[0] ?? ''}" data-y="${shown[1] ?? ''}">${inner}</g>`,
  }
}

/** Said in a plot that has nothing to show, over its middle, where a threshold may be. */
export function said(
  text: string,
  { width, plotHeight }: { readonly width: number; readonly plotHeight: number },
): object {
  return {
    data: { values: [{ text }] },
    mark: { type: 'text', color: paint('muted'), fontSize: FONT_SIZE + 1 },
    encoding: {
      x: { value: plotWidth(width) / 2 },
      y: { value: 0.3 * plotHeight },
      text: { field: 'text' },
    },
  }
}

/** A horizontal line all over a plot. */
export function threshold(
  level: number,
  y: Encode,
  look: { readonly colour: Colour; readonly dash: readonly number[] },
): object {
  return {
    data: { values: [{ level }] },
    mark: { type: 'rule', color: paint(look.colour), strokeDash: look.dash, strokeWidth: 1.5 },
    encoding: { y: y('level') },
  }
}

/** Lines at 1, 2, 5, 10, 20, 50, ... or fewer, as the domain asks for. */
export function logAxis(low: number, high: number): Axis {
  const domain = [low, high] as const
  const decades = (digits: readonly number[]): number[] => {
    const found: number[] = []
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of digits) {
        const tick = Number(`${digit}e${power}`)
        if (tick >= low && tick <= high) found.push(tick)
      }
    }
    return found
  }
  const [fine, coarse] = [decades([1, 2, 5]), decades([1])]
  const every = Math.ceil(coarse.length / 9)
  const ticks = fine.length <= 9 ? fine : coarse.filter((_, i) => i % every === 0)
  return { domain, isLog: true, ticks: ticks.length >= 2 ? ticks : roundSteps(low, high, 4) }
}

/** From 0 to a little above `highest`, or from a little below `lowest` when that is negative. */
export function linearAxis(lowest: number, highest: number): Axis {
  const low = Math.min(0, lowest)
  const high = highest > low ? highest : low + 1
  const room = 0.08 * (high - low)
  const domain = [low < 0 ? low - room : 0, high + room] as const
  return { domain, isLog: false, ticks: roundSteps(domain[0], domain[1], 5) }
}

/** Round numbers from `low` to `high`, at most about `atMost`. */
function roundSteps(low: number, high: number, atMost: number): number[] {
  const rough = (high - low) / atMost
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5, 10].find((digit) => digit * power >= rough) ?? 10)
  const first = Math.ceil(low / step)
  const last = Math.floor(high / step)
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}
