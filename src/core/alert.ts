/*
 * What Alertmanager should hold of an incident: a fold over polls, as the incident itself, so that two replicas, and one
 * before and after a restart, say the same.
 *
 * One alert per severity, with the severity as a label so that routes can match it. A label that changed would make a new
 * alert beside the old one; here the severity that was left is resolved in the same request in which the new one fires.
 * Grouped by anything but the severity both lie in one group, and Alertmanager sends one notification per transition.
 */
import type { IncidentTransition } from './evidence.js'
import { type IncidentRules, type IncidentState, type OpenIncident, type Severity, temperatureOf } from './incident.js'
import { type Pair, pairKey, pairName } from './pair.js'
import { firstFew, oneLine } from './plain-text.js'

/** An alert as POST /api/v2/alerts takes it; times in RFC 3339. */
export interface Alert {
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  readonly startsAt: string
  readonly endsAt: string
}

export interface Alerting {
  /** What should be firing, as it was raised; null for nothing. */
  readonly firing: OpenIncident | null
  /** What fired and no longer does: at most one per severity, not older than RESOLVED_FOR_SECONDS, in order of their ends. */
  readonly ended: readonly EndedAlert[]
}

export interface EndedAlert extends OpenIncident {
  readonly endedSeconds: number
  readonly how: Exclude<IncidentTransition, 'opened'>
}

export const NOTHING_RAISED: Alerting = { firing: null, ended: [] }

/** Alertmanager forgets alerts when it restarts, so it is told of an end again and again for a while. */
export const RESOLVED_FOR_SECONDS = 300

export const ALERT_NAME = 'MeshfeverIncident'

const MAX_ANNOTATION_BYTES = 4_096
const MAX_LABEL_LENGTH = 200
const MAX_NAMED_PAIRS = 20

/**
 * Folds one poll.
 *
 * In a maintenance window nothing new is raised, and what was raised before it stays as it was until its incident ends: to
 * resolve it would be a lie, and its severity changes for reasons that are expected. When the window ends, what is open is
 * raised as it then is.
 *
 * @param poll - `expected`: the reason of the maintenance window it lies in, or null; `merged`: the incident has become part of
 * an older one
 */
export function nextAlerting(
  { firing, ended }: Alerting,
  poll: {
    readonly state: Pick<IncidentState, 'open' | 'expired'>
    readonly timestampSeconds: number
    readonly expected: string | null
    readonly merged?: boolean
  },
): Alerting {
  const { state, timestampSeconds, expected, merged = false } = poll
  const same = firing !== null && firing.startedSeconds === state.open?.startedSeconds
  const now = expected === null ? state.open : same ? firing : null
  const left = firing !== null && firing.severity !== now?.severity ? firing : null
  const kept = ended.filter(
    ({ severity, endedSeconds }) =>
      severity !== now?.severity &&
      severity !== left?.severity &&
      timestampSeconds - endedSeconds < RESOLVED_FOR_SECONDS,
  )
  if (left === null) return { firing: now, ended: kept }
  return {
    firing: now,
    ended: [...kept, { ...left, endedSeconds: timestampSeconds, how: howEnded(left, now, { ...state, merged }) }],
  }
}

function howEnded(
  left: OpenIncident,
  now: OpenIncident | null,
  { expired, merged }: { readonly expired: boolean; readonly merged: boolean },
): EndedAlert['how'] {
  if (now === null) return merged ? 'merged' : expired ? 'expired' : 'resolved'
  return now.severity < left.severity ? 'escalated' : 'de-escalated'
}

/**
 * What of it one Alertmanager needs to hear. The end of an alert that cannot be firing there would at worst be one more
 * notification: Alertmanager sends one for each end that its last notification did not hold.
 *
 * @param mayFire - the severities that may be firing there
 */
export function neededBy({ firing, ended }: Alerting, mayFire: ReadonlySet<Severity>): Alerting {
  return { firing, ended: ended.filter(({ severity }) => mayFire.has(severity)) }
}

/**
 * What may be firing there after it took that. A severity that was left for another needs no second word: it takes its leave
 * together with the other one. The end of an incident is repeated, since a restarted Alertmanager that never hears of an
 * alert does not tell its end either.
 */
export function mayFireAfter(mayFire: ReadonlySet<Severity>, { firing, ended }: Alerting): ReadonlySet<Severity> {
  const left = new Set(ended.filter(({ how }) => how === 'escalated' || how === 'de-escalated').map(severityOf))
  const kept = [...mayFire].filter((severity) => !left.has(severity))
  return new Set(firing === null ? kept : [...kept, firing.severity])
}

function severityOf({ severity }: OpenIncident): Severity {
  return severity
}

export interface AlertDetails {
  /** Those of stableLabels. */
  readonly labels: Readonly<Record<string, string>>
  readonly rules: IncidentRules
  readonly state: IncidentState
  /** The poll's, unix seconds. */
  readonly timestampSeconds: number
  /** How long Alertmanager lets the alert fire without hearing of it again. */
  readonly lastsSeconds: number
  /** Lines of text about the newest transition; may be empty. */
  readonly evidence: readonly string[]
}

