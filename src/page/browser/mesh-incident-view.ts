import type { IncidentHistoryJson } from '../../core/incident-history.js'
import type {
  LookedAtWarmEdge,
  MeshIncidentNow,
  MeshIncidentView,
  ShownEdge,
  ShownIncident,
} from '../mesh-incident-page.js'
import { createChart, createValues, shownRange } from './chart.js'
import { el, panel, setAttribute, setText, table } from './dom.js'
import { createExplorer } from './edge-explorer.js'
import { count, duration, number, pairName, time, whole } from './format.js'
import { createIncidentList, suspectName } from './incident-list.js'
import {
  lastClosed,
  maintenanceOf,
  severityWord,
  temperatureChart,
  temperatureTable,
  verdictWords,
} from './incident-view.js'
import { createMeshMap } from './mesh-map.js'
import { awayStatus, spanText, startingStatus } from './monitor-view.js'
import { createStatusCard, createTile, type Status } from './status.js'
import type { Moment, View } from './view.js'

const TABLE_ROWS = 20

export function createMeshIncidentView(
  first: MeshIncidentView,
  incidents: () => IncidentHistoryJson | null,
): View<MeshIncidentView> {
  let shown = first
  let nowSeconds = 0
  const { rules } = first
  const status = createStatusCard()
  const tiles = {
    temperature: createTile('Temperature'),
    open: createTile('Open incidents'),
    hot: createTile('Hot edges'),
    warm: createTile('Warm edges'),
    monitors: createTile('Monitors'),
    age: createTile('Last poll heard'),
  }
  const numbers = el('dl', { class: 'tiles', 'aria-label': 'Now' }, ...Object.values(tiles).map((tile) => tile.element))
  const span = el('p', { class: 'note' })
  const chart = temperatureChart({ least: rules.incidentThreshold, levels: [] }, () => shown.history)
  const values = createValues('Last temperatures as a table', () => temperatureTable(shown.history))
  const detail = createAccumulatorDetail(first)
  const explorer = createExplorer<ShownEdge, LookedAtWarmEdge>({
    columns: ['Accumulator', 'Last poll'],
    cells: ({ accumulator, hot, verdict, heardSeconds }) => [
      `${number(accumulator)}${hot ? ' hot' : ''}`,
      verdictWords(verdict, ageOf(shown.now, heardSeconds, nowSeconds)),
    ],
    isHot: ({ hot }) => hot,
    detail: detail.element,
    showDetail: (edge) => detail.show(edge, { now: shown.now, nowSeconds }),
  })
  const open = createOpenIncidents(explorer.pick)
  const list = createIncidentList()
  const element = el(
    'div',
    { class: 'view view-mesh' },
    el('div', { class: 'head' }, status.element, numbers),
    open.element,
    el(
      'div',
      { class: 'columns' },
      explorer.list,
      el('div', { class: 'side' }, explorer.detail, panel('chart', 'Temperature', span, chart.element, values.element)),
    ),
    list.history,
  )
  return {
    element,
    title: ({ now }) => (now === null ? 'a mesh' : `a mesh, ${count(now.warm, 'warm edge')}`),
    show: (view, moment) => {
      shown = view
      const { freshness, state } = moment
      nowSeconds = moment.nowSeconds
      const { now } = view
      const known = incidents()?.incidents ?? []
      const current = statusOf(view, moment, lastClosed(known))
      status.show(current)
      const isLive = freshness.kind === 'live'
      for (const part of [numbers, explorer.list, explorer.detail, open.element])
        part.classList.toggle('stale', !isLive)
      tiles.temperature.show(now === null ? '–' : number(now.temperature))
      tiles.open.show(now === null ? '–' : whole(now.incidents.length + now.incidentsLeftOut))
      tiles.hot.show(now === null ? '–' : whole(now.hot), `hot above ${number(rules.accumulatorThreshold)}`)
      tiles.warm.show(now === null ? '–' : whole(now.warm))
      tiles.monitors.show(now === null ? '–' : whole(now.monitors))
      tiles.age.show(now === null ? 'never' : `${duration(nowSeconds - now.receivedSeconds)} ago`)
      open.show(now)
      explorer.show({ edges: now?.edges ?? [], leftOut: now?.edgesLeftOut ?? 0 })
      const { timesSeconds, temperatures } = view.history
      const range = shownRange(timesSeconds, promNow(now, nowSeconds))
      setText(span, spanText(state, timesSeconds[0], range))
      chart.show([timesSeconds, temperatures], range)
      values.refresh()
      list.show(known, nowSeconds)
      return current
    },
    refresh: explorer.refresh,
    repaint: () => {
      chart.repaint()
      detail.repaint()
    },
  }
}

