import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { pathToFileURL } from 'node:url'

import type { Browser, BrowserContextOptions, Page } from 'playwright-core'

import { pairKey } from '../src/core/pair.js'
import { type Colour, PALETTE, type Theme } from '../src/report/palette.js'
import { picturesOf, sheetsOf, WIDTHS } from '../src/report/pictures.js'
import { pngOf } from '../src/report/png.js'
import { renderReport } from '../src/report/render.js'
import type { Report, ReportedPair } from '../src/report/report.js'
import { browserFor, type Opened, openPage, overflow } from './helpers/browser.js'
import { hostileReport, missingSample, pairOf, reportOf, sample, twentyPairs, week } from './helpers/edge-reports.js'
import { blended, difference, type Pixels, pixelsOf, type Rgb, rgb } from './helpers/pixels.js'
import { pageOf } from './helpers/report-page.js'
import { GROUND_TRUTH, OUTAGE, PAIRS, sampleReport } from './helpers/sample-report.js'
import { logYAt, type Plot, plotsIn, xAt, yAt } from './helpers/svg-plots.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** Drawn once for all that look at it. */
const SAMPLE = sampleReport()
const SHEETS = SAMPLE.then(async (report) => sheetsOf(report, await picturesOf(report, WIDTHS.wide)))
const FILES = SAMPLE.then(renderReport)

/** A picture as someone sees it, to be asked in the units of its SVG. */
interface Seen {
  readonly pixels: Pixels
  readonly theme: Theme
  /** Pixels of a unit, and where the SVG begins in the picture. */
  readonly scale: number
  readonly left: number
  readonly top: number
}

function colourAt({ pixels, scale, left, top }: Seen, x: number, y: number): Rgb {
  return pixels.at(left + scale * x, top + scale * y)
}

function is(seen: Seen, place: readonly [number, number], wanted: Rgb, what: string, within = 3): void {
  const found = colourAt(seen, ...place)
  assert.ok(
    difference(found, wanted) <= within,
    `${what} at ${place.join(', ')}: rgb(${found.join(', ')}) instead of rgb(${wanted.map(Math.round).join(', ')})`,
  )
}

/** How many of some places, across or along, have this colour. */
function share(seen: Seen, places: readonly (readonly [number, number])[], wanted: Rgb, within: number): number {
  return places.filter((place) => difference(colourAt(seen, ...place), wanted) <= within).length / places.length
}

function shade(seen: Seen, colour: Colour): Rgb {
  return rgb(PALETTE[colour][seen.theme])
}

/** A colour of its own over the paper. */
function over(seen: Seen, colour: Colour, opacity: number): Rgb {
  return blended(shade(seen, colour), shade(seen, 'paper'), opacity)
}

const FAULT_OPACITY = 0.22
const TRANSIENT_OPACITY = 0.2
const BAND_OPACITY = 0.32
const HEAT_OPACITY = 0.28
const HOT_OPACITY = 0.65

/** Places across a line, a unit to each side. */
function across([x, y]: readonly [number, number]): readonly (readonly [number, number])[] {
  return [-1, -0.5, 0, 0.5, 1].flatMap((dx) => [-1, -0.5, 0, 0.5, 1].map((dy) => [x + dx, y + dy] as const))
}