/** What to post, the alert that fires first: a new group may be notified as soon as its first alert is there. */
export function alertsOf({ firing, ended }: Alerting, details: AlertDetails): readonly Alert[] {
  const { labels, timestampSeconds, lastsSeconds } = details
  const description = details.evidence.join('\n')
  const posted = ended.map((alert, i) =>
    alertOf(alert, {
      labels,
      endsSeconds: alert.endedSeconds,
      summary: endedSummary(alert),
      description: firing === null && i === ended.length - 1 ? description : '',
    }),
  )
  if (firing === null) return posted
  const summary = firingSummary(firing, details)
  return [alertOf(firing, { labels, endsSeconds: timestampSeconds + lastsSeconds, summary, description }), ...posted]
}

function alertOf(
  { severity, startedSeconds }: OpenIncident,
  alert: {
    readonly labels: Readonly<Record<string, string>>
    readonly endsSeconds: number
    readonly summary: string
    readonly description: string
  },
): Alert {
  const started = instant(startedSeconds)
  return {
    labels: { alertname: ALERT_NAME, severity: `sev${severity}`, ...alert.labels },
    annotations: {
      summary: truncated(alert.summary),
      ...(alert.description === '' ? {} : { description: truncated(alert.description) }),
      started,
    },
    startsAt: started,
    endsAt: instant(alert.endsSeconds),
  }
}

function firingSummary({ severity }: OpenIncident, { rules, state }: AlertDetails): string {
  const { accumulators } = state
  const above = rules.pairs.filter(({ accumulatorThreshold }, i) => (accumulators[i] ?? 0) > accumulatorThreshold)
  const warm = rules.pairs.filter((_, i) => (accumulators[i] ?? 0) > 0)
  const named = (above.length > 0 ? above : warm).map((pair) => oneLine(pairName(pair)))
  const names = firstFew(named, MAX_NAMED_PAIRS, ', ')
  return `Sev ${severity}: latency of ${names} is abnormal, temperature ${temperatureOf(accumulators)}`
}

function endedSummary({ severity, how, startedSeconds, endedSeconds }: EndedAlert): string {
  const after = `after ${Math.round(endedSeconds - startedSeconds)} s`
  switch (how) {
    case 'resolved':
      return `Sev ${severity} resolved ${after}`
    case 'expired':
      return `Sev ${severity} expired ${after}: nothing is known of the pairs any more`
    case 'merged':
      return `Sev ${severity} became part of an older incident ${after}`
    case 'escalated':
    case 'de-escalated':
      return `Sev ${severity} ${how} ${after}`
  }
}

/**
 * What tells the alerts of one incident daemon from those of another, and is the same for its replicas: the pairs. Nothing
 * in it changes while an incident is open.
 */
export function stableLabels(pairs: readonly Pair[]): Readonly<Record<string, string>> {
  const text = pairs.map(pairName).sort().join(', ')
  if (text.length <= MAX_LABEL_LENGTH) return { pairs: text }
  const [first = ''] = text.split(', ')
  return { pairs: `${cut(first, MAX_LABEL_LENGTH - 40)} and ${pairs.length - 1} more (${hashOf(text)})` }
}

/**
 * What tells the alerts of one incident of a mesh from those of another, and is the same for replicas: the pair that it began
 * with, which no other open incident has.
 */
export function incidentLabels(first: Pair): { readonly pairs: string } {
  const name = pairName(first)
  // `a -> b` to `c` is not `a` to `b -> c`.
  if (name.split(' ').length === 3 && name.length <= MAX_LABEL_LENGTH) return { pairs: name }
  return { pairs: `${cut(name, MAX_LABEL_LENGTH - 40)} (${hashOf(pairKey(first))})` }
}

/** FNV-1a over the UTF-16 code units, 32 bit, hexadecimal. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}

function cut(text: string, length: number): string {
  return Array.from(text).slice(0, length).join('')
}

/** At most MAX_ANNOTATION_BYTES of UTF-8, cut between code points, with a mark where it was cut. */
function truncated(text: string): string {
  const encoder = new TextEncoder()
  if (text.length * 3 <= MAX_ANNOTATION_BYTES || encoder.encode(text).length <= MAX_ANNOTATION_BYTES) return text
  const mark = '…'
  let bytes = encoder.encode(mark).length
  let kept = ''
  for (const point of text) {
    bytes += encoder.encode(point).length
    if (bytes > MAX_ANNOTATION_BYTES) break
    kept += point
  }
  return `${kept}${mark}`
}

function instant(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}

const FIRST_RETRY_MS = 2_000
const LAST_RETRY_MS = 30_000

/**
 * How long to wait after that many failures in a row: 1 to 2 s, then 2 to 4 s, up to 30 s. Chance has its part so that
 * replicas do not come together.
 *
 * @param chance - in [0, 1)
 */
export function retryDelayMs(failures: number, chance: number): number {
  const fullMs = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1))
  return fullMs / 2 + (fullMs / 2) * chance
}