/** Now by Prometheus's clock, as far as the last poll tells. */
function promNow(now: MeshIncidentNow | null, nowSeconds: number): number {
  return now === null ? nowSeconds : now.timestampSeconds + nowSeconds - now.receivedSeconds
}

function ageOf(now: MeshIncidentNow | null, heardSeconds: number | null, nowSeconds: number): number | null {
  return heardSeconds === null ? null : promNow(now, nowSeconds) - heardSeconds
}

function statusOf({ now, rules }: MeshIncidentView, moment: Moment, last: string): Status {
  const away = awayStatus(moment, now === null ? null : { word: wordOf(now), receivedSeconds: now.receivedSeconds })
  if (away !== null) return away
  if (now === null) return startingStatus('Prometheus holds no poll yet.')
  const [worst] = now.incidents
  const silence = now.monitors === 0 ? ' No monitor is heard now.' : ''
  if (worst !== undefined) {
    const { severity, startedSeconds, suspect } = worst
    const who =
      suspect === null || suspect.kind === 'none'
        ? `It began with ${pairName(worst.first)}`
        : `Suspect: ${suspectName(suspect)}`
    const all = now.incidents.length + now.incidentsLeftOut
    const which = all === 1 ? '' : ` The worst of ${all} incidents.`
    return {
      level: severity === 1 ? 'critical' : 'warning',
      word: wordOf(now),
      because: `${who}; ${count(worst.hot, 'edge')} hot.${which}${silence}${maintenanceOf(now)}`,
      since: `Open since ${time(startedSeconds)} (${duration(now.timestampSeconds - startedSeconds)}).`,
    }
  }
  if (now.monitors === 0) {
    return {
      level: 'unknown',
      word: 'NO DATA',
      because: 'Nothing is known of any edge: no monitor is heard.',
      since: last,
    }
  }
  const warm = now.warm === 0 ? 'No edge is warm' : `${count(now.warm, 'edge')} warm`
  const because = `${warm}; an incident opens where edges that share a service come above ${number(rules.incidentThreshold)} together.`
  return { level: 'ok', word: wordOf(now), because: `${because}${maintenanceOf(now)}`, since: last }
}

function wordOf({ incidents: [worst] }: MeshIncidentNow): string {
  return worst === undefined ? 'NO INCIDENT' : `SEV ${worst.severity}`
}

/** The open incidents, and the map of the one that is picked: the worst unless somebody picks another. */
function createOpenIncidents(pick: Parameters<typeof createMeshMap>[0]): {
  readonly element: HTMLElement
  show(now: MeshIncidentNow | null): void
} {
  const list = el('ul', { class: 'open-incidents' })
  const more = el('p', { class: 'note' })
  const suspect = el('p', { class: 'suspect-name' })
  const because = el('p', {})
  const told = el('div', { class: 'suspect' }, suspect, because)
  const map = createMeshMap(pick)
  const title = el('h3', {})
  const noMap = el('p', { class: 'note' }, 'Only the worst incidents have a map.')
  const element = panel('open', 'Open incidents', list, more, title, told, map.element, noMap)
  element.hidden = true
  const buttons = new Map<string, Button>()
  let picked: string | null = null
  let latest: MeshIncidentNow | null = null

  const draw = (): void => {
    const known = latest?.incidents ?? []
    element.hidden = known.length === 0
    const current = known.find(({ id }) => id === picked) ?? known[0]
    const items = known.map((incident) => {
      const { id } = incident
      const button =
        buttons.get(id) ??
        createButton(() => {
          picked = id
          draw()
        })
      buttons.set(id, button)
      button.show(incident, {
        isPicked: incident === current,
        ageSeconds: (latest?.timestampSeconds ?? 0) - incident.startedSeconds,
      })
      return button.element
    })
    if (items.length !== list.childElementCount || items.some((item, i) => list.children[i] !== item)) {
      const focused = document.activeElement
      list.replaceChildren(...items)
      if (focused instanceof HTMLElement && list.contains(focused)) focused.focus({ preventScroll: true })
      const ids = new Set(known.map(({ id }) => id))
      for (const id of buttons.keys()) if (!ids.has(id)) buttons.delete(id)
    }
    const leftOut = latest?.incidentsLeftOut ?? 0
    setText(more, leftOut === 0 ? '' : `${count(leftOut, 'incident')} more, less severe or younger.`)
    if (current === undefined) return
    setText(title, `The component of ${pairName(current.first)}`)
    setAttribute(told, 'class', `suspect suspect-${current.suspect?.kind ?? 'none'}`)
    setText(
      suspect,
      current.suspect === null || current.suspect.kind === 'none'
        ? 'No suspect'
        : `Suspect: ${suspectName(current.suspect)}`,
    )
    setText(because, current.suspect?.because ?? 'It is not known how it began.')
    map.element.hidden = current.map.length === 0
    noMap.hidden = current.map.length > 0
    map.show({ edges: current.map, total: current.edges, suspect: current.suspect })
  }
  return {
    element,
    show: (now) => {
      latest = now
      draw()
    },
  }
}

