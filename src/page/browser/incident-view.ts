import type { IncidentHistoryJson, IncidentRecord } from '../../core/incident-history.js'
import type { PairVerdict, Severity } from '../../core/incident.js'
import type { IncidentNow, IncidentView } from '../page-state.js'
import { type Chart, type ChartOptions, createChart, createValues, shownRange } from './chart.js'
import { el, panel, setAttribute, setText, table } from './dom.js'
import { count, duration, number, pairName, time } from './format.js'
import { createIncidentList } from './incident-list.js'
import { awayStatus, spanText, startingStatus } from './monitor-view.js'
import { createStatusCard, createTile, type Status } from './status.js'
import type { Moment, View } from './view.js'

const TABLE_ROWS = 20
const SEVERITY_KEYS = { 0: null, 1: 'sev1', 2: 'sev2' } as const
/** More pairs than these are listed by heat, the cold ones left out. */
const MAX_PAIRS = 12

export function createIncidentView(
  first: IncidentView,
  incidents: () => IncidentHistoryJson | null,
): View<IncidentView> {
  let shown = first
  const { rules } = first
  const status = createStatusCard()
  const tiles = {
    temperature: createTile('Temperature'),
    hot: createTile('Hot pairs'),
    age: createTile('Last poll heard'),
  }
  const numbers = el('dl', { class: 'tiles', 'aria-label': 'Now' }, ...Object.values(tiles).map((tile) => tile.element))
  const span = el('p', { class: 'note' })
  const chart = temperatureChart(
    {
      least: rules.incidentThreshold,
      levels: [
        { value: rules.incidentThreshold, key: 'opens', label: `opens above ${number(rules.incidentThreshold)}` },
        { value: rules.clearThreshold, key: 'closes', label: `closes at ${number(rules.clearThreshold)} or below` },
      ],
    },
    () => shown.history,
  )
  const values = createValues('Last temperatures as a table', () => temperatureTable(shown.history))
  const pairs = createPairList(first)
  const list = createIncidentList()
  const contract = el(
    'ul',
    { class: 'contract' },
    ...contractSentences(first).map((sentence) => el('li', {}, sentence)),
  )
  const element = el(
    'div',
    { class: 'view view-incident' },
    el('div', { class: 'head' }, status.element, numbers),
    list.open,
    el(
      'div',
      { class: 'columns' },
      panel('chart', 'Temperature', span, chart.element, values.element),
      panel('pairs', 'Accumulators', pairs.element),
    ),
    list.history,
    panel('contract', 'What the rule promises', contract),
  )
  return {
    element,
    title: () => count(rules.pairs.length, 'pair'),
    show: (view, moment) => {
      shown = view
      const { freshness, nowSeconds, state } = moment
      const { now } = view
      const known = incidents()?.incidents ?? []
      const current = statusOf(view, moment, known)
      status.show(current)
      const live = freshness.kind === 'live'
      for (const part of [numbers, pairs.element, list.open]) part.classList.toggle('stale', !live)
      tiles.temperature.show(
        now === null ? '–' : number(now.temperature),
        `opens above ${number(rules.incidentThreshold)}`,
      )
      tiles.hot.show(now === null ? '–' : `${hotPairs(view, now).length} of ${rules.pairs.length}`)
      tiles.age.show(now === null ? 'never' : `${duration(nowSeconds - now.receivedSeconds)} ago`)
      const { timesSeconds, temperatures } = view.history
      const range = shownRange(
        timesSeconds,
        now === null ? nowSeconds : now.timestampSeconds + nowSeconds - now.receivedSeconds,
      )
      setText(span, spanText(state, timesSeconds[0], range))
      chart.show([timesSeconds, temperatures], range)
      values.refresh()
      pairs.show(view, nowSeconds)
      list.show(known, nowSeconds)
      return current
    },
    repaint: chart.repaint,
  }
}

/** What is shown of both kinds of incident daemon. */
interface Temperatures {
  readonly timesSeconds: readonly number[]
  readonly temperatures: readonly number[]
  readonly severities: readonly (Severity | 0)[]
}

