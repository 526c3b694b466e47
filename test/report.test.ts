import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

import { StartError } from '../src/core/errors.js'
import { writeReport } from '../src/io/report-files.js'
import { type Colour, PALETTE, type Theme } from '../src/report/palette.js'
import { picturesOf, sheetsOf } from '../src/report/pictures.js'
import { type ReportFiles, renderReport } from '../src/report/render.js'
import type { Report } from '../src/report/report.js'
import { sinceStart, ticksOf } from '../src/report/span.js'
import { HOSTILE_NAMES, hostileReport, missingSample, pairOf, reportOf, sample, week } from './helpers/edge-reports.js'
import { type Rgb, rgb } from './helpers/pixels.js'
import { pageOf } from './helpers/report-page.js'
import { sampleReport, START_SECONDS } from './helpers/sample-report.js'
import { plotsIn, xAt } from './helpers/svg-plots.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** Drawn once for all that look at it. */
const SAMPLE = sampleReport()
const SAMPLE_FILES = SAMPLE.then(renderReport)
const HOSTILE_FILES = renderReport(hostileReport())

function text(files: ReportFiles, name: string): string {
  const content = files[name]
  assert.equal(typeof content, 'string', name)
  return content as string
}

/** The wide drawing of one picture. */
async function drawing(report: Report, file: string): Promise<string> {
  const sheet = sheetsOf(report, await picturesOf(report, 900)).get(file)
  assert.ok(sheet, file)
  return sheet.svg
}

/** The paths drawn with this colour as their stroke, each as its line pieces. */
function strokes(svg: string, colour: Colour): readonly (readonly string[])[] {
  return [...svg.matchAll(new RegExp(`<path d="([^"]*)" stroke="var\\(--${colour}\\)"`, 'g'))].map(([, d]) =>
    d!.split('M').slice(1),
  )
}

test('report: an experiment becomes a page, a Markdown file and pictures', async () => {
  const [report, files] = await Promise.all([SAMPLE, SAMPLE_FILES])
  assert.deepEqual(Object.keys(files), [
    'overview.png',
    'incident.png',
    'latency-frontend-cartservice.png',
    'latency-checkoutservice-paymentservice.png',
    'tradeoff-1.png',
    'report.md',
    'report.html',
  ])
  const html = text(files, 'report.html')
  const markdown = text(files, 'report.md')
  for (const said of [html, markdown]) {
    for (const sentence of [...report.summary, 'Times are from the start of the first fault.', 'opened, Sev 2']) {
      assert.ok(said.includes(sentence), sentence)
    }
    assert.ok(said.includes('2023-11-14 22:13:20Z to 2023-11-14 22:38:20Z, 1500 s'))
    assert.ok(!said.includes('Partial'))
  }
  assert.match(html, /frontend -&gt; cartservice: 100 samples, \d+ anomalous, 0 missing\./)
  assert.match(html, /checkoutservice -&gt; paymentservice: 92 samples, \d+ anomalous, 8 missing\./)
  assert.match(html, /<td>\+400 users<\/td><td>transient<\/td><td>\+330 s<\/td><td>\+350 s<\/td>/)
  assert.match(html, /<td class="number">1\.235<\/td>/)
  assert.match(html, /<td class="number">–<\/td>/)
  assert.ok(markdown.includes('| false anomalies \\| per thousand | few | yes | 1.235 |'))
  assert.ok(markdown.includes('| --- | --- | --- | --: |'))
  assert.ok(markdown.includes('| load-and-season | 5 | 0.9138 | 135 |'))
  const named = [...markdown.matchAll(/\]\(([^)]*)\)/g)].map(([, file]) => file!)
  assert.deepEqual(
    named.toSorted(),
    Object.keys(files)
      .filter((file) => file.endsWith('.png'))
      .toSorted(),
  )
})