function looksLikeLatency(seen: Seen, plot: Plot, { pair, points }: ReportedPair, report: Report): void {
  const since = ({ timestampSeconds }: ReportedPair['points'][number]): number => timestampSeconds - report.startSeconds
  const place = (t: number, ms: number): readonly [number, number] => [xAt(plot, t), logYAt(plot, ms)]
  let [anomalies, normal, banded] = [0, 0, 0]
  for (const [i, point] of points.entries()) {
    if (point.yMs === null) continue
    const at = place(since(point), point.yMs)
    if (point.verdict === 'anomalous') {
      is(seen, at, shade(seen, 'anomaly'), 'an anomaly')
      anomalies++
      continue
    }
    assert.ok(share(seen, across(at), shade(seen, 'measured'), 60) > 0, `the line at ${since(point)} s`)
    normal++
    // The band between two samples, away from all else that is drawn: under the lines, before the faults, off the grid.
    const next = points[i + 1]!
    const t = since(point) + 7.5
    if (t < 510 || t > 590) continue
    const both = [point, next]
    const low = Math.max(...both.map(({ yMinMs }) => yMinMs!))
    const high = Math.min(...both.flatMap(({ yMs, yhatMs }) => [yMs!, yhatMs!]))
    assert.ok(logYAt(plot, low) - logYAt(plot, high) > 5, 'there is room to see the band')
    is(seen, place(t, Math.sqrt(low * high)), over(seen, 'band', BAND_OPACITY), 'the band')
    is(seen, place(t, 0.93 * Math.min(...both.map(({ yMinMs }) => yMinMs!))), shade(seen, 'paper'), 'nothing below it')
    is(seen, place(t, 1.1 * Math.max(...both.map(({ yMaxMs }) => yMaxMs!))), shade(seen, 'paper'), 'nothing above it')
    banded++
  }
  assert.ok(
    anomalies >= 20 && normal >= 40 && banded >= 4,
    `${anomalies} anomalies, ${normal} others, ${banded} banded`,
  )

  // The shade of a fault is where it was, on the pair that shows it, and nowhere else.
  const height = logYAt(plot, 70)
  for (const fault of GROUND_TRUTH.faults) {
    const [from, to] = [fault.fromSeconds - report.startSeconds, fault.toSeconds - report.startSeconds]
    const isSeen = fault.pairs.some((one) => pairKey(one) === pairKey(pair))
    if (!isSeen) continue
    for (const t of [from + 10, to - 10])
      is(seen, [xAt(plot, t), height], over(seen, 'fault', FAULT_OPACITY), fault.name)
    for (const t of [from - 10, to + 10]) is(seen, [xAt(plot, t), height], shade(seen, 'paper'), `not ${fault.name}`)
  }
  const [burst] = GROUND_TRUTH.transients
  const [from, to] = [burst!.fromSeconds - report.startSeconds, burst!.toSeconds - report.startSeconds]
  is(seen, [xAt(plot, (from + to) / 2), height], over(seen, 'transient', TRANSIENT_OPACITY), 'the transient')
}

/** The second pair has a gap: no line, and a strip that says so. */
function hasGap(seen: Seen, plot: Plot, pair: ReportedPair): void {
  const expected = pair.points[0]!.yhatMs!
  const [from, to] = [OUTAGE.from, OUTAGE.to - 16]
  for (let t = from; t <= to; t += 2) {
    const column = Array.from({ length: 60 }, (_, i) => [xAt(plot, t), logYAt(plot, expected) - 30 + i] as const)
    assert.equal(share(seen, column, shade(seen, 'measured'), 30), 0, `a line over the gap at ${t} s`)
  }
  const bottom = plot.top + plot.height - 2
  is(seen, [xAt(plot, (from + to) / 2), bottom], shade(seen, 'muted'), 'no sample')
  assert.ok(
    difference(colourAt(seen, xAt(plot, 100), bottom), shade(seen, 'muted')) > 60,
    'no strip where there are samples',
  )
}