/** Temperature over time, shaded while an incident was open. @param options.least - is never cut off */
export function temperatureChart(
  { least, levels }: { readonly least: number } & Pick<Required<ChartOptions>, 'levels'>,
  history: () => Temperatures,
): Chart {
  return createChart({
    label: `Temperature over time${levels.length > 0 ? ', and the levels at which an incident opens and closes' : ''}`,
    scale: 'linear',
    always: [least],
    lines: [{ key: 'temperature', label: 'temperature', look: 'steps' }],
    levels,
    shades: {
      keys: [
        { key: 'sev2', label: 'Sev 2' },
        { key: 'sev1', label: 'Sev 1' },
      ],
      of: (i) => SEVERITY_KEYS[history().severities[i] ?? 0],
    },
    describe: (i) =>
      `temperature ${number(history().temperatures[i] ?? null)}, ${severityWord(history().severities[i])}`,
  })
}

export function severityWord(severity: number | undefined): string {
  return severity === 1 || severity === 2 ? `Sev ${severity}` : 'no incident'
}

function hotPairs({ rules }: IncidentView, now: IncidentNow): readonly string[] {
  return rules.pairs.flatMap((pair, i) =>
    (now.pairs[i]?.accumulator ?? 0) > pair.accumulatorThreshold ? [pairName(pair)] : [],
  )
}

function statusOf(view: IncidentView, moment: Moment, known: readonly IncidentRecord[]): Status {
  const { now, rules } = view
  const away = awayStatus(moment, now === null ? null : { word: wordOf(now), receivedSeconds: now.receivedSeconds })
  if (away !== null) return away
  if (now === null) return startingStatus('Prometheus holds no poll yet.')
  const silent = now.pairs.every(({ verdict }) => verdict.kind === 'unknown')
  if (now.open !== null) {
    const { severity, startedSeconds } = now.open
    const hot = hotPairs(view, now)
    const which =
      hot.length === 0
        ? 'No pair is hot any more; it closes when it has cooled.'
        : `${count(hot.length, 'pair')} hot: ${hot.join(', ')}.`
    return {
      level: severity === 1 ? 'critical' : 'warning',
      word: wordOf(now),
      because: `${silent ? `${which} Nothing is heard of any pair now.` : which}${maintenanceOf(now)}`,
      since: `Open since ${time(startedSeconds)} (${duration(now.timestampSeconds - startedSeconds)}).`,
    }
  }
  const last = lastClosed(known)
  if (silent) {
    return {
      level: 'unknown',
      word: 'NO DATA',
      because: 'Nothing is known of any pair: no monitor is heard.',
      since: last,
    }
  }
  const because = `Temperature ${number(now.temperature)}; an incident opens above ${number(rules.incidentThreshold)}.`
  return { level: 'ok', word: wordOf(now), because: `${because}${maintenanceOf(now)}`, since: last }
}

/** In a maintenance window incidents are shown as they are, and nobody is told of them. */
export function maintenanceOf({ expected }: Pick<IncidentNow, 'expected'>): string {
  return expected === null ? '' : ` Expected, not sent: maintenance (${expected}).`
}

function wordOf({ open }: IncidentNow): string {
  return open === null ? 'NO INCIDENT' : `SEV ${open.severity}`
}

export function lastClosed(known: readonly IncidentRecord[]): string {
  const last = known.find(({ endedSeconds }) => endedSeconds !== null)
  if (last?.endedSeconds === undefined || last.endedSeconds === null) return ''
  const { severity, outcome, endedSeconds, startedSeconds } = last
  return `Last: Sev ${severity}, ${outcome} at ${time(endedSeconds)} after ${duration(endedSeconds - startedSeconds)}.`
}

export function temperatureTable({ timesSeconds, temperatures, severities }: Temperatures): HTMLTableElement {
  const newest = timesSeconds
    .map((_, i) => i)
    .slice(-TABLE_ROWS)
    .toReversed()
  return table(
    `Last ${count(newest.length, 'poll')}, newest first`,
    ['Time', 'Temperature', 'Incident'],
    newest.map((i) => [time(timesSeconds[i] ?? 0), number(temperatures[i] ?? null), severityWord(severities[i])]),
  )
}

