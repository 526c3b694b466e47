import type { Severity } from '../core/incident.js'
import { pairName } from '../core/pair.js'
import { usualStep } from './latency.js'
import { paint } from './palette.js'
import { fitted, FONT_SIZE, heading, type Key, type Panel, stacked, textElement, textWidth } from './panel.js'
import { type Axis, type Encode, linearAxis, plotLeft, plotWidth, said, threshold, timePlot } from './plot.js'
import type { Report, ReportedPoll } from './report.js'
import type { Span } from './span.js'
import { thin } from './thin.js'
import { keysOf, lanes, type Shade, shadesOf, shading } from './windows.js'

interface Place {
  readonly width: number
  readonly span: Span
  readonly shades: readonly Shade[]
}

/** The accumulators, the temperature and the severity, one under the other. */
export async function incidentPanels(report: Report, place: Place): Promise<readonly Panel[]> {
  const polls = pollsOf(report.polls, place.span)
  return [
    await accumulatorsPanel(report, polls, place),
    await temperaturePanel(report, polls, place),
    await severityPanel(polls, place),
  ]
}

/** A poll with how long its state held, seconds since the start. */
interface Held {
  readonly from: number
  readonly to: number
  readonly poll: ReportedPoll
}

/** A poll's state holds until the next one, but not over a hole in time of more than so many usual steps. */
const HOLE_STEPS = 2.5

function pollsOf(polls: readonly ReportedPoll[], { startSeconds, endSeconds }: Span): readonly Held[] {
  const inSpan = polls.filter(({ timestampSeconds: t }) => t >= startSeconds && t <= endSeconds)
  const step = usualStep(inSpan.map(({ timestampSeconds }) => timestampSeconds))
  return inSpan.map((poll, i) => {
    const t = poll.timestampSeconds
    const until = inSpan[i + 1]?.timestampSeconds ?? endSeconds
    const isHole = until - t > HOLE_STEPS * step
    return { from: t - startSeconds, to: (isHole ? t + step : Math.min(until, endSeconds)) - startSeconds, poll }
  })
}

/** A level that holds from a time on; null: from there on nothing is known. */
interface Step {
  readonly t: number
  readonly level: number | null
}

function stepsOf(
  polls: readonly Held[],
  levelOf: (poll: ReportedPoll) => number | undefined,
  place: Place,
): readonly Step[] {
  const steps: Step[] = []
  for (const [i, { from, to, poll }] of polls.entries()) {
    const level = levelOf(poll) ?? NaN
    steps.push({ t: from, level: Number.isFinite(level) ? level : null })
    // The last one's level is drawn to its end, too.
    if (polls[i + 1]?.from === to) continue
    const last = steps.at(-1)
    if (last !== undefined) steps.push({ ...last, t: to })
    steps.push({ t: to, level: null })
  }
  return thin(steps, {
    columns: plotWidth(place.width),
    fromSeconds: 0,
    toSeconds: place.span.endSeconds - place.span.startSeconds,
    secondsOf: ({ t }) => t,
    valuesOf: ({ level }) => [level],
    isKept: () => false,
  })
}

/** A filled level over time, darker where it is above a threshold. */
function levels(steps: readonly Step[], options: { x: Encode; y: Encode; darkAbove: number }): readonly object[] {
  const { x, y, darkAbove } = options
  const mark = { type: 'area', interpolate: 'step-after', color: paint('heat') }
  const values = steps.map(({ t, level }) => ({
    t,
    level,
    floor: level === null ? null : 0,
    threshold: level === null ? null : darkAbove,
    above: level === null ? null : Math.max(level, darkAbove),
  }))
  return [
    {
      data: { values },
      mark: { ...mark, opacity: 0.28 },
      encoding: { x: x('t'), y: y('floor'), y2: { field: 'level' } },
    },
    ...(values.some(({ level }) => level !== null && level > darkAbove)
      ? [
          {
            data: { values },
            mark: { ...mark, opacity: 0.65 },
            encoding: { x: x('t'), y: y('threshold'), y2: { field: 'above' } },
          },
        ]
      : []),
    {
      data: { values },
      mark: { type: 'line', interpolate: 'step-after', color: paint('heat'), strokeWidth: 1.4 },
      encoding: { x: x('t'), y: y('level') },
    },
  ]
}

const OPENS = { colour: 'ink', dash: [5, 3] } as const
const CLOSES = { colour: 'ink', dash: [1.5, 2.5] } as const

async function accumulatorsPanel(report: Report, polls: readonly Held[], place: Place): Promise<Panel> {
  const { width, span, shades } = place
  const keys: readonly Key[] = [
    { mark: 'area', colour: 'heat', text: 'accumulator' },
    { mark: 'dashes', colour: 'ink', text: 'hot above its threshold' },
    ...keysOf(shades),
  ]
  const plotHeight = report.pairs.length <= 4 ? 54 : report.pairs.length <= 8 ? 42 : 32
  const highest = Math.max(
    0,
    ...report.pairs.map(({ accumulatorThreshold }) => accumulatorThreshold),
    ...highestOf(polls.flatMap(({ poll }) => poll.accumulators)),
  )
  const rows: Panel[] = []
  for (const [i, { pair, accumulatorThreshold }] of report.pairs.entries()) {
    const steps = stepsOf(polls, ({ accumulators }) => accumulators[i], place)
    const seen = shadesOf(report.groundTruth, span, pair)
    const all = linearAxis(0, highest)
    const y: Axis = { ...all, ticks: apart([accumulatorThreshold, 0, highest], all.domain[1] / plotHeight) }
    const plot = await timePlot({
      name: 'accumulator',
      width,
      plotHeight,
      span,
      hasTimeAxis: false,
      y,
      layers: (encodeX, encodeY) => [
        ...shading(seen, encodeX),
        ...levels(steps, { x: encodeX, y: encodeY, darkAbove: accumulatorThreshold }),
        threshold(accumulatorThreshold, encodeY, OPENS),
        ...(polls.length === 0 ? [said('no polls', { width, plotHeight })] : []),
      ],
    })
    const name = fitted(pairName(pair), plotWidth(width), FONT_SIZE)
    const label = textElement(name, { x: plotLeft(), y: 11, colour: 'muted' })
    rows.push(stacked([{ width, height: 13, elements: label }, plot], 0))
  }
  const title = heading({ width, title: 'accumulators', subtitle: 'one per pair', keys })
  return stacked([title, lanes(shades, { width, span }), stacked(rows, 4)], 0)
}

