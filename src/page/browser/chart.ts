import { el, setAttribute, setText } from './dom.js'
import { shortTime, time } from './format.js'

/** A line of a chart; its colour is that of its key in the legend, so that CSS is the only place for colours. */
export interface Line {
  readonly key: string
  readonly label: string
  readonly look: 'line' | 'dashed' | 'steps' | 'points' | 'edge'
}

export interface ChartOptions {
  /** For who cannot see it: what is drawn. */
  readonly label: string
  readonly lines: readonly Line[]
  /** The lines between which a band is filled, and its key. */
  readonly band?: { readonly upper: number; readonly lower: number; readonly key: string; readonly label: string }
  readonly scale: 'logarithmic' | 'linear'
  /** Never cut off on a linear scale. */
  readonly always?: readonly number[]
  /** Levels drawn across. */
  readonly levels?: readonly { readonly value: number; readonly key: string; readonly label: string }[]
  /** Spans shaded from one point to the next, each point by its key. */
  readonly shades?: {
    readonly keys: readonly { readonly key: string; readonly label: string }[]
    readonly of: (index: number) => string | null
  }
  /** One line of text about the point with this place. */
  readonly describe: (index: number) => string
}

type Columns = readonly (readonly (number | null)[])[]

export interface Chart {
  readonly element: HTMLElement
  /** @param columns - times in unix seconds, then one column a line */
  show(columns: Columns, range: TimeRange): void
  /** Takes over the colours that hold now. */
  readonly repaint: () => void
}

export interface TimeRange {
  readonly fromSeconds: number
  readonly toSeconds: number
}

export const WINDOW_SECONDS = 30 * 60
/** Less than this would look busier than it was. */
const LEAST_SECONDS = 60

/** The last half hour; less while less is known. */
export function shownRange(timesSeconds: readonly number[], nowSeconds: number): TimeRange {
  const first = timesSeconds[0] ?? nowSeconds
  return {
    fromSeconds: Math.max(nowSeconds - WINDOW_SECONDS, Math.min(first, nowSeconds - LEAST_SECONDS)),
    toSeconds: nowSeconds,
  }
}

/** Zero has no place on a logarithmic scale; nothing measured is smaller than this. */
const SMALLEST_MS = 0.01