function looksLikeIncident(seen: Seen, plots: readonly Plot[], report: Report): void {
  const accumulators = plots.filter(({ name }) => name === 'accumulator')
  const [temperature] = plots.filter(({ name }) => name === 'temperature')
  const [severity] = plots.filter(({ name }) => name === 'severity')
  assert.equal(accumulators.length, report.pairs.length)
  let [filled, hot] = [0, 0]
  const check = (plot: Plot, levelOf: (poll: Report['polls'][number]) => number, threshold: number): void => {
    for (const poll of report.polls) {
      // In the middle of the step, where no fault is behind it and no line of the grid.
      const t = poll.timestampSeconds - report.startSeconds + 7.5
      if (t < 1_060) continue
      const level = levelOf(poll)
      if (level > 1) {
        const inside = [xAt(plot, t), yAt(plot, 0.3 * Math.min(level, threshold))] as const
        is(seen, inside, over(seen, 'heat', HEAT_OPACITY), `level ${level} at ${t} s`)
        filled++
      }
      if (level > threshold + 2) {
        const inside = [xAt(plot, t), yAt(plot, (level + threshold) / 2)] as const
        const dark = blended(shade(seen, 'heat'), over(seen, 'heat', HEAT_OPACITY), HOT_OPACITY)
        is(seen, inside, dark, `level ${level} above ${threshold} at ${t} s`, 4)
        hot++
      }
      const above = yAt(plot, level) - 5
      if (above > plot.top + 2 && Math.abs(above - yAt(plot, threshold)) > 3 && level !== threshold) {
        const free = [xAt(plot, t), above] as const
        const isGrid = difference(colourAt(seen, ...free), shade(seen, 'grid')) <= 8
        if (!isGrid)
          assert.ok(
            difference(colourAt(seen, ...free), over(seen, 'heat', HEAT_OPACITY)) > 12,
            `nothing above ${level}`,
          )
      }
    }
    // A threshold is a dashed line from side to side.
    const line = Array.from({ length: 300 }, (_, i) => [xAt(plot, 2 + 4 * i), yAt(plot, threshold)] as const)
    const drawn = share(seen, line, shade(seen, 'ink'), 90)
    assert.ok(drawn > 0.35 && drawn < 0.95, `${drawn} of the threshold`)
  }
  for (const [i, plot] of accumulators.entries()) check(plot, ({ accumulators: levels }) => levels[i]!, 5)
  check(temperature!, ({ temperature: level }) => level, report.incidentThreshold)
  assert.ok(filled > 10 && hot > 5, `${filled} levels, ${hot} above`)

  const seenSeverities = new Set<number | null>()
  for (const poll of report.polls) {
    const t = poll.timestampSeconds - report.startSeconds + 7.5
    const [high, low] = [1.5, 0.15].map((level) => [xAt(severity!, t), yAt(severity!, level)] as const)
    if (poll.severity === 1) is(seen, high!, shade(seen, 'sev1'), `Sev 1 at ${t} s`)
    if (poll.severity === 2) is(seen, low!, shade(seen, 'sev2'), `Sev 2 at ${t} s`)
    if (poll.severity !== 1)
      assert.ok(difference(colourAt(seen, ...high!), shade(seen, 'sev1')) > 60, `no Sev 1 at ${t} s`)
    if (poll.severity === null)
      assert.ok(difference(colourAt(seen, ...low!), shade(seen, 'sev2')) > 60, `no Sev 2 at ${t} s`)
    seenSeverities.add(poll.severity)
  }
  assert.equal(seenSeverities.size, 3)
}

function looksLikeTradeOff(seen: Seen, plot: Plot, { tradeOffs: [tradeOff] }: Report): void {
  for (const { series, x, y } of tradeOff!.points) {
    const colour = series === 'load-and-season' ? 'series1' : 'series2'
    is(seen, [xAt(plot, x), yAt(plot, y)], shade(seen, colour), `${series} at ${x}, ${y}`)
  }
}

/** How much of a box is ink: a line of text is not blank and not black. */
function isText(seen: Seen, box: { left: number; top: number; right: number; bottom: number }, what: string): void {
  const places: (readonly [number, number])[] = []
  for (let x = box.left; x < box.right; x += 0.5) for (let y = box.top; y < box.bottom; y += 0.5) places.push([x, y])
  const inked = share(seen, places, shade(seen, 'ink'), 80)
  assert.ok(inked > 0.06 && inked < 0.6, `${what}: ${inked} of it is ink`)
}

