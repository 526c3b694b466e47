import type { Evidence, PairEvidence } from '../../core/evidence.js'
import type { IncidentRecord } from '../../core/incident-history.js'
import type { Suspect } from '../../core/suspect.js'
import { type Child, el, panel, table } from './dom.js'
import { band, count, duration, milliseconds, number, pairName, quantileName, time } from './format.js'

export interface IncidentList {
  /** The open incident with its evidence; hidden while there is none. */
  readonly open: HTMLElement
  readonly history: HTMLElement
  /** @param incidents - newest first */
  show(incidents: readonly IncidentRecord[], nowSeconds: number): void
}

export function createIncidentList(): IncidentList {
  const current = el('div', { class: 'evidence' })
  const open = panel('open', 'Open incident', current)
  open.hidden = true
  const list = el('ul', { class: 'incidents' })
  let drawn = ''
  return {
    open,
    history: panel('history', 'History', list),
    show: (incidents) => {
      // Drawn again only when something happened: what a reader has opened or focused stays.
      const told = JSON.stringify(incidents.map(({ id, transitions }) => [id, transitions.at(-1)?.timestampSeconds]))
      if (told === drawn) return
      drawn = told
      const running = incidents.find(({ outcome }) => outcome === 'open')
      open.hidden = running === undefined
      keepingPlace(current, () => current.replaceChildren(...(running === undefined ? [] : evidenceOf(running))))
      const entries = incidents.map(entryOf)
      keepingPlace(list, () =>
        list.replaceChildren(
          ...(entries.length === 0 ? [el('li', { class: 'note' }, 'No incident is known.')] : entries),
        ),
      )
    },
  }
}

/** What was opened is open afterwards, and what had the focus has it. */
function keepingPlace(holder: HTMLElement, draw: () => void): void {
  const keyed = (): readonly HTMLElement[] => [...holder.querySelectorAll<HTMLElement>('[data-key]')]
  const openKeys = new Set(
    keyed().flatMap((one) => (one instanceof HTMLDetailsElement && one.open ? [one.dataset['key']] : [])),
  )
  const focused = document.activeElement?.closest<HTMLElement>('[data-key]')?.dataset['key']
  const had = focused !== undefined && holder.contains(document.activeElement)
  draw()
  for (const one of keyed()) {
    if (one instanceof HTMLDetailsElement && openKeys.has(one.dataset['key'])) one.open = true
    if (had && one.dataset['key'] === focused) one.querySelector('summary')?.focus()
  }
}

function entryOf(record: IncidentRecord): HTMLElement {
  const { id, severity, outcome, startedSeconds, endedSeconds } = record
  const length = endedSeconds === null ? 'still open' : `${outcome} after ${duration(endedSeconds - startedSeconds)}`
  return el(
    'li',
    {},
    el(
      'details',
      { 'data-key': `history-${id}`, class: 'incident' },
      el(
        'summary',
        {},
        el('span', { class: `badge badge-${severity}` }, `Sev ${severity}`),
        el('span', { class: 'incident-when' }, time(startedSeconds)),
        el('span', { class: 'incident-outcome' }, length),
        el('span', { class: 'incident-who' }, whoOf(record)),
      ),
      el('div', { class: 'evidence' }, ...evidenceOf(record)),
    ),
  )
}

function whoOf(record: IncidentRecord): string {
  const { suspect, pairs } = tellingOf(record) ?? { suspect: null, pairs: [] }
  if (suspect !== null && suspect.kind !== 'none') return suspectName(suspect)
  return pairs.map(pairName).join(', ')
}

/** The transition that tells most of an incident: the last that left it open, with the worst severity it had. */
function tellingOf({ transitions, severity }: IncidentRecord): Evidence | undefined {
  return transitions.findLast((one) => one.severity === severity) ?? transitions.at(-1)
}

function evidenceOf(record: IncidentRecord): readonly Node[] {
  const packet = record.outcome === 'open' ? record.transitions.at(-1) : tellingOf(record)
  if (packet === undefined) return []
  const { suspect, hints, pairs, queries } = packet
  return [
    el(
      'div',
      { class: `suspect suspect-${suspect.kind}` },
      el('p', { class: 'suspect-name' }, suspect.kind === 'none' ? 'No suspect' : `Suspect: ${suspectName(suspect)}`),
      el('p', {}, suspect.because),
    ),
    ...(hints.length === 0 ? [] : [el('ul', { class: 'hints' }, ...hints.map((hint) => el('li', {}, hint)))]),
    el('h3', {}, `Pairs at ${time(packet.timestampSeconds)}`),
    table(
      'Pairs that were not cold',
      ['Pair', 'Latency', 'Expected', 'Times', 'Requests', 'Accumulator', 'Anomalous since'],
      pairs.map(pairCells),
      { class: 'stacking' },
    ),
    el('h3', {}, 'What happened'),
    el('ol', { class: 'timeline' }, ...timelineOf(record)),
    ...(queries.length === 0 ? [] : [queriesOf(record.id, packet)]),
  ]
}

export function suspectName(suspect: Exclude<Suspect, { kind: 'none' }>): string {
  return suspect.kind === 'service' ? suspect.name : `the way from ${suspect.source} to ${suspect.destination}`
}

function pairCells(pair: PairEvidence): readonly Child[] {
  const { latencyMs, quantile, yhatMs, yMinMs, yMaxMs, ratio, requestsPerSecond, firstAnomalousSeconds } = pair
  const limits = yMinMs === null || yMaxMs === null ? '' : ` (${band(yMinMs, yMaxMs)})`
  return [
    el('strong', {}, pairName(pair)),
    `${quantile === null || latencyMs === null ? '' : `${quantileName(quantile)} `}${milliseconds(latencyMs)}`,
    `${milliseconds(yhatMs)}${limits}`,
    ratio === null ? '–' : `${number(ratio)} ×`,
    requestsPerSecond === null ? '–' : `${number(requestsPerSecond)} /s`,
    `${number(pair.accumulator)} of ${number(pair.accumulatorThreshold)}${pair.hot ? ', hot' : ''}`,
    firstAnomalousSeconds === null ? '–' : time(firstAnomalousSeconds),
  ]
}

function timelineOf({ transitions, transitionsLeftOut }: IncidentRecord): readonly HTMLElement[] {
  return transitions.flatMap(({ transition, severity, timestampSeconds, temperature }, i) => [
    el(
      'li',
      {},
      el('time', { datetime: new Date(timestampSeconds * 1000).toISOString() }, time(timestampSeconds)),
      ` ${transition}${severity === null ? '' : `, Sev ${severity}`}, temperature ${number(temperature)}`,
    ),
    ...(i === 0 && transitionsLeftOut > 0
      ? [el('li', { class: 'note' }, `${count(transitionsLeftOut, 'transition')} left out`)]
      : []),
  ])
}

function queriesOf(id: string, { queries }: Evidence): HTMLElement {
  return el(
    'details',
    { 'data-key': `queries-${id}`, class: 'queries' },
    el('summary', {}, `To see it again in Prometheus (${queries.length})`),
    el(
      'ul',
      {},
      ...queries.map(({ expression, startSeconds, endSeconds }) =>
        el(
          'li',
          {},
          el('p', { class: 'note' }, `${time(startSeconds)} to ${time(endSeconds)}`),
          el('code', {}, expression),
        ),
      ),
    ),
  )
}
