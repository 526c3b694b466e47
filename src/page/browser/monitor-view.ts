import type { EdgeCourse } from '../../core/edge-course.js'
import type { Evaluation, ScoredQuantile, Verdict } from '../../core/score.js'
import type { MonitorView, PageState } from '../page-state.js'
import { type Chart, createChart, createValues, shownRange, type TimeRange, WINDOW_SECONDS } from './chart.js'
import { el, panel, setText, table } from './dom.js'
import { band, count, duration, milliseconds, number, pairName, quantileName, time } from './format.js'
import { createStatusCard, createTile, type Level, type Status } from './status.js'
import type { Moment, View } from './view.js'

export const WORDS: Readonly<Record<Verdict, readonly [Level, string]>> = {
  ok: ['ok', 'OK'],
  anomalous: ['critical', 'ANOMALOUS'],
  low_traffic: ['quiet', 'LOW TRAFFIC'],
  no_data: ['unknown', 'NO DATA'],
  warming: ['quiet', 'WARMING'],
}

const TABLE_ROWS = 20

export function createMonitorView(first: MonitorView): View<MonitorView> {
  let shown = first
  const status = createStatusCard()
  const tiles = {
    latency: createTile(`Latency ${quantileName(first.history.quantiles[0]?.quantile ?? 0.5)}`),
    expected: createTile('Expected'),
    band: createTile('Band'),
    deviation: createTile('Deviation'),
    requests: createTile('Requests'),
    age: createTile('Last sample'),
  }
  const numbers = el(
    'dl',
    { class: 'tiles', 'aria-label': 'Last sample' },
    ...Object.values(tiles).map((tile) => tile.element),
  )
  const charts = first.history.quantiles.map(({ quantile }, i) => latencyChart(quantile, () => shown.history, i))
  const span = el('p', { class: 'note' })
  const training = el('dl', { class: 'facts' })
  const element = el(
    'div',
    { class: 'view view-monitor' },
    el('div', { class: 'head' }, status.element, numbers),
    panel(
      'chart',
      'Latency in its band',
      span,
      ...charts.flatMap(({ chart, values }) => [chart.element, values.element]),
    ),
    panel('training', 'Training', training),
  )
  showTraining(training, first)
  return {
    element,
    title: ({ pair }) => pairName(pair),
    show: (view, moment) => {
      shown = view
      const { state, freshness, nowSeconds } = moment
      const now = statusOf(view, moment)
      status.show(now)
      const live = freshness.kind === 'live'
      numbers.classList.toggle('stale', !live)
      showNumbers(tiles, view, nowSeconds)
      const { timesSeconds } = view.history
      const range = shownRange(timesSeconds, promNow(view, nowSeconds))
      setText(span, spanText(state, timesSeconds[0], range))
      charts.forEach(({ chart, values }, i) => {
        chart.show(chartColumns(view.history, i), range)
        values.refresh()
      })
      return now
    },
    repaint: () => {
      for (const { chart } of charts) chart.repaint()
    },
  }
}

/** Now by Prometheus's clock, as far as the last sample tells. */
function promNow({ sampled }: MonitorView, nowSeconds: number): number {
  const timestampSeconds = sampled?.evaluation.timestampSeconds ?? null
  return sampled === null || timestampSeconds === null
    ? nowSeconds
    : timestampSeconds + nowSeconds - sampled.receivedSeconds
}

/** How much of the last half hour there is. */
export function spanText(state: PageState, firstSeconds: number | undefined, { toSeconds }: TimeRange): string {
  if (firstSeconds === undefined) return 'Nothing was measured yet.'
  if (firstSeconds <= toSeconds - WINDOW_SECONDS + 2 * state.pollIntervalSeconds) return 'The last 30 minutes.'
  return `Since ${time(firstSeconds)}: the daemon knows of nothing before.`
}

function statusOf({ evaluation, sampled, rules, history }: MonitorView, moment: Moment): Status {
  const last =
    sampled === null ? null : { word: WORDS[sampled.evaluation.verdict][1], receivedSeconds: sampled.receivedSeconds }
  const away = awayStatus(moment, last)
  if (away !== null) return away
  if (evaluation === null) return startingStatus('The first poll is under way.')
  const { verdict } = evaluation
  const [level, word] = WORDS[verdict]
  const because = reason(evaluation, { detail: moment.state.poll?.detail ?? '', least: rules.minRequestsPerSecond })
  return { level, word, because, since: verdictSince(history) }
}

