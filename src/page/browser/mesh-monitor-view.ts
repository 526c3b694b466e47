import type { EdgeCourse } from '../../core/edge-course.js'
import type { Refusal } from '../../core/metric-names.js'
import type { LookedAtEdge, MeshMonitorNow, MeshMonitorView, ScoredEdge } from '../mesh-monitor-page.js'
import { createChart, createValues, shownRange } from './chart.js'
import { el, panel, setText, table } from './dom.js'
import { createExplorer } from './edge-explorer.js'
import { count, duration, milliseconds, number, pairName, quantileName, time, whole } from './format.js'
import { awayStatus, chartColumns, latencyChart, spanText, startingStatus, WORDS } from './monitor-view.js'
import { createStatusCard, createTile, type Status } from './status.js'
import type { Moment, View } from './view.js'

const TABLE_ROWS = 20

const REFUSED: Readonly<Record<Refusal, string>> = {
  max_edges: 'no room within --max-edges',
  unknown: 'an end that Istio does not know',
  bad_name: 'a name that is none',
}

export function createMeshMonitorView(first: MeshMonitorView): View<MeshMonitorView> {
  let shown = first
  let nowSeconds = 0
  const status = createStatusCard()
  const tiles = {
    anomalous: createTile('Anomalous'),
    ok: createTile('OK'),
    low_traffic: createTile('Low traffic'),
    no_data: createTile('No data'),
    warming: createTile('Warming'),
    age: createTile('Last answer'),
  }
  const numbers = el(
    'dl',
    { class: 'tiles', 'aria-label': 'Edges by verdict' },
    ...Object.values(tiles).map((tile) => tile.element),
  )
  const detail = createLatencyDetail(first)
  const explorer = createExplorer<ScoredEdge, LookedAtEdge>({
    columns: ['Verdict', 'Score', 'Latency', 'Expected'],
    cells: ({ verdict, score, yMs, yhatMs }) => [
      WORDS[verdict][1],
      number(score),
      milliseconds(yMs),
      milliseconds(yhatMs),
    ],
    isHot: ({ verdict }) => verdict === 'anomalous',
    detail: detail.element,
    showDetail: (edge) => detail.show(edge, nowSeconds),
  })
  const span = el('p', { class: 'note' })
  const chart = createChart({
    label: 'How many edges were anomalous over time',
    scale: 'linear',
    always: [4],
    lines: [{ key: 'anomalous', label: 'anomalous edges', look: 'steps' }],
    describe: (i) => countsAt(shown, i),
  })
  const values = createValues('Last polls as a table', () => countsTable(shown))
  const facts = el('dl', { class: 'facts' })
  const element = el(
    'div',
    { class: 'view view-mesh' },
    el('div', { class: 'head' }, status.element, numbers),
    el(
      'div',
      { class: 'columns' },
      explorer.list,
      el(
        'div',
        { class: 'side' },
        explorer.detail,
        panel('chart', 'Anomalous edges', span, chart.element, values.element),
      ),
    ),
    panel('watch', 'What is watched', facts),
  )
  return {
    element,
    title: ({ now, shard }) =>
      `${now === null ? 'a mesh' : count(watched(now), 'edge')}${shard.count === 1 ? '' : `, shard ${shard.ordinal} of ${shard.count}`}`,
    show: (view, moment) => {
      shown = view
      const { freshness, state } = moment
      nowSeconds = moment.nowSeconds
      const current = statusOf(view, moment)
      status.show(current)
      const isLive = freshness.kind === 'live'
      for (const part of [numbers, explorer.list, explorer.detail]) part.classList.toggle('stale', !isLive)
      const { now } = view
      for (const verdict of ['anomalous', 'ok', 'low_traffic', 'no_data', 'warming'] as const) {
        tiles[verdict].show(now === null ? '–' : whole(now.verdicts[verdict]))
      }
      tiles.age.show(now === null ? 'never' : `${duration(nowSeconds - now.receivedSeconds)} ago`)
      explorer.show(now ?? { edges: [], leftOut: 0 })
      const { timesSeconds, anomalous } = view.history
      const range = shownRange(timesSeconds, nowSeconds)
      setText(span, spanText(state, timesSeconds[0], range))
      chart.show([timesSeconds, anomalous], range)
      values.refresh()
      showFacts(facts, view)
      return current
    },
    refresh: explorer.refresh,
    repaint: () => {
      chart.repaint()
      detail.repaint()
    },
  }
}

function watched({ verdicts }: MeshMonitorNow): number {
  return Object.values(verdicts).reduce((sum, each) => sum + each, 0)
}