export function createChart(options: ChartOptions): Chart {
  const { lines, band, levels = [], shades, describe, scale } = options
  const keys = new Map<string, HTMLElement>()
  const legendKey = (key: string, label: string): HTMLElement => {
    const mark = el('span', { class: `mark mark-${key}`, 'aria-hidden': 'true' })
    keys.set(key, mark)
    return el('span', { class: 'key' }, mark, label)
  }
  const legend = el(
    'div',
    { class: 'legend' },
    ...lines.filter(({ look }) => look !== 'edge').map(({ key, label }) => legendKey(key, label)),
    ...(band === undefined ? [] : [legendKey(band.key, band.label)]),
    ...levels.map(({ key, label }) => legendKey(key, label)),
    ...(shades?.keys ?? []).map(({ key, label }) => legendKey(key, label)),
  )
  const paper = el('span', { class: 'mark mark-axis unseen', 'aria-hidden': 'true' })
  const grid = el('span', { class: 'mark mark-grid unseen', 'aria-hidden': 'true' })
  legend.append(paper, grid)
  const colour = (mark: HTMLElement | undefined): string => (mark === undefined ? '' : getComputedStyle(mark).color)
  const colourOf = (key: string): string => colour(keys.get(key) ?? keys.get(band?.key ?? ''))

  const shadeOf = (key: string | null): string | null => (key === null ? null : colourOf(key))

  const readout = el('output', { class: 'readout', 'aria-live': 'off' })
  const plot = el('div', {
    class: 'plot',
    role: 'group',
    tabindex: '0',
    'aria-label': `${options.label}. Arrow keys read single values.`,
  })
  const element = el('figure', { class: 'chart' }, el('figcaption', {}, legend, readout), plot)

  let chart: uPlot | null = null
  let columns: Columns = [[]]
  let range: TimeRange = { fromSeconds: 0, toSeconds: 1 }

  const say = (index: number | null | undefined): void => {
    const last = (columns[0]?.length ?? 0) - 1
    const at = index ?? last
    setText(readout, at < 0 ? '' : `${time(columns[0]?.[at] ?? 0)}  ${describe(at)}`)
  }
  const font = (): string => `${Math.round(0.75 * rootFontSize())}px system-ui, sans-serif`
  const axis = (more: uPlot.Axis): uPlot.Axis => ({
    stroke: () => colour(paper),
    grid: { stroke: () => colour(grid), width: 1 },
    ticks: { show: false },
    font: font(),
    ...more,
  })
  const linearRange = (_: uPlot, min: number | null, max: number | null): [number, number] => [
    Math.min(0, min ?? 0),
    1.1 * Math.max(1, max ?? 0, ...(options.always ?? [])),
  ]
  const make = (): uPlot => {
    const rem = rootFontSize()
    const made = new uPlot(
      {
        width: plot.clientWidth,
        height: plot.clientHeight,
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, y: false },
        padding: [rem / 2, rem / 2, 0, 0],
        scales: {
          x: { time: true, range: () => [range.fromSeconds, range.toSeconds] },
          // uPlot's const enum is not there at run time.
          // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment
          y: scale === 'logarithmic' ? { distr: 3, range: logarithmicRange } : { range: linearRange },
        },
        axes: [
          axis({
            space: 5.5 * rem,
            size: 2 * rem,
            values: (u, splits) => {
              const seconds = (u.scales['x']?.max ?? 0) - (u.scales['x']?.min ?? 0) < 600
              return splits.map((at) => (seconds ? time(at) : shortTime(at)))
            },
          }),
          axis({
            size: 3.5 * rem,
            values: (_, splits) => splits.map((value) => String(Number(value.toPrecision(3)))),
            ...(scale === 'logarithmic'
              ? { splits: (_, __, min, max) => logarithmicSplits(min, max), filter: (_, splits) => splits }
              : { space: 2.5 * rem }),
          }),
        ],
        series: [
          {},
          ...lines.map(({ key, label, look }): uPlot.Series => {
            const stroke = (): string => colourOf(key)
            const points = look === 'points'
            return {
              label,
              stroke,
              width: look === 'edge' || points ? 0 : look === 'dashed' ? 1.5 : 2.25,
              ...(look === 'dashed' ? { dash: [6, 5] } : {}),
              ...(points ? { paths: () => null } : {}),
              ...(look === 'steps'
                ? { paths: uPlot.paths.stepped?.({ align: 1 }) ?? (() => null), fill: () => tint(stroke(), 0.16) }
                : {}),
              points: points ? { show: true, size: 0.6 * rem, width: 1, fill: stroke, stroke } : { show: false },
            }
          }),
        ],
        ...(band === undefined
          ? {}
          : { bands: [{ series: [band.upper, band.lower], fill: () => colourOf(band.key) }] }),
        hooks: {
          drawClear: [
            (u) => {
              if (shades !== undefined) drawShades(u, columns[0] ?? [], (i) => shadeOf(shades.of(i)))
            },
          ],
          setCursor: [(u) => say(u.cursor.idx)],
          draw: [
            (u) =>
              drawLevels(
                u,
                levels.map(({ value, key }) => ({ value, stroke: colourOf(key) })),
              ),
          ],
        },
      },
      columns as uPlot.AlignedData,
      plot,
    )
    return made
  }

  new ResizeObserver(() => {
    if (plot.clientWidth === 0) return
    chart?.setSize({ width: plot.clientWidth, height: plot.clientHeight })
  }).observe(plot)
  plot.addEventListener('focus', () => setAttribute(readout, 'aria-live', 'polite'))
  plot.addEventListener('blur', () => {
    setAttribute(readout, 'aria-live', 'off')
    chart?.setCursor({ left: -10, top: -10 })
  })
  plot.addEventListener('keydown', (event) => {
    const last = (columns[0]?.length ?? 0) - 1
    const at = chart?.cursor.idx ?? last
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key]
    if (chart === null || to === undefined || last < 0) return
    event.preventDefault()
    const seconds = columns[0]?.[Math.min(last, Math.max(0, to))] ?? 0
    chart.setCursor({ left: chart.valToPos(seconds, 'x'), top: 0 })
  })

  return {
    element,
    show: (next, nextRange) => {
      columns = scale === 'logarithmic' ? aboveZero(next, lines) : next
      range = nextRange
      if (chart === null) {
        if (plot.clientWidth === 0) return
        chart = make()
      } else chart.setData(columns as uPlot.AlignedData)
      if (document.activeElement !== plot) say(chart.cursor.idx)
    },
    repaint: () => {
      chart?.destroy()
      chart = plot.clientWidth === 0 ? null : make()
    },
  }
}

