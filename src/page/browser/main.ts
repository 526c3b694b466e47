import type { IncidentHistoryJson } from '../../core/incident-history.js'
import type { PageState } from '../page-state.js'
import { byId, el, setAttribute, setText } from './dom.js'
import { time } from './format.js'
import { bannerText, freshnessOf } from './freshness.js'
import { createIncidentView } from './incident-view.js'
import { createMeshIncidentView } from './mesh-incident-view.js'
import { createMeshMonitorView } from './mesh-monitor-view.js'
import { createMonitorView } from './monitor-view.js'
import { createDaemonClock, createSource } from './source.js'
import type { Status } from './status.js'
import { startTheme } from './theme.js'
import type { Moment, View } from './view.js'

/** The daemon is asked as often as it polls, within these. */
const SHORTEST_MS = 500
const LONGEST_MS = 5_000

/** One request can get lost; two in a row are an outage. */
const FAILURES_UNTIL_AWAY = 2

const clock = createDaemonClock()
// Relative, so that they work behind any path prefix.
const states = createSource<PageState>('api/state', clock)
const incidents = createSource<IncidentHistoryJson>('api/incidents', clock)

const main = byId('main')
// Only the title is announced: what ticks would be read out each second.
const bannerTitle = el('strong', { role: 'status' })
const bannerLength = el('strong')
const bannerReason = el('span')
const banner = el('div', { class: 'banner' }, bannerTitle, ' ', bannerLength, ' ', bannerReason)
const holder = el('div', { class: 'holder' })
main.replaceChildren(banner, holder)

/** A view bound to its part of the state. */
interface Bound {
  readonly title: () => string
  readonly show: (moment: Moment) => Status
  readonly refresh: () => Promise<void>
  readonly repaint: () => void
}

let bound: Bound | null = null
/** Which run of the daemon the view was made for: another one may have other flags. */
let boundTo: number | null = null
let failures = 0
let lastAnswerSeconds = clock.nowSeconds()

startTheme(byId('theme'), () => bound?.repaint())

function bind({ view }: PageState): Bound | null {
  switch (view?.kind) {
    case undefined:
      return null
    case 'monitor':
      return withState(view, createMonitorView(view))
    case 'incident':
      return withState(view, createIncidentView(view, incidents.value))
    case 'mesh-monitor':
      return withState(view, createMeshMonitorView(view))
    case 'mesh-incident':
      return withState(view, createMeshIncidentView(view, incidents.value))
  }
}

/** The view with its part of the newest state. */
function withState<V extends NonNullable<PageState['view']>>(first: V, made: View<V>): Bound {
  holder.replaceChildren(made.element)
  byId('incidents-link').hidden = !hasIncidents(first)
  const now = (): V => {
    const latest = states.value()?.view
    return latest?.kind === first.kind ? (latest as V) : first
  }
  return {
    title: () => made.title(now()),
    show: (moment) => made.show(now(), moment),
    refresh: made.refresh ?? (() => Promise.resolve()),
    repaint: made.repaint,
  }
}

function hasIncidents(view: PageState['view'] | undefined): boolean {
  return view?.kind === 'incident' || view?.kind === 'mesh-incident'
}

function render(): void {
  const state = states.value()
  const nowSeconds = clock.nowSeconds()
  const away = failures >= FAILURES_UNTIL_AWAY
  const freshness = freshnessOf(state, { nowSeconds, awaySinceSeconds: away ? lastAnswerSeconds : null })
  const text = bannerText(freshness, nowSeconds)
  banner.hidden = text === null
  setText(bannerTitle, text?.[0] ?? '')
  setText(bannerLength, text?.[1] ?? '')
  setText(bannerReason, text?.[2] ?? '')
  const live = byId('live')
  setAttribute(live, 'data-kind', freshness.kind)
  setText(live, freshness.kind === 'live' ? 'Live' : freshness.kind === 'starting' ? 'Starting' : 'Not live')
  if (state === null) return
  if (boundTo !== state.startedSeconds) {
    bound = bind(state)
    boundTo = state.startedSeconds
  }
  const kind = (state.view?.kind ?? 'daemon').replace('mesh-', '')
  setText(byId('about'), `${kind}: ${bound?.title() ?? ''}`)
  setText(
    byId('build'),
    `meshfever ${state.version}, running since ${time(state.startedSeconds)}, polls every ${state.pollIntervalSeconds} s`,
  )
  const status = bound?.show({ state, freshness, nowSeconds })
  document.title = status === undefined ? 'meshfever' : `${status.word} · ${bound?.title() ?? kind} · meshfever`
}

async function refresh(): Promise<void> {
  try {
    await states.refresh()
    if (hasIncidents(states.value()?.view)) await incidents.refresh()
    failures = 0
    lastAnswerSeconds = clock.nowSeconds()
  } catch {
    failures++
  }
}

let waiting: number | undefined

async function turn(): Promise<void> {
  clearTimeout(waiting)
  await refresh()
  render()
  if (failures === 0) void bound?.refresh()
  // Nobody looks: the next look asks.
  if (document.hidden) return
  const intervalMs = (states.value()?.pollIntervalSeconds ?? 0) * 1000
  const nextMs = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, intervalMs))
  waiting = setTimeout(() => void turn(), failures === 0 ? nextMs : SHORTEST_MS * 2)
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void turn()
})
// Ages tick though nothing new is known: that is what they are for.
setInterval(render, 1_000)
void turn()
