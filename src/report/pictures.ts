import { pairFileNames } from '../core/pair-file-names.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { incidentPanels } from './incident-panels.js'
import { latencyPanel } from './latency.js'
import { inTheme, paint } from './palette.js'
import { heading, type Panel, stacked, svgOf } from './panel.js'
import type { Report } from './report.js'
import { timesOf } from './sections.js'
import { spanOf } from './span.js'
import { tradeOffPanel } from './trade-off.js'
import { shadesOf } from './windows.js'

/** For a page on a desk, on paper, and in PNG files; and for a phone. */
export const WIDTHS = { wide: 900, narrow: 400 } as const

/** Everything that is drawn of a report, at one width. */
export interface Pictures {
  /** One per pair. */
  readonly latencies: readonly Panel[]
  /** Accumulators, temperature and severity. */
  readonly incident: readonly Panel[]
  /** One per trade-off. */
  readonly tradeOffs: readonly Panel[]
}

export async function picturesOf(report: Report, width: number): Promise<Pictures> {
  const span = spanOf(report)
  const latencies: Panel[] = []
  for (const pair of report.pairs) {
    latencies.push(await latencyPanel(pair, { width, span, shades: shadesOf(report.groundTruth, span, pair.pair) }))
  }
  const shades = shadesOf(report.groundTruth, span)
  const hasIncident = report.pairs.length > 0 || report.polls.length > 0
  const tradeOffs: Panel[] = []
  for (const tradeOff of report.tradeOffs) tradeOffs.push(await tradeOffPanel(tradeOff, { width }))
  return { latencies, incident: hasIncident ? await incidentPanels(report, { width, span, shades }) : [], tradeOffs }
}

const GAP = 18
const MARGIN = 16

/** A picture that stands alone, on paper. */
export interface Sheet {
  readonly svg: string
  readonly height: number
}

function sheetOf(panels: readonly Panel[], about: string): Sheet {
  const stack = stacked(panels, GAP)
  return { svg: svgOf(stack, { about, margin: MARGIN, ground: paint('paper') }), height: stack.height + 2 * MARGIN }
}

/** The whole run in one picture, with the title over it. */
function overview(report: Report, { latencies, incident }: Pictures): Sheet {
  const keys = report.partial
    ? [{ mark: 'strip', colour: 'anomaly', text: 'partial: ended before its end' } as const]
    : []
  const title = heading({ width: WIDTHS.wide, title: report.title, subtitle: timesOf(report), keys })
  return sheetOf([title, ...latencies, ...incident], report.title)
}

/** The whole run in one picture, as SVG on a light ground. */
export async function overviewSvg(report: Report): Promise<string> {
  const { svg } = overview(report, await picturesOf({ ...report, tradeOffs: [] }, WIDTHS.wide))
  return inTheme(svg, 'light')
}

/** The files of the pictures, as report.md names them; undefined where there is none. */
export interface PictureFiles {
  readonly overview: string
  readonly incident: string | undefined
  readonly latencies: readonly string[]
  readonly tradeOffs: readonly string[]
}

export function pictureFiles(report: Report, pictures: Pictures): PictureFiles {
  return {
    overview: 'overview.png',
    incident: pictures.incident.length === 0 ? undefined : 'incident.png',
    latencies: fileNames(report.pairs.map(({ pair }) => pair)),
    tradeOffs: report.tradeOffs.map((_, i) => `tradeoff-${i + 1}.png`),
  }
}

/** The pictures by the names of their files, with `paint`ed colours. */
export function sheetsOf(report: Report, pictures: Pictures): ReadonlyMap<string, Sheet> {
  const files = pictureFiles(report, pictures)
  return new Map([
    [files.overview, overview(report, pictures)],
    ...(files.incident === undefined ? [] : [[files.incident, sheetOf(pictures.incident, 'incident')] as const]),
    ...pictures.latencies.map((panel, i) => {
      const name = report.pairs[i]
      return [files.latencies[i] ?? '', sheetOf([panel], name === undefined ? 'latency' : pairName(name.pair))] as const
    }),
    ...pictures.tradeOffs.map((panel, i) => [files.tradeOffs[i] ?? '', sheetOf([panel], 'trade-off')] as const),
  ])
}

/** As the recordings of a run are called; a pair that is there twice, with another quantile, has a number. */
function fileNames(pairs: readonly Pair[]): readonly string[] {
  const names = pairFileNames([...new Map(pairs.map((pair) => [pairKey(pair), pair])).values()])
  const taken = new Set<string>()
  return pairs.map((pair) => {
    const stem = `latency-${(names.get(pairKey(pair)) ?? '').replace(/\.json$/, '')}`
    let name = stem
    for (let number = 2; taken.has(name); number++) name = `${stem}~~${number}`
    taken.add(name)
    return `${name}.png`
  })
}
