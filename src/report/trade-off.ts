import { type Colour, paint } from './palette.js'
import { fitted, FONT_SIZE, heading, type Panel, type PointShape, stacked, textElement, textWidth } from './panel.js'
import { linearAxis, numberPlot, plotLeft, plotWidth, said } from './plot.js'
import type { TradeOff } from './report.js'

const COLOURS: readonly Colour[] = ['series1', 'series2', 'series3', 'series4', 'series5', 'series6']
const SHAPES: readonly PointShape[] = ['circle', 'square', 'diamond', 'triangle-up']

type Point = TradeOff['points'][number]

/** Settings as named points, those of a series joined. */
export async function tradeOffPanel(tradeOff: TradeOff, { width }: { readonly width: number }): Promise<Panel> {
  const plotHeight = 260
  const points = tradeOff.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))
  const series = [...new Set(points.map((point) => point.series))]
  const [x, y] = [axisOf(points.map((point) => point.x)), axisOf(points.map((point) => point.y))]
  const look = (name: string): { colour: Colour; shape: PointShape } => {
    const i = series.indexOf(name)
    return {
      colour: COLOURS[i % COLOURS.length] ?? 'series1',
      shape: SHAPES[(i + Math.floor(i / COLOURS.length)) % SHAPES.length] ?? 'circle',
    }
  }
  const place = (point: Point): { x: number; y: number } => ({
    x: (plotWidth(width) * (point.x - x.domain[0])) / (x.domain[1] - x.domain[0]),
    y: plotHeight * (1 - (point.y - y.domain[0]) / (y.domain[1] - y.domain[0])),
  })
  const labels = labelsOf(
    points.map((point) => ({ ...place(point), text: point.label })),
    { width: plotWidth(width), height: plotHeight },
  )
  const plot = await numberPlot({
    name: 'trade-off',
    width,
    plotHeight,
    x,
    xTitle: fitted(tradeOff.xTitle, plotWidth(width), FONT_SIZE),
    y,
    layers: (encodeX, encodeY) => [
      ...series.flatMap((name) => {
        const values = points.filter((point) => point.series === name).map((point) => ({ x: point.x, y: point.y }))
        const { colour, shape } = look(name)
        const encoding = { x: encodeX('x'), y: encodeY('y') }
        return [
          {
            data: { values: values.map((value, order) => ({ ...value, order })) },
            mark: { type: 'line', color: paint(colour), strokeWidth: 1.5, opacity: 0.7 },
            encoding: { ...encoding, order: { field: 'order' } },
          },
          {
            data: { values },
            mark: { type: 'point', filled: true, shape, size: 64, color: paint(colour), opacity: 1 },
            encoding,
          },
        ]
      }),
      {
        data: { values: labels },
        mark: { type: 'text', align: 'left', baseline: 'middle', fontSize: FONT_SIZE - 1, color: paint('ink') },
        encoding: {
          x: { field: 'x', type: 'quantitative', scale: null, axis: null },
          y: { field: 'y', type: 'quantitative', scale: null, axis: null },
          text: { field: 'text' },
        },
      },
      ...(points.length === 0 ? [said('no points', { width, plotHeight })] : []),
    ],
  })
  const title = heading({
    width,
    title: tradeOff.title,
    subtitle: '',
    keys:
      series.length < 2
        ? []
        : series.map((name) => ({ mark: look(name).shape, colour: look(name).colour, text: name })),
  })
  const yTitle = textElement(fitted(tradeOff.yTitle, width - plotLeft(), FONT_SIZE), { x: 0, y: 13, colour: 'muted' })
  return stacked([title, { width, height: 16, elements: yTitle }, plot], 2)
}

function axisOf(values: readonly number[]): ReturnType<typeof linearAxis> {
  return linearAxis(Math.min(0, ...values), Math.max(0, ...values))
}

interface Label {
  readonly x: number
  readonly y: number
  readonly text: string
}

/** Names beside their points where they hide no point and no other name; who finds no place is named in the table only. */
function labelsOf(
  points: readonly Label[],
  area: { readonly width: number; readonly height: number },
): readonly Label[] {
  interface Box {
    readonly left: number
    readonly top: number
    readonly right: number
    readonly bottom: number
  }
  const RADIUS = 5
  const taken: Box[] = points.map(({ x, y }) => ({
    left: x - RADIUS,
    right: x + RADIUS,
    top: y - RADIUS,
    bottom: y + RADIUS,
  }))
  const isFree = (box: Box): boolean =>
    box.left >= 0 &&
    box.right <= area.width &&
    box.top >= 0 &&
    box.bottom <= area.height &&
    taken.every(
      (other) =>
        box.right <= other.left || other.right <= box.left || box.bottom <= other.top || other.bottom <= box.top,
    )
  const labels: Label[] = []
  for (const { x, y, text: whole } of points) {
    const text = fitted(whole, 0.4 * area.width, FONT_SIZE - 1)
    const wide = textWidth(text, FONT_SIZE - 1)
    const free = (
      [
        [x + RADIUS, y - RADIUS - 6],
        [x + RADIUS + 3, y],
        [x - wide / 2, y - RADIUS - 8],
        [x - RADIUS - 3 - wide, y],
        [x - wide / 2, y + RADIUS + 8],
        [x - RADIUS - wide, y - RADIUS - 6],
        [x + RADIUS, y + RADIUS + 6],
        [x - RADIUS - wide, y + RADIUS + 6],
      ] as const
    )
      .map(([left, middle]) => ({ left, right: left + wide, top: middle - 6, bottom: middle + 6 }))
      .find(isFree)
    if (free === undefined) continue
    taken.push(free)
    labels.push({ x: free.left, y: (free.top + free.bottom) / 2, text })
  }
  return labels
}