function rootFontSize(): number {
  return Number.parseFloat(getComputedStyle(document.documentElement).fontSize)
}

/** A band that begins at or near 0 ends at the foot of the chart, a little below the lowest line. */
function aboveZero(columns: Columns, lines: readonly Line[]): Columns {
  const [times = [], ...values] = columns
  const drawn = values
    .filter((_, i) => lines[i]?.look !== 'edge')
    .flatMap((column) => column.filter((value) => value !== null))
  const lowest = drawn.reduce((least, value) => Math.min(least, value), Infinity)
  const foot = Math.max(SMALLEST_MS, Number.isFinite(lowest) ? lowest / 3 : 0)
  return [times, ...values.map((column) => column.map((value) => (value === null ? null : Math.max(foot, value))))]
}

/** What a canvas makes of a colour, more transparent. */
function tint(rgb: string, alpha: number): string {
  return rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`)
}

function logarithmicRange(_: uPlot, min: number | null, max: number | null): [number, number] {
  return [(min ?? 1) / 1.5, (max ?? 100) * 1.5]
}

/** 1, 2, 5, 10, ... within the range; every power of ten only, when those are many. */
function logarithmicSplits(min: number, max: number): number[] {
  const decades = Array.from({ length: 14 }, (_, i) => 10 ** (i - 3))
  const within = (steps: readonly number[]): number[] =>
    decades.flatMap((decade) => steps.map((step) => step * decade)).filter((value) => value >= min && value <= max)
  return (
    [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]].map(within).find((splits) => splits.length >= 4) ??
    within([1, 2, 3, 4, 5, 6, 7, 8, 9])
  )
}

function drawLevels(chart: uPlot, levels: readonly { readonly value: number; readonly stroke: string }[]): void {
  const { ctx, bbox } = chart
  for (const { value, stroke } of levels) {
    const y = Math.round(chart.valToPos(value, 'y', true)) + 0.5
    ctx.save()
    ctx.strokeStyle = stroke
    ctx.lineWidth = 1.5 * devicePixelRatio
    ctx.setLineDash([7 * devicePixelRatio, 5 * devicePixelRatio])
    ctx.beginPath()
    ctx.moveTo(bbox.left, y)
    ctx.lineTo(bbox.left + bbox.width, y)
    ctx.stroke()
    ctx.restore()
  }
}

/** Fills the plot's height from each point that has a colour to the next one. */
function drawShades(chart: uPlot, times: readonly (number | null)[], shade: (index: number) => string | null): void {
  const { ctx, bbox } = chart
  const right = bbox.left + bbox.width
  const at = (seconds: number): number => Math.min(right, Math.max(bbox.left, chart.valToPos(seconds, 'x', true)))
  ctx.save()
  for (const [i, seconds] of times.entries()) {
    const colour = shade(i)
    const next = times[i + 1] ?? chart.scales['x']?.max ?? seconds
    if (colour === null || seconds === null || next === null) continue
    const [from, to] = [Math.floor(at(seconds)), Math.floor(at(next))]
    ctx.fillStyle = colour
    if (to > from) ctx.fillRect(from, bbox.top, to - from, bbox.height)
  }
  ctx.restore()
}

/** The chart's newest values as a table, made when it is opened. */
export function createValues(
  title: string,
  rows: () => HTMLTableElement,
): { readonly element: HTMLElement; refresh(): void } {
  const holder = el('div', { class: 'scroll' })
  const element = el('details', { class: 'values' }, el('summary', {}, title), holder)
  const refresh = (): void => {
    if (element.open) holder.replaceChildren(rows())
  }
  element.addEventListener('toggle', refresh)
  return { element, refresh }
}