/** The status while nothing is known yet. */
export function startingStatus(because: string): Status {
  return { level: 'quiet', word: 'STARTING', since: '', because }
}

/** The status while what is known is not of now; null while it is. @param last - what was last known, and when it came */
export function awayStatus(
  { freshness, nowSeconds }: Moment,
  last: { readonly word: string; readonly receivedSeconds: number } | null,
): Status | null {
  const since =
    last === null
      ? 'Nothing was ever known.'
      : `Last known: ${last.word}, ${duration(nowSeconds - last.receivedSeconds)} ago.`
  switch (freshness.kind) {
    case 'live':
      return null
    case 'starting':
      return startingStatus(freshness.because)
    case 'prometheus-away':
      return { level: 'unknown', word: 'NO DATA', because: 'Prometheus does not tell how it is now.', since }
    case 'daemon-away':
      return { level: 'unknown', word: 'NO CONNECTION', because: 'The daemon does not tell how it is now.', since }
    case 'daemon-stuck':
      return { level: 'unknown', word: 'NO DATA', because: 'The daemon has stopped polling.', since }
  }
}

function reason(
  evaluation: Evaluation,
  { detail, least }: { readonly detail: string; readonly least: number },
): string {
  const worst = worstOf(evaluation)
  switch (evaluation.verdict) {
    case 'ok':
      return worst === undefined ? '' : `${named(worst)} is inside the band that ends at ${milliseconds(worst.yMaxMs)}.`
    case 'anomalous':
      return worst === undefined ? '' : anomaly(worst)
    case 'low_traffic':
      return `${number(evaluation.requestsPerSecond)} requests/s are too few for a latency to mean anything; at least ${number(least)} are needed.`
    case 'no_data':
      return detail === '' ? 'There is no sample.' : `There is no sample: ${detail}.`
    case 'warming':
      return 'The baseline is still being fitted.'
  }
}

function worstOf({ quantiles }: Evaluation): ScoredQuantile | undefined {
  return quantiles.toSorted((a, b) => (b.score ?? -1) - (a.score ?? -1))[0]
}

function named({ quantile, yMs }: ScoredQuantile): string {
  return `${quantileName(quantile)} latency of ${milliseconds(yMs)}`
}

function anomaly(worst: ScoredQuantile): string {
  const { yMs, yhatMs, yMinMs, yMaxMs, saturated } = worst
  const least = saturated ? ' or more' : ''
  if (yMs !== null && yMs < yMinMs) return `${named(worst)} is below the band that begins at ${milliseconds(yMinMs)}.`
  const times = yMs === null || !(yhatMs > 0) ? '' : `, ${number(yMs / yhatMs)} times what is expected`
  return `${named(worst)}${least} is above the band that ends at ${milliseconds(yMaxMs)}${times}.`
}

function verdictSince({ timesSeconds, verdicts }: EdgeCourse): string {
  const last = verdicts.length - 1
  const before = verdicts.findLastIndex((verdict) => verdict !== verdicts[last])
  const from = timesSeconds[before + 1]
  const to = timesSeconds[last]
  if (from === undefined || to === undefined) return ''
  return before < 0 ? `At least since ${time(from)}.` : `Since ${time(from)} (${duration(to - from)}).`
}

type Tiles = Readonly<
  Record<'latency' | 'expected' | 'band' | 'deviation' | 'requests' | 'age', ReturnType<typeof createTile>>
>

function showNumbers(tiles: Tiles, { sampled }: MonitorView, nowSeconds: number): void {
  const [quantile] = sampled?.evaluation.quantiles ?? []
  tiles.latency.show(milliseconds(quantile?.yMs ?? null), quantile?.saturated === true ? 'or more' : '')
  tiles.expected.show(milliseconds(quantile?.yhatMs ?? null))
  tiles.band.show(quantile === undefined ? '–' : band(quantile.yMinMs, quantile.yMaxMs))
  const { maeMs = null, mape = null } = quantile ?? {}
  tiles.deviation.show(milliseconds(maeMs), mape === null ? '' : `${number(100 * mape)} % of the latency`)
  const requests = sampled?.evaluation.requestsPerSecond ?? null
  tiles.requests.show(
    requests === null ? '–' : `${number(requests)} /s`,
    quantile?.beyondTraining === true ? 'more than the training saw' : '',
  )
  tiles.age.show(sampled === null ? 'never' : `${duration(nowSeconds - sampled.receivedSeconds)} ago`)
}