async function temperaturePanel(report: Report, polls: readonly Held[], place: Place): Promise<Panel> {
  const { width, span, shades } = place
  const { incidentThreshold, clearThreshold } = report
  const plotHeight = 110
  const steps = stepsOf(polls, ({ temperature }) => temperature, place)
  const highest = Math.max(incidentThreshold, ...highestOf(polls.map(({ poll }) => poll.temperature)))
  const plot = await timePlot({
    name: 'temperature',
    width,
    plotHeight,
    span,
    hasTimeAxis: false,
    y: linearAxis(0, highest),
    layers: (x, y) => [
      ...shading(shades, x),
      ...levels(steps, { x, y, darkAbove: incidentThreshold }),
      threshold(incidentThreshold, y, OPENS),
      threshold(clearThreshold, y, CLOSES),
      ...(polls.length === 0 ? [said('no polls', { width, plotHeight })] : []),
    ],
  })
  const title = heading({
    width,
    title: 'incident temperature',
    subtitle: 'the sum of the accumulators',
    keys: [
      { mark: 'dashes', colour: 'ink', text: `opens above ${incidentThreshold}` },
      { mark: 'dots', colour: 'ink', text: `closes at or below ${clearThreshold}` },
    ],
  })
  return stacked([title, plot], 0)
}

/** Those that have room for their labels, the first ones first. */
function apart(ticks: readonly number[], unitsOfPixel: number): readonly number[] {
  const room = FONT_SIZE
  return ticks.reduce<readonly number[]>(
    (kept, tick) => (kept.every((other) => Math.abs(tick - other) >= room * unitsOfPixel) ? [...kept, tick] : kept),
    [],
  )
}

/** The greatest finite one, if there is one; for lists too long to be arguments. */
function highestOf(values: readonly number[]): readonly number[] {
  const highest = values.reduce((high, value) => (Number.isFinite(value) && value > high ? value : high), -Infinity)
  return highest === -Infinity ? [] : [highest]
}

/** A severity that held without a break. */
interface Stretch {
  readonly severity: Severity
  readonly from: number
  readonly to: number
}

async function severityPanel(polls: readonly Held[], place: Place): Promise<Panel> {
  const { width, span, shades } = place
  const plotHeight = 56
  const stretches: Stretch[] = []
  for (const { from, to, poll } of polls) {
    if (poll.severity === null) continue
    const last = stretches.at(-1)
    if (last?.to === from && last.severity === poll.severity) stretches[stretches.length - 1] = { ...last, to }
    else stretches.push({ severity: poll.severity, from, to })
  }
  const scale = plotWidth(width) / (span.endSeconds - span.startSeconds)
  const blocks = (severity: Severity, x: Encode, y: Encode): readonly object[] => {
    const level = severity === 1 ? 2 : 1
    const text = `Sev ${severity}`
    const values = stretches
      .filter((stretch) => stretch.severity === severity)
      .map(({ from, to }) => ({ from, to, level, floor: 0, middle: (from + to) / 2, at: 0.5 }))
    const wide = values.filter(({ from, to }) => (to - from) * scale >= textWidth(text, FONT_SIZE) + 6)
    if (values.length === 0) return []
    const colour = severity === 1 ? 'sev1' : 'sev2'
    return [
      {
        data: { values },
        mark: { type: 'rect', color: paint(colour), stroke: paint(colour), strokeWidth: 1 },
        encoding: { x: x('from'), x2: { field: 'to' }, y: y('floor'), y2: { field: 'level' } },
      },
      {
        data: { values: wide },
        mark: {
          type: 'text',
          text,
          color: paint(severity === 1 ? 'onSev1' : 'onSev2'),
          fontSize: FONT_SIZE,
          fontWeight: 700,
        },
        encoding: { x: x('middle'), y: y('at') },
      },
    ]
  }
  const plot = await timePlot({
    name: 'severity',
    width,
    plotHeight,
    span,
    hasTimeAxis: true,
    y: { domain: [0, 2.2], isLog: false, ticks: [1, 2], labelExpression: "datum.value === 1 ? 'Sev 2' : 'Sev 1'" },
    layers: (x, y) => [
      ...shading(shades, x),
      ...blocks(2, x, y),
      ...blocks(1, x, y),
      ...(stretches.length === 0 ? [said(polls.length === 0 ? 'no polls' : 'no incident', { width, plotHeight })] : []),
    ],
  })
  return stacked([heading({ width, title: 'severity', subtitle: '', keys: [] }), plot], 0)
}