const SILENCE = {
  low_traffic: 'low traffic',
  no_data: 'no data',
  warming: 'warming',
  stale: 'stale',
} as const

export function verdictWords(verdict: PairVerdict, ageSeconds: number | null): string {
  switch (verdict.kind) {
    case 'ok':
      return 'ok'
    case 'anomalous':
      return 'anomalous'
    case 'unknown':
      return `${SILENCE[verdict.reason]}, ${ageSeconds === null ? 'never heard' : `heard ${duration(ageSeconds)} ago`}`
  }
}

interface PairList {
  readonly element: HTMLElement
  show(view: IncidentView, nowSeconds: number): void
}

/** A bar for each pair, with the threshold above which it is hot. */
function createPairList({ rules }: IncidentView): PairList {
  const rows = rules.pairs.map((pair) => {
    const level = el('span', { class: 'pair-level' })
    const verdict = el('span', { class: 'pair-verdict' })
    const bar = el('span', {
      class: 'bar',
      role: 'meter',
      'aria-valuemin': '0',
      'aria-valuemax': String(rules.accumulatorMax),
      'aria-label': `Accumulator of ${pairName(pair)}`,
    })
    bar.style.setProperty('--threshold', String(pair.accumulatorThreshold / rules.accumulatorMax))
    const element = el('li', { class: 'pair' }, el('span', { class: 'pair-name' }, pairName(pair)), level, bar, verdict)
    return { element, level, verdict, bar, pair }
  })
  const list = el('ul', { class: 'pairs' }, ...rows.map(({ element }) => element))
  const cold = el('p', { class: 'note' })
  return {
    element: el('div', {}, list, cold),
    show: ({ now }, nowSeconds) => {
      let hidden = 0
      rows.forEach(({ element, level, verdict, bar, pair }, i) => {
        const one = now?.pairs[i]
        const accumulator = one?.accumulator ?? 0
        const hot = accumulator > pair.accumulatorThreshold
        element.hidden = rows.length > MAX_PAIRS && accumulator === 0
        if (element.hidden) hidden++
        element.classList.toggle('hot', hot)
        setText(level, one === undefined ? '–' : `${number(accumulator)}${hot ? ' hot' : ''}`)
        setAttribute(bar, 'aria-valuenow', String(accumulator))
        setAttribute(bar, 'aria-valuetext', `${number(accumulator)}, hot above ${number(pair.accumulatorThreshold)}`)
        bar.style.setProperty('--level', String(Math.min(1, accumulator / rules.accumulatorMax)))
        const heard = one?.heardSeconds ?? null
        const ageSeconds =
          heard === null || now === null ? null : now.timestampSeconds - heard + nowSeconds - now.receivedSeconds
        setText(
          verdict,
          `${one === undefined ? 'not polled yet' : verdictWords(one.verdict, ageSeconds)} · hot above ${number(pair.accumulatorThreshold)}`,
        )
      })
      setText(cold, hidden === 0 ? '' : `${count(hidden, 'pair')} more, all at 0.`)
    },
  }
}

function contractSentences({ contract, rules }: IncidentView): readonly string[] {
  const { toSev2, toSev1, tolerated, onePairToClosed, allPairsToClosed } = contract
  const polls = (n: number | null): string => (n === null ? 'never' : count(n, 'poll'))
  const several = rules.pairs.length > 1
  return [
    `Sev 2 after anomalies on one pair: ${polls(toSev2)}.`,
    ...(several ? [`Sev 1 after anomalies on two pairs: ${polls(toSev1)}.`] : []),
    `A transient on one pair that opens nothing: ${tolerated === null ? 'of any length' : `up to ${polls(tolerated)}`}.`,
    `Closed after one hot pair's recovery: ${polls(onePairToClosed)}.`,
    ...(several ? [`Closed after the recovery of all pairs: ${polls(allPairsToClosed)}.`] : []),
  ]
}