interface Button {
  readonly element: HTMLElement
  show(incident: ShownIncident, at: { readonly isPicked: boolean; readonly ageSeconds: number }): void
}

function createButton(pick: () => void): Button {
  const badge = el('span', { class: 'badge' })
  const name = el('span', { class: 'incident-who' })
  const size = el('span', {})
  const age = el('span', { class: 'note' })
  const button = el('button', { type: 'button', class: 'open-incident' }, badge, name, size, age)
  button.addEventListener('click', pick)
  return {
    element: el('li', {}, button),
    show: (incident, { isPicked, ageSeconds }) => {
      const { severity, first, edges, hot, temperature, startedSeconds } = incident
      setAttribute(button, 'aria-pressed', String(isPicked))
      setAttribute(badge, 'class', `badge badge-${severity}`)
      setText(badge, severityWord(severity))
      setText(name, pairName(first))
      setText(size, `${count(edges, 'edge')}, ${hot} hot, temperature ${number(temperature)}`)
      setText(age, `since ${time(startedSeconds)} (${duration(ageSeconds)})`)
    },
  }
}

/** The way of one edge's accumulator since it was last cold. */
function createAccumulatorDetail({ rules }: MeshIncidentView): {
  readonly element: HTMLElement
  show(edge: LookedAtWarmEdge, at: { readonly now: MeshIncidentNow | null; readonly nowSeconds: number }): void
  readonly repaint: () => void
} {
  let shown: LookedAtWarmEdge['course'] = []
  const now = el('p', {})
  const chart = createChart({
    label: "The edge's accumulator over time, and the level above which it is hot",
    scale: 'linear',
    always: [rules.accumulatorThreshold],
    lines: [{ key: 'temperature', label: 'accumulator', look: 'steps' }],
    levels: [
      { value: rules.accumulatorThreshold, key: 'opens', label: `hot above ${number(rules.accumulatorThreshold)}` },
    ],
    describe: (i) => `accumulator ${number(shown[i]?.[1] ?? null)}`,
  })
  const values = createValues('Last values as a table', () => {
    const newest = shown.slice(-TABLE_ROWS).toReversed()
    return table(
      `Last ${count(newest.length, 'value')}, newest first`,
      ['Time', 'Accumulator'],
      newest.map(([at, level]) => [time(at), number(level)]),
    )
  })
  return {
    element: el('div', {}, now, chart.element, values.element),
    show: (edge, { now: latest, nowSeconds }) => {
      const { accumulator, hot, verdict, heardSeconds, course, incident } = edge
      shown = course
      const age = ageOf(latest, heardSeconds, nowSeconds)
      setText(
        now,
        `Accumulator ${number(accumulator)}, ${hot ? 'hot' : 'warm'}; the last poll said ${verdictWords(verdict, age)}. ${incident === null ? 'It belongs to no incident.' : `It belongs to incident ${incident}.`}`,
      )
      const times = course.map(([at]) => at)
      const to = promNow(latest, nowSeconds)
      // All of its way, however long that is.
      chart.show([times, course.map(([, level]) => level)], {
        fromSeconds: Math.min(times[0] ?? to, to - 60),
        toSeconds: to,
      })
      values.refresh()
    },
    repaint: chart.repaint,
  }
}
