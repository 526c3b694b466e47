import type { PageState } from '../page-state.js'
import { duration, time } from './format.js'

/** Whether what is shown is of now; if not, why, and since when by the daemon's clock. */
export type Freshness =
  | { readonly kind: 'live' }
  | { readonly kind: 'starting'; readonly because: string }
  | {
      readonly kind: 'prometheus-away' | 'daemon-away' | 'daemon-stuck'
      readonly sinceSeconds: number
      readonly because: string
    }

/** A daemon that polls at all has polled in so many intervals, and some seconds for a slow one. */
const STUCK_INTERVALS = 3
const STUCK_SECONDS = 15

export function freshnessOf(
  state: PageState | null,
  { nowSeconds, awaySinceSeconds }: { readonly nowSeconds: number; readonly awaySinceSeconds: number | null },
): Freshness {
  if (awaySinceSeconds !== null) {
    const because =
      'The daemon does not answer this page: it is stopped, restarting, or the connection to it is broken.'
    return { kind: 'daemon-away', sinceSeconds: awaySinceSeconds, because }
  }
  if (state === null) return { kind: 'starting', because: 'Asking the daemon.' }
  if (state.poll === null) return { kind: 'starting', because: 'The first poll of Prometheus is under way.' }
  const { endedSeconds, answered, sinceSeconds, outcome, detail } = state.poll
  if (nowSeconds - endedSeconds > STUCK_INTERVALS * state.pollIntervalSeconds + STUCK_SECONDS) {
    const because = 'The daemon answers this page, but does not poll Prometheus any more.'
    return { kind: 'daemon-stuck', sinceSeconds: endedSeconds, because }
  }
  if (!answered) return { kind: 'prometheus-away', sinceSeconds, because: `${outcome}: ${detail}` }
  return { kind: 'live' }
}

const TITLES = {
  'prometheus-away': 'No usable answer from Prometheus',
  'daemon-away': 'No connection to the daemon',
  'daemon-stuck': 'No poll',
} as const

/** What stands above everything while the values are not of now; empty while they are. */
export function bannerText(
  freshness: Freshness,
  nowSeconds: number,
): readonly [title: string, length: string, because: string] | null {
  if (freshness.kind === 'live' || freshness.kind === 'starting') return null
  const { kind, sinceSeconds, because } = freshness
  return [`${TITLES[kind]} since ${time(sinceSeconds)}`, `(${duration(nowSeconds - sinceSeconds)}).`, because]
}
