import { parse as parseVega, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'

import { pairName, type Pair } from '../core/pair.js'
import type { Matrix, Series } from '../core/series.js'

/** A stretch of the story, to be named in the picture. */
export interface Scene {
  readonly title: string
  readonly startSeconds: number
  readonly endSeconds: number
}

/** Gauges of both daemons over the story, as Prometheus has them. */
export const PICTURE_QUERY = '{__name__=~"lab7_(y|y_min|y_max|anomaly_count|incident_temperature|incident_severity)"}'

const WIDTH = 900
const TICK_SECONDS = 30
const SEVERITY_COLOURS = { 'Sev 1': '#c4314b', 'Sev 2': '#e08a00' } as const

/** Latency in its band for each pair, the temperature under them, and the incident behind all, as SVG. */
export async function storyPicture(options: {
  readonly matrix: Matrix
  readonly pairs: readonly Pair[]
  readonly scenes: readonly Scene[]
  readonly incidentThreshold: number
  readonly clearThreshold: number
}): Promise<string> {
  const { matrix, pairs, scenes, incidentThreshold, clearThreshold } = options
  const startSeconds = scenes[0]?.startSeconds ?? 0
  const endSeconds = scenes.at(-1)?.endSeconds ?? startSeconds
  const inStory = (timeSeconds: number): boolean => timeSeconds >= startSeconds && timeSeconds <= endSeconds
  const points = (name: string, pair?: Pair): { t: number; value: number }[] => {
    const series = matrix.result.find(
      ({ labels }) => labels.get('__name__') === name && (pair === undefined || isOf(labels, pair)),
    )
    return series === undefined
      ? []
      : pointsOf(series)
          .filter(({ t }) => inStory(t))
          .map(({ t, value }) => ({ t: t - startSeconds, value }))
  }
  const ticks = Array.from(
    { length: Math.floor((endSeconds - startSeconds) / TICK_SECONDS) + 1 },
    (_, i) => i * TICK_SECONDS,
  )
  const x = {
    field: 't',
    type: 'quantitative',
    title: null,
    scale: { domain: [0, endSeconds - startSeconds], nice: false },
    axis: {
      labelExpr: "floor(datum.value / 60) + ':' + format(datum.value % 60, '02d')",
      values: ticks,
      grid: false,
    },
  }
  const severity = {
    data: { values: stretches(points('lab7_incident_severity')) },
    mark: { type: 'rect', opacity: 0.18 },
    encoding: {
      x: { ...x, field: 'from' },
      x2: { field: 'to' },
      color: {
        field: 'severity',
        type: 'nominal',
        title: 'incident',
        scale: { domain: Object.keys(SEVERITY_COLOURS), range: Object.values(SEVERITY_COLOURS) },
      },
    },
  }
  const spec = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    spacing: 58,
    bounds: 'flush',
    config: { axis: { labelFontSize: 11, titleFontSize: 11 }, title: { anchor: 'start', fontSize: 13 } },
    vconcat: [
      ...pairs.map((pair) => {
        const band = new Map(points('lab7_y_max', pair).map(({ t, value }) => [t, value]))
        const bounds = points('lab7_y_min', pair).map(({ t, value }) => ({
          t,
          low: Math.max(1, value),
          high: band.get(t),
        }))
        const judged = new Map(points('lab7_anomaly_count', pair).map(({ t, value }) => [t, value]))
        const latency = points('lab7_y', pair).map(({ t, value }) => ({
          t,
          value: Math.max(1, value),
          anomalous: (judged.get(t) ?? 0) > 0,
        }))
        const y = {
          type: 'quantitative',
          title: 'p50, ms',
          scale: { type: 'log', nice: false },
          axis: { tickCount: 3, gridOpacity: 0.4 },
        }
        return {
          width: WIDTH,
          height: 120,
          title: pairName(pair),
          layer: [
            severity,
            {
              data: { values: bounds },
              mark: { type: 'area', color: '#2c7fb8', opacity: 0.25 },
              encoding: { x, y: { field: 'low', ...y }, y2: { field: 'high' } },
            },
            {
              data: { values: latency },
              mark: { type: 'line', color: '#1f4e79', strokeWidth: 1.5 },
              encoding: { x, y: { field: 'value', ...y } },
            },
            {
              data: { values: latency.filter(({ anomalous }) => anomalous) },
              mark: { type: 'point', color: '#c4314b', filled: true, size: 22, opacity: 1 },
              encoding: { x, y: { field: 'value', ...y } },
            },
          ],
        }
      }),
      {
        width: WIDTH,
        height: 130,
        title: { text: 'incident temperature', offset: 18 },
        layer: [
          severity,
          {
            data: { values: points('lab7_incident_temperature') },
            mark: {
              type: 'area',
              interpolate: 'step-after',
              color: '#c4314b',
              opacity: 0.35,
              line: { color: '#c4314b' },
            },
            encoding: { x, y: { field: 'value', type: 'quantitative', title: 'temperature' } },
          },
          {
            data: {
              values: [
                { at: incidentThreshold, what: 'opens above' },
                { at: clearThreshold, what: 'closes at or below' },
              ],
            },
            mark: { type: 'rule', strokeDash: [4, 3], color: '#555' },
            encoding: { y: { field: 'at', type: 'quantitative' } },
          },
          {
            data: { values: scenes.map(({ title, startSeconds: from }) => ({ t: from - startSeconds, title })) },
            mark: { type: 'rule', color: '#888' },
            encoding: { x },
          },
          {
            data: { values: scenes.map(({ title, startSeconds: from }) => ({ t: from - startSeconds, title })) },
            mark: { type: 'text', align: 'left', baseline: 'bottom', dx: 3, dy: -3, fontSize: 11 },
            encoding: { x, y: { value: 0 }, text: { field: 'title' } },
          },
        ],
      },
    ],
  }
  return new View(parseVega(compile(spec as unknown as TopLevelSpec).spec), { renderer: 'none' }).toSVG()
}

function isOf(labels: ReadonlyMap<string, string>, { source, destination }: Pair): boolean {
  return labels.get('source') === source && labels.get('destination') === destination
}

function pointsOf({ timesSeconds, values }: Series): { t: number; value: number }[] {
  return timesSeconds.flatMap((t, i) => {
    const value = values[i] ?? NaN
    return Number.isFinite(value) ? [{ t, value }] : []
  })
}

/** Stretches of one severity, from its first point to the first of the next. */
function stretches(points: readonly { t: number; value: number }[]): { from: number; to: number; severity: string }[] {
  const found: { from: number; to: number; severity: string }[] = []
  points.forEach(({ t, value }, i) => {
    const to = points[i + 1]?.t ?? t
    const last = found.at(-1)
    const severity = `Sev ${value}`
    if (value === 0) return
    if (last?.to === t && last.severity === severity) last.to = to
    else found.push({ from: t, to, severity })
  })
  return found
}