test('report: the page needs no script, no other file and no network, and its policy allows none', async () => {
  const html = text(await SAMPLE_FILES, 'report.html')
  const tags = new Set([...html.matchAll(/<([a-z][a-z0-9]*)/gi)].map(([, tag]) => tag!.toLowerCase()))
  for (const tag of ['script', 'img', 'link', 'iframe', 'object', 'image', 'use', 'a']) assert.ok(!tags.has(tag), tag)
  assert.doesNotMatch(html, / (style|on[a-z]+|href|src|id)=|url\(|@import/)
  const [, policy] = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(html) ?? []
  const [, style] = /<style>([^]*?)<\/style>/.exec(html) ?? []
  const hash = createHash('sha256').update(style!).digest('base64')
  assert.equal(policy, `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'`)
})

test('report: one that was cut short says so where it is seen first', async () => {
  const files = await renderReport(reportOf({ partial: true, summary: ['A sentence.'] }))
  const html = text(files, 'report.html')
  assert.ok(html.indexOf('Partial: the run ended before its end.') < html.indexOf('A sentence.'))
  assert.match(html, /class="banner" role="alert">Partial/)
  assert.match(text(files, 'report.md'), /^# a report\n\n> \*\*Partial: /)
  assert.match(await drawing(reportOf({ partial: true }), 'overview.png'), />partial: ended before its end</)
})

test('report: of nothing at all it says that there is nothing', async () => {
  const files = await renderReport(reportOf({}))
  assert.deepEqual(Object.keys(files), ['overview.png', 'report.md', 'report.html'])
  for (const name of ['report.html', 'report.md']) assert.match(text(files, name), /None: no incident opened\./)
})

test('report: a pair without samples has an empty plot that says so', async () => {
  for (const points of [[], [0, 15, 30].map(missingSample)]) {
    const report = reportOf({ pairs: [pairOf(points)] })
    const svg = await drawing(report, 'latency-a-b.png')
    assert.match(svg, />no samples</)
    assert.deepEqual(strokes(svg, 'measured'), [])
    assert.ok(svg.includes('>22:23:20</tspan>') && svg.includes('>10</text>'), 'its axes')
    const incident = await drawing(report, 'incident.png')
    assert.equal(incident.match(/>no polls</g)?.length, 3)
    assert.ok(incident.includes('>Sev 1</text>') && incident.includes('>22:23:20</tspan>'), 'their axes')
  }
})

test('report: one sample is a point, not nothing', async () => {
  const svg = await drawing(reportOf({ pairs: [pairOf([sample(300, 10)])] }), 'latency-a-b.png')
  const [plot] = plotsIn(svg)
  const points = [...svg.matchAll(/<path transform="translate\(([\d.]+),[\d.]+\)"[^>]*fill="var\(--measured\)"/g)]
  assert.equal(points.length, 1)
  assert.equal(Number(points[0]![1]) + plot!.left, xAt(plot!, 300))
})

test('report: no line is drawn over a missing sample, nor over a hole in time', async () => {
  const times = [0, 15, 30, 45, 60, 75, 90, 105, 165, 180, 195]
  const points = times.map((since) =>
    since === 45 ? { ...sample(since, null), verdict: 'no_data' as const } : sample(since, 10),
  )
  const svg = await drawing(reportOf({ pairs: [pairOf(points)], endSeconds: START_SECONDS + 210 }), 'latency-a-b.png')
  const [plot] = plotsIn(svg)
  const pieces = strokes(svg, 'measured')
    .flat()
    .map((piece) => piece.split(/[LZ]/).filter(Boolean))
    .map((corners) => [corners[0], corners.at(-1)].map((corner) => Number(corner!.split(',')[0])))
    .filter(([from, to]) => from !== to)
  const at = (since: number): number => Math.round(10 * (xAt(plot!, since) - plot!.left)) / 10
  const near = (a: number, b: number): boolean => Math.abs(a - b) <= 0.11
  const wanted = [
    [0, 30],
    [60, 105],
    [165, 195],
  ].map((piece) => piece.map(at))
  assert.equal(pieces.length, wanted.length, JSON.stringify(pieces))
  for (const [i, [from, to]] of wanted.entries()) {
    assert.ok(
      near(pieces[i]![0]!, from!) && near(pieces[i]![1]!, to!),
      `${JSON.stringify(pieces[i])} is ${from} to ${to}`,
    )
  }
  // A missing sample has its band; a hole in time has none.
  const [band] = [...svg.matchAll(/<path d="([^"]*)" fill="var\(--band\)"/g)]
  assert.equal(band![1]!.split('Z').filter(Boolean).length, 2)
})

test('report: samples from 5 ms to 50 s are on one axis, with labels that are read', async () => {
  const points = Array.from({ length: 41 }, (_, i) => sample(15 * i, i < 20 ? 5 : 50_000, i < 20 ? 'ok' : 'anomalous'))
  const svg = await drawing(reportOf({ pairs: [pairOf(points)] }), 'latency-a-b.png')
  const [plot] = plotsIn(svg)
  assert.ok(plot!.y[0] <= 5 && plot!.y[1] >= 50_000)
  for (const label of ['10', '100', '1,000', '10,000']) assert.ok(svg.includes(`>${label}</text>`), label)
  assert.equal(svg.match(/fill="var\(--anomaly\)"/g)?.length, 21 + 1, 'each anomaly, and the legend')
})

test('report: a latency of 0 is at the bottom of the plot, and what is not finite is missing', async () => {
  const points = [sample(0, 10), sample(15, 0), sample(30, NaN), sample(45, Infinity), sample(60, 12), sample(75, 12)]
  const report = reportOf({ pairs: [pairOf(points)] })
  const svg = await drawing(report, 'latency-a-b.png')
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/)
  const [plot] = plotsIn(svg)
  assert.ok(
    strokes(svg, 'measured')
      .flat()
      .some((piece) => piece.includes(`,${plot!.height}`)),
  )
  assert.match(await pageOf(report), /4 samples, 0 anomalous, 2 missing/)
})

test('report: a week of polls of three pairs is small, and every anomaly is on it', async () => {
  const report = week()
  const bytes = Buffer.byteLength(await pageOf(report))
  assert.ok(bytes < 4e6, `${bytes} bytes`)
  const svg = await drawing(report, 'latency-frontend-service-1.png')
  const [plot] = plotsIn(svg)
  const dots = [...svg.matchAll(/<path transform="translate\(([\d.]+),([\d.]+)\)"[^>]*fill="var\(--anomaly\)"/g)].map(
    ([, x, y]) => [Number(x), Number(y)] as const,
  )
  const [low, high] = plot!.y
  for (const { timestampSeconds, verdict, yMs } of report.pairs[1]!.points) {
    if (verdict !== 'anomalous') continue
    const x = xAt(plot!, timestampSeconds - report.startSeconds) - plot!.left
    const y = plot!.height * (1 - Math.log(yMs! / low) / Math.log(high / low))
    assert.ok(
      dots.some((dot) => Math.abs(dot[0] - x) <= 1 && Math.abs(dot[1] - y) <= 1),
      `the anomaly at ${timestampSeconds - report.startSeconds} s`,
    )
  }
})

test('report: names from outside are text in the page and in its pictures', async () => {
  const files = await HOSTILE_FILES
  const html = text(files, 'report.html')
  const tags = new Set([...html.matchAll(/<\/?([a-z][a-z0-9]*)/gi)].map(([, tag]) => tag!.toLowerCase()))
  assert.ok(!tags.has('script') && !tags.has('img'))
  assert.ok(html.includes('&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;'))
  // eslint-disable-next-line no-control-regex
  assert.doesNotMatch(html, /[\u0000-\u0008\u000b-\u001f\u2028\u202e]|\p{Surrogate}/u)
  const names = Object.keys(files)
  for (const name of names) assert.match(name, /^[A-Za-z0-9_.~%-]{1,255}$/)
  assert.equal(new Set(names.map((name) => name.toLowerCase())).size, names.length)
  assert.equal(names.filter((name) => name.startsWith('latency-')).length, HOSTILE_NAMES.length)
})

test('report: names from outside break no table, link or list of the Markdown', async () => {
  const lines = text(await HOSTILE_FILES, 'report.md').split('\n')
  const cells = (line: string): number => line.replace(/\\./g, '').split('|').length - 2
  const tables = lines.filter((line) => line.startsWith('|'))
  assert.deepEqual([...new Set(tables.map(cells))].toSorted(), [4, 7, HOSTILE_NAMES.length])
  for (const line of lines) {
    const bare = line.replace(/\\./g, '')
    assert.doesNotMatch(bare, /<|`|~~/, line)
    assert.doesNotMatch(bare.replace(/!?\[[^[\]]*\]\([a-z]+[\w.~%-]*\.png\)/g, ''), /\[|\]/, line)
  }
  assert.ok(lines.includes("\\<script\\>document.title='owned'\\</script\\>"))
  assert.ok(lines.includes('| 0.3333 | – | – | – | – | short row | – | – |'))
})

test('report: a pair that is there twice has two pictures', async () => {
  const pair = pairOf([sample(0, 10)])
  const files = await renderReport(reportOf({ pairs: [pair, { ...pair, quantile: 0.99 }] }))
  assert.deepEqual(
    Object.keys(files).filter((name) => name.startsWith('latency-')),
    ['latency-a-b.png', 'latency-a-b~~2.png'],
  )
  assert.match(text(files, 'report.html'), />p99 latency, ms, log scale</)
})

test('report: faults are shaded on the pairs that can show them, transients on all', async () => {
  const report = await SAMPLE
  const kinds = async (file: string): Promise<readonly string[]> =>
    [...(await drawing(report, file)).matchAll(/>(cart delay|payment delay|\+400 users)</g)].map(([, name]) => name!)
  assert.deepEqual(await kinds('latency-frontend-cartservice.png'), ['+400 users', 'cart delay'])
  assert.deepEqual(await kinds('latency-checkoutservice-paymentservice.png'), ['+400 users', 'payment delay'])
  assert.deepEqual(await kinds('incident.png'), ['+400 users', 'cart delay', 'payment delay'])
})

test('report: times are told since the start and as UTC, in units that suit the length', () => {
  const labels = (seconds: number, startSeconds = START_SECONDS): readonly string[] =>
    ticksOf({ startSeconds, endSeconds: startSeconds + seconds }, 4).map(({ label }) => label.join(' '))
  assert.deepEqual(labels(1_500), ['0 s 22:13:20', '600 s 22:23:20', '1200 s 22:33:20'])
  assert.deepEqual(labels(1_500, START_SECONDS + 40), ['0 s 22:14', '600 s 22:24', '1200 s 22:34'])
  assert.deepEqual(labels(6 * 3_600), ['0 h 22:13:20', '2 h 00:13:20', '4 h 02:13:20', '6 h 04:13:20'])
  assert.deepEqual(labels(7 * 86_400), ['0 d 11-14 22:13', '2 d 11-16 22:13', '4 d 11-18 22:13', '6 d 11-20 22:13'])
  assert.deepEqual(labels(1), ['0 s 22:13:20', '1 s 22:13:21'])
  assert.equal(sinceStart(START_SECONDS - 0.04, { startSeconds: START_SECONDS }), '+0 s')
  assert.equal(sinceStart(START_SECONDS - 2.55, { startSeconds: START_SECONDS }), '−2.5 s')
})

/** WCAG 2's relative luminance. */
function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const share = part / 255
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
}

for (const theme of ['light', 'dark'] as const) {
  test(`report: in the ${theme} theme text has a contrast of 4.5 and what is drawn of 3`, () => {
    const contrast = (a: Colour, b: Colour, of: Theme): number => {
      const [bright, dim] = [a, b].map((colour) => luminance(rgb(PALETTE[colour][of]))).toSorted((x, y) => y - x)
      return (bright! + 0.05) / (dim! + 0.05)
    }
    const texts = [
      ['ink', 'paper'],
      ['muted', 'paper'],
      ['onSev2', 'sev2'],
      ['onSev1', 'sev1'],
    ] as const
    for (const [over, ground] of texts) assert.ok(contrast(over, ground, theme) >= 4.5, `${over} on ${ground}`)
    const lines = [
      'measured',
      'expected',
      'anomaly',
      'heat',
      'series1',
      'series2',
      'series3',
      'series4',
      'series5',
    ] as const
    for (const line of lines) assert.ok(contrast(line, 'paper', theme) >= 3, line)
  })
}

test('report: the pictures are the same, byte for byte, on a machine without fonts', async (t) => {
  const files = await SAMPLE_FILES
  const hash = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex')
  const here = Object.fromEntries(Object.entries(files).map(([name, content]) => [name, hash(content)]))
  const module = (path: string): string => JSON.stringify(fileURLToPath(new URL(path, import.meta.url)))
  const program = `
    const { sampleReport } = await import(${module('./helpers/sample-report.js')})
    const { renderReport } = await import(${module('../src/report/render.js')})
    const { createHash } = await import('node:crypto')
    const files = Object.entries(await renderReport(await sampleReport()))
    const hash = (content) => createHash('sha256').update(content).digest('hex')
    console.log(JSON.stringify(Object.fromEntries(files.map(([name, content]) => [name, hash(content)]))))`
  const home = temporaryFolder(t)
  const there = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    env: { HOME: home, XDG_DATA_HOME: home, XDG_DATA_DIRS: home, FONTCONFIG_FILE: '/dev/null', TZ: 'Asia/Tokyo' },
    encoding: 'utf8',
  })
  assert.deepEqual(JSON.parse(there), here)
})

test('report files: they are written into a folder that is made, and replace older ones', (t) => {
  const folder = join(temporaryFolder(t), 'runs', 'one')
  const png = Uint8Array.of(137, 80, 78, 71, 0, 255)
  writeReport(folder, { 'a.png': png, 'report.html': 'old' })
  writeReport(folder, { 'report.html': 'new' })
  assert.deepEqual(readdirSync(folder).toSorted(), ['a.png', 'report.html'])
  assert.deepEqual(new Uint8Array(readFileSync(join(folder, 'a.png'))), png)
  assert.equal(readFileSync(join(folder, 'report.html'), 'utf8'), 'new')
})

test('report files: a folder that is a file is named', (t) => {
  const path = join(temporaryFolder(t), 'taken')
  writeFileSync(path, '')
  assert.throws(
    () => writeReport(path, { 'report.html': '' }),
    (error) => error instanceof StartError && error.message.startsWith(`cannot make the folder ${path}: `),
  )
})

test('report files: a full disk is told, what was whole stays, and nothing half-written does', (t) => {
  if (!existsSync('/dev/full')) {
    t.skip('there is no /dev/full')
    return
  }
  const folder = join(temporaryFolder(t), 'run')
  mkdirSync(folder)
  writeFileSync(join(folder, 'report.html'), 'of the run before')
  symlinkSync('/dev/full', join(folder, 'report.html.partial'))
  assert.throws(
    () => writeReport(folder, { 'report.md': 'whole', 'report.html': 'content' }),
    (error) =>
      error instanceof StartError &&
      /^cannot write .*report\.html: ENOSPC: no space left on device/.test(error.message),
  )
  assert.deepEqual(readdirSync(folder).toSorted(), ['report.html', 'report.md'])
  assert.equal(readFileSync(join(folder, 'report.html'), 'utf8'), 'of the run before')
  assert.equal(readFileSync(join(folder, 'report.md'), 'utf8'), 'whole')
})

test('report: faults that overlap are shaded once, and named each', async () => {
  const at = (from: number, to: number): { fromSeconds: number; toSeconds: number; pairs: [] } => ({
    fromSeconds: START_SECONDS + from,
    toSeconds: START_SECONDS + to,
    pairs: [],
  })
  const faults = [
    { name: 'first', ...at(60, 240) },
    { name: 'second', ...at(180, 300) },
    { name: 'third', ...at(400, 900) },
  ]
  const report = reportOf({ pairs: [pairOf([sample(0, 10)])], groundTruth: { faults, transients: [] } })
  const svg = await drawing(report, 'latency-a-b.png')
  const [plot] = plotsIn(svg)
  const shaded = [...svg.matchAll(/<path d="M([\d.]+),0h([\d.]+)v[^"]*" fill="var\(--fault\)"/g)].map(
    ([, from, width]) => [from, Number(from) + Number(width)].map((x) => Math.round((600 * Number(x)) / plot!.width)),
  )
  assert.deepEqual(shaded, [
    [60, 300],
    [400, 600],
  ])
  for (const { name } of faults) assert.ok(svg.includes(`>${name}</text>`), name)
})