/** @param place - of the quantile among those of the history */
export function latencyChart(
  quantile: number,
  history: () => EdgeCourse,
  place: number,
): { readonly chart: Chart; readonly values: ReturnType<typeof createValues> } {
  const name = quantileName(quantile)
  const words = (i: number): readonly [latency: string, expected: string, band: string, verdict: string] => {
    const { verdicts, quantiles } = history()
    const one = quantiles[place]
    const [min, max] = [one?.yMinMs[i] ?? null, one?.yMaxMs[i] ?? null]
    const [, verdict] = WORDS[verdicts[i] ?? 'no_data']
    return [
      milliseconds(one?.yMs[i] ?? null),
      milliseconds(one?.yhatMs[i] ?? null),
      min === null || max === null ? '–' : band(min, max),
      one?.anomalous[i] === false && verdicts[i] === 'anomalous' ? 'OK' : verdict,
    ]
  }
  const chart = createChart({
    label: `Measured ${name} latency, its expected value and its band over time, anomalies marked`,
    scale: 'logarithmic',
    lines: [
      { key: 'edge', label: 'band, lower edge', look: 'edge' },
      { key: 'edge', label: 'band, upper edge', look: 'edge' },
      { key: 'expected', label: 'expected', look: 'dashed' },
      { key: 'measured', label: `measured ${name}`, look: 'line' },
      { key: 'anomaly', label: 'anomaly', look: 'points' },
    ],
    band: { upper: 2, lower: 1, key: 'band', label: 'band' },
    describe: (i) => {
      const [latency, expected, limits, verdict] = words(i)
      if (limits === '–') return verdict
      return `${verdict}  ${latency}, expected ${expected}, band ${limits}`
    },
  })
  const values = createValues(`Last ${name} values as a table`, () => {
    const { timesSeconds } = history()
    const newest = timesSeconds
      .map((_, i) => i)
      .slice(-TABLE_ROWS)
      .toReversed()
    return table(
      `Last ${count(newest.length, 'poll')}, newest first`,
      ['Time', 'Latency', 'Expected', 'Band', 'Verdict'],
      newest.map((i) => [time(timesSeconds[i] ?? 0), ...words(i)]),
    )
  })
  return { chart, values }
}

/** What a latency chart is shown. */
export function chartColumns(
  { timesSeconds, quantiles }: EdgeCourse,
  place: number,
): readonly (readonly (number | null)[])[] {
  const one = quantiles[place]
  if (one === undefined) return [timesSeconds]
  const anomalies = one.yMs.map((yMs, i) => (one.anomalous[i] === true ? yMs : null))
  return [timesSeconds, one.yMinMs, one.yMaxMs, one.yhatMs, one.yMs, anomalies]
}

function showTraining(list: HTMLElement, { training, rules, query, pair }: MonitorView): void {
  const rows: readonly (readonly [string, string])[] = [
    ['Pair', pairName(pair)],
    ...(training === null
      ? []
      : [
          ['Model', training.model] as const,
          ['File', training.file] as const,
          ...training.series.map(
            ({ quantile, samples, fromSeconds, toSeconds }) =>
              [
                `Samples ${quantileName(quantile)}`,
                `${number(samples)} over ${duration(toSeconds - fromSeconds)}, from ${time(fromSeconds)} to ${time(toSeconds)}`,
              ] as const,
          ),
        ]),
    ['Anomalous when', rules.direction === 'above' ? 'slower than the band' : 'outside the band'],
    ['Traffic needed', `${number(rules.minRequestsPerSecond)} requests/s`],
    ...(rules.minDeviationMs > 0 ? [['Least deviation', milliseconds(rules.minDeviationMs)] as const] : []),
    ...(rules.minDeviationRatio > 0
      ? [['Least deviation', `${number(100 * rules.minDeviationRatio)} %`] as const]
      : []),
    ...(rules.sloMs === null ? [] : [['SLO', milliseconds(rules.sloMs)] as const]),
  ]
  list.replaceChildren(
    ...rows.map(([name, text]) => el('div', {}, el('dt', {}, name), el('dd', {}, text))),
    el('div', { class: 'wide' }, el('dt', {}, 'Query'), el('dd', {}, el('code', {}, query))),
  )
}