function statusOf({ now }: MeshMonitorView, moment: Moment): Status {
  const away = awayStatus(moment, now === null ? null : { word: wordOf(now), receivedSeconds: now.receivedSeconds })
  if (away !== null) return away
  if (now === null) return startingStatus('The first answer is not there yet.')
  const { verdicts } = now
  const [hottest] = now.edges
  const word = wordOf(now)
  const detail = moment.state.poll?.detail ?? ''
  const status = (level: Status['level'], because: string): Status => ({ level, word, because, since: '' })
  if (verdicts.anomalous > 0) {
    const furthest =
      hottest === undefined || hottest.score === null
        ? ''
        : ` The furthest out: ${pairName(hottest)}, ${milliseconds(hottest.yMs)} where ${milliseconds(hottest.yhatMs)} is expected.`
    return status(
      'critical',
      `${whole(verdicts.anomalous)} of ${count(watched(now), 'edge')} ${verdicts.anomalous === 1 ? 'is' : 'are'} outside the band.${furthest}`,
    )
  }
  if (verdicts.ok > 0) {
    const more = watched(now) - verdicts.ok
    return status(
      'ok',
      `${whole(verdicts.ok)} of ${count(watched(now), 'edge')} are inside their bands${more > 0 ? '; of the others nothing is known' : ''}.`,
    )
  }
  if (verdicts.warming > 0) return status('quiet', `${count(verdicts.warming, 'edge')} without a baseline yet.`)
  if (verdicts.low_traffic > 0) return status('quiet', 'No edge has the requests that a latency needs.')
  return status('unknown', detail === '' ? 'No edge has a sample.' : `No edge has a sample: ${detail}.`)
}

function wordOf({ verdicts }: MeshMonitorNow): string {
  const verdict = (['anomalous', 'ok', 'warming', 'low_traffic'] as const).find((one) => verdicts[one] > 0) ?? 'no_data'
  const [, word] = WORDS[verdict]
  return verdict === 'anomalous' ? `${whole(verdicts.anomalous)} ${word}` : word
}

function countsAt({ history }: MeshMonitorView, i: number): string {
  const [anomalous, edges] = [history.anomalous[i] ?? null, history.edges[i] ?? null]
  return anomalous === null || edges === null ? 'no answer' : `${whole(anomalous)} of ${whole(edges)} anomalous`
}

function countsTable(view: MeshMonitorView): HTMLTableElement {
  const newest = view.history.timesSeconds
    .map((at, i) => [time(at), countsAt(view, i)])
    .slice(-TABLE_ROWS)
    .toReversed()
  return table(`Last ${count(newest.length, 'poll')}, newest first`, ['Time', 'Edges'], newest)
}

/** The edge that was picked: a chart for each quantile, and when there is nothing to draw, why. */
function createLatencyDetail({ quantiles }: MeshMonitorView): {
  readonly element: HTMLElement
  show(edge: LookedAtEdge, nowSeconds: number): void
  readonly repaint: () => void
} {
  let history: EdgeCourse = { timesSeconds: [], verdicts: [], quantiles: [] }
  const charts = quantiles.map((quantile, i) => latencyChart(quantile, () => history, i))
  const now = el('p', {})
  const note = el('p', { class: 'note' })
  const drawn = el('div', {}, ...charts.flatMap(({ chart, values }) => [chart.element, values.element]))
  return {
    element: el('div', {}, now, note, drawn),
    show: (edge, nowSeconds) => {
      ;({ history } = edge)
      const { verdict, score, yMs, yhatMs } = edge
      const [, word] = WORDS[verdict]
      setText(
        now,
        score === null
          ? `${word}: the last poll scored nothing.`
          : `${word}: ${milliseconds(yMs)} where ${milliseconds(yhatMs)} is expected, score ${number(score)}; the band ends at 1.`,
      )
      const { timesSeconds } = history
      const isKnown = history.quantiles.some((one) => one.yMs.some((value) => value !== null))
      drawn.hidden = !isKnown
      setText(
        note,
        isKnown
          ? 'The last 30 minutes, as Prometheus scraped them.'
          : `Prometheus holds no ${quantiles.map(quantileName).join(', ')} of this edge that a monitor exported in the last 30 minutes: does it scrape this monitor?`,
      )
      if (!isKnown) return
      const range = shownRange(timesSeconds, Math.max(nowSeconds, timesSeconds.at(-1) ?? nowSeconds))
      charts.forEach(({ chart, values }, i) => {
        chart.show(chartColumns(history, i), range)
        values.refresh()
      })
    },
    repaint: () => {
      for (const { chart } of charts) chart.repaint()
    },
  }
}

function showFacts(list: HTMLElement, { now, shard, rules, maxEdges, query, quantiles }: MeshMonitorView): void {
  const refused = Object.entries(now?.refused ?? {}) as [Refusal, number][]
  const rows: readonly (readonly [string, string])[] = [
    ['Edges', `${now === null ? '–' : whole(watched(now))}, at most ${whole(maxEdges)}`],
    ...(shard.count === 1
      ? []
      : [['Shard', `${shard.ordinal} of ${shard.count}; others watch ${whole(now?.elsewhere ?? 0)}`] as const]),
    ...refused
      .filter(([, edges]) => edges > 0)
      .map(([reason, edges]) => ['Not watched', `${whole(edges)}: ${REFUSED[reason]}`] as const),
    ['Quantiles', quantiles.map(quantileName).join(', ')],
    ['Anomalous when', rules.direction === 'above' ? 'slower than the band' : 'outside the band'],
    ['Traffic needed', `${number(rules.minRequestsPerSecond)} requests/s`],
  ]
  const told = JSON.stringify([rows, query])
  if (list.dataset['told'] === told) return
  list.dataset['told'] = told
  list.replaceChildren(
    ...rows.map(([name, text]) => el('div', {}, el('dt', {}, name), el('dd', {}, text))),
    el('div', { class: 'wide' }, el('dt', {}, 'Query'), el('dd', {}, el('code', {}, query))),
  )
}