test('report: the PNG files show the data where it is, with their text', async () => {
  const [report, sheets, files] = await Promise.all([SAMPLE, SHEETS, FILES])
  const seenIn = (file: string): { seen: Seen; plots: readonly Plot[] } => {
    const png = files[file]
    assert.ok(png instanceof Uint8Array, file)
    const { svg, height } = sheets.get(file)!
    const pixels = pixelsOf(png)
    assert.deepEqual([pixels.width, pixels.height], [2 * (WIDTHS.wide + 32), Math.round(2 * height)], file)
    const seen: Seen = { pixels, theme: 'light', scale: 2, left: 0, top: 0 }
    // The title, in bold, in the upper left corner.
    isText(seen, { left: 17, top: 20, right: 90, bottom: 33 }, `the title of ${file}`)
    return { seen, plots: plotsIn(svg) }
  }
  for (const [i, { source, destination }] of PAIRS.entries()) {
    const { seen, plots } = seenIn(`latency-${source}-${destination}.png`)
    looksLikeLatency(seen, plots[0]!, report.pairs[i]!, report)
    if (i === 1) hasGap(seen, plots[0]!, report.pairs[i]!)
  }
  const incident = seenIn('incident.png')
  looksLikeIncident(incident.seen, incident.plots, report)
  const overview = seenIn('overview.png')
  const latencies = overview.plots.filter(({ name }) => name === 'latency')
  for (const [i, plot] of latencies.entries()) looksLikeLatency(overview.seen, plot, report.pairs[i]!, report)
  assert.equal(latencies.length, 2)
  looksLikeIncident(overview.seen, overview.plots, report)
  const tradeOff = seenIn('tradeoff-1.png')
  looksLikeTradeOff(tradeOff.seen, tradeOff.plots[0]!, report)
})

test('report: a PNG file of very many pairs has fewer pixels for each', async () => {
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="24000"><rect width="9" height="9"/></svg>'
  const { width, height } = pixelsOf(await pngOf({ svg, height: 24_000 }))
  assert.deepEqual([width, height], [50, 12_000])
})

/** Opens a page from a file, with the network off. */
async function look(browser: Browser, t: TestContext, html: string, options: BrowserContextOptions): Promise<Opened> {
  const path = join(temporaryFolder(t), 'report.html')
  writeFileSync(path, html)
  return openPage(browser, pathToFileURL(path).href, { offline: true, ...options })
}

/** The drawings that can be seen, with where they are on the page. */
async function drawingsOf(
  page: Page,
): Promise<readonly { svg: string; left: number; top: number; width: number; view: number }[]> {
  return page.evaluate(`[...document.querySelectorAll('svg')].filter((svg) => svg.checkVisibility()).map((svg) => {
    const { left, top, width } = svg.getBoundingClientRect()
    return { svg: svg.outerHTML, left: left + scrollX, top: top + scrollY, width, view: svg.viewBox.baseVal.width }
  })`)
}

/** Texts in drawings that are cut off by the drawing's edge, or that stand over one another. */
async function badTexts(page: Page): Promise<readonly string[]> {
  return page.evaluate(`[...document.querySelectorAll('svg')].filter((svg) => svg.checkVisibility()).flatMap((svg) => {
    const frame = svg.getBoundingClientRect()
    const scale = frame.width / svg.viewBox.baseVal.width
    // A line of digits and small letters does not fill its box.
    const slack = 3 * scale
    const texts = [...svg.querySelectorAll('text')].filter((text) => text.getAttribute('opacity') !== '0')
      .flatMap((text) => text.querySelector('tspan') === null ? [text] : [...text.querySelectorAll('tspan')])
      .filter((text) => text.textContent.trim() !== '')
      .map((text) => ({ said: text.textContent, box: text.getBoundingClientRect() }))
    const cut = texts.filter(({ box }) => box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - slack || box.bottom > frame.bottom + slack)
    const over = texts.flatMap((a, i) => texts.slice(i + 1).filter((b) =>
      a.box.left + 1 < b.box.right && b.box.left + 1 < a.box.right && a.box.top + slack < b.box.bottom && b.box.top + slack < a.box.bottom,
    ).map((b) => a.said + ' over ' + b.said))
    return [...cut.map(({ said }) => 'cut off: ' + said), ...over]
  })`)
}

const DESK = { viewport: { width: 1280, height: 900 } }
const PHONE = { viewport: { width: 400, height: 800 }, deviceScaleFactor: 2 }

const SCREENS = [
  { name: 'on a desk', options: DESK, theme: 'light' },
  { name: 'on a phone', options: PHONE, theme: 'light' },
  { name: 'on a desk in the dark', options: { ...DESK, colorScheme: 'dark' }, theme: 'dark' },
] as const

const ODD_REPORTS = [
  { name: 'names from outside', report: hostileReport() },
  { name: 'twenty pairs', report: twentyPairs() },
  { name: 'nothing', report: reportOf({}) },
  { name: 'no samples', report: reportOf({ pairs: [pairOf([0, 15, 30].map(missingSample))] }) },
  { name: 'one sample', report: reportOf({ pairs: [pairOf([sample(300, 10)])] }) },
  { name: 'a week', report: { ...week(), pairs: week().pairs.slice(0, 1) } },
]

test('report: in a real browser, from a file, without a network', async (t) => {
  const browser = await browserFor(t)
  if (browser === null) return
  const report = await SAMPLE
  const html = String((await FILES)['report.html'])

  for (const { name, options, theme } of SCREENS) {
    await t.test(`report: ${name} the page shows the data where it is`, async (t) => {
      const { page, complaints } = await look(browser, t, html, options)
      const pixels = pixelsOf(await page.screenshot({ fullPage: true }))
      const ratio = 'deviceScaleFactor' in options ? options.deviceScaleFactor : 1
      const drawings = (await drawingsOf(page)).map(({ svg, left, top, width, view }) => {
        const seen: Seen = { pixels, theme, scale: (ratio * width) / view, left: ratio * left, top: ratio * top }
        return { seen, plots: plotsIn(svg), view }
      })
      const view = options === PHONE ? WIDTHS.narrow : WIDTHS.wide
      assert.deepEqual(
        drawings.map((drawing) => drawing.view),
        [view, view, view, view],
      )
      const [tradeOff, incident, ...latencies] = drawings
      looksLikeTradeOff(tradeOff!.seen, tradeOff!.plots[0]!, report)
      looksLikeIncident(incident!.seen, incident!.plots, report)
      for (const [i, { seen, plots }] of latencies.entries()) {
        looksLikeLatency(seen, plots[0]!, report.pairs[i]!, report)
        isText(seen, { left: 1, top: 4, right: 70, bottom: 17 }, 'the title')
      }
      hasGap(latencies[1]!.seen, latencies[1]!.plots[0]!, report.pairs[1]!)
      assert.deepEqual(await badTexts(page), [])
      assert.ok((await overflow(page)) <= 0, 'scrolls sideways')
      assert.deepEqual(complaints, [])
    })
  }

  await t.test('report: on paper it is light and wide, whatever the screen is', async (t) => {
    const { page } = await look(browser, t, html, { ...PHONE, colorScheme: 'dark' })
    await page.emulateMedia({ media: 'print', colorScheme: 'dark' })
    const { wide } = WIDTHS
    assert.deepEqual(
      (await drawingsOf(page)).map(({ view }) => view),
      [wide, wide, wide, wide],
    )
    assert.equal(await page.evaluate('getComputedStyle(document.body).backgroundColor'), 'rgb(255, 255, 255)')
  })

  for (const { name, report: odd } of ODD_REPORTS) {
    await t.test(`report: of ${name} no text is cut off or over another, and nothing runs`, async (t) => {
      const { page, complaints } = await look(browser, t, await pageOf(odd), DESK)
      for (const { viewport } of [DESK, PHONE]) {
        await page.setViewportSize(viewport)
        assert.deepEqual(await badTexts(page), [], `${viewport.width} pixels wide`)
        assert.ok((await overflow(page)) <= 0, `${viewport.width} pixels wide: scrolls sideways`)
      }
      assert.equal(await page.evaluate('document.scripts.length + document.images.length + document.links.length'), 0)
      assert.match(await page.title(), /^(<script>|a report$|a week$)/)
      assert.deepEqual(complaints, [])
    })
  }
})
