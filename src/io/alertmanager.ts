import { Counter, Gauge, type Registry } from 'prom-client'

import {
  type AlertDetails,
  type Alerting,
  alertsOf,
  mayFireAfter,
  neededBy,
  nextAlerting,
  NOTHING_RAISED,
  retryDelayMs,
} from '../core/alert.js'
import type { IncidentRules, IncidentState, Severity } from '../core/incident.js'
import { maintenanceAt, type MaintenanceWindow } from '../core/maintenance.js'
import { NOTIFIER_METRICS } from '../core/metric-names.js'
import { oneLine } from '../core/plain-text.js'
import { exchange, hostOf, type HttpFailure, type HttpResponse } from './exchange.js'
import type { Runtime } from './runtime.js'
import { createTroubleLog } from './trouble-log.js'

export interface NotifierConfig {
  /** Base URLs without a trailing slash; each is told everything. None: nothing is sent. */
  readonly alertmanagerUrls: readonly string[]
  readonly maintenance: readonly MaintenanceWindow[]
  /** Those of stableLabels: what tells this daemon and its replicas from others. */
  readonly labels: Readonly<Record<string, string>>
  /** The rule's. */
  readonly noDataTimeoutSeconds: number
  readonly pollIntervalMs: number
  /** Chance for the retries, in [0, 1). */
  readonly random: () => number
}

interface Folded {
  readonly rules: IncidentRules
  /** After the poll. */
  readonly state: IncidentState
  /** Lines of text for the annotations, when there is something new to say; else empty, and the last ones hold. */
  readonly evidence: readonly string[]
}

interface When {
  /** The poll's, unix seconds by Prometheus's clock. */
  readonly timestampSeconds: number
  /** False while history is replayed or caught up on: folded, not sent. */
  readonly live: boolean
}

export interface FoldedPoll extends Folded, When {}

/** One of several incidents. */
export interface FoldedIncident extends Folded {
  /** Tells it from others that are open, and is the same from its first poll to its last. */
  readonly name: string
  /** Those of its alerts: other ones for each name. */
  readonly labels: Readonly<Record<string, string>>
  /** Whether it became part of an older one in this poll. */
  readonly merged: boolean
}

export interface FoldedMesh extends When {
  /** All that are open after the poll, and those that ended in it. */
  readonly incidents: readonly FoldedIncident[]
}

export interface Notifier {
  /** To be called with each poll that was folded, in order. Never waits, never throws for what an Alertmanager does. */
  readonly update: (poll: FoldedPoll) => void
  /** Why an incident is expected at that time; null when it is not. */
  readonly expectedAt: (timestampSeconds: number) => string | null
  /** Resolves when nothing is being sent or waits to be sent again. */
  readonly idle: () => Promise<void>
}

export interface MeshNotifier extends Omit<Notifier, 'update'> {
  /** As a notifier's, with all incidents of the mesh. */
  readonly update: (poll: FoldedMesh) => void
}

/** In one post: far below what the HTTP client sends at most. */
const ALERTS_PER_POST = 50
const NEWS_LOGGED = 20

const POST_DEADLINE_MS = 5_000
const RESEND_MS = 30_000
/** After an answer that a retry does not change: a wrong path, a missing permission. */
const SLOW_RETRY_MS = 60_000

/**
 * How long what one poll decided may wait to be sent. Later a newer poll has taken its place, or Prometheus is silent and this
 * replica blind: then it says nothing, for another may know that the incident is over.
 */
const FRESH_FOR_MS = 60_000

/**
 * Tells Alertmanagers of the incident. All it knows comes from the polls it is given, so a restart that replays them goes on
 * where the last process was: what that one raised is kept alive, or resolved when it ended meanwhile.
 *
 * Everything is sent because of a poll, so that what is repeated is never older than what was just read: a replica that
 * re-sent from a timer would raise again what another has just resolved.
 */
export function createNotifier({ labels, ...config }: NotifierConfig, runtime: Runtime, registry: Registry): Notifier {
  const { update, ...notifier } = createMeshNotifier(config, runtime, registry)
  return {
    ...notifier,
    update: ({ timestampSeconds, live, ...folded }) => {
      update({ timestampSeconds, live, incidents: [{ ...folded, name: '', labels, merged: false }] })
    },
  }
}

/** What is told of one incident. */
interface Told extends Folded {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly alerting: Alerting
}

/** The same for several incidents, each with alerts of its own. */
export function createMeshNotifier(
  config: Omit<NotifierConfig, 'labels'>,
  runtime: Runtime,
  registry: Registry,
): MeshNotifier {
  const { alertmanagerUrls, maintenance, noDataTimeoutSeconds, pollIntervalMs, random } = config
  const { logger } = runtime
  const resendMs = Math.max(RESEND_MS, pollIntervalMs)
  // Silence is evidence of nothing for as long as the rule says so: until then no alert may end because Prometheus is away.
  const lastsSeconds = Math.max(120, (4 * resendMs) / 1000, noDataTimeoutSeconds)
  const queues = alertmanagerUrls.map((url) =>
    createQueue(
      {
        url,
        freshForMs: Math.max(FRESH_FOR_MS, 3 * pollIntervalMs),
        // Polls come in slots: the one that is due comes half a slot early or late.
        resendAfterMs: resendMs - pollIntervalMs / 2,
        random,
        count: (result) => metrics.notifications.inc({ result }),
      },
      runtime,
    ),
  )
  const metrics = createNotifierMetrics(registry, () => queues.filter((queue) => queue.isPending()).length)
  /** By name, in which nothing is that has nothing to say any more. */
  let told: ReadonlyMap<string, Told> = new Map()
  let newestSeconds = -Infinity
  let expected: string | null = null

  const next = ({ incidents, timestampSeconds }: FoldedMesh, reason: string | null): ReadonlyMap<string, Told> => {
    const after = new Map<string, Told>()
    for (const { merged, ...incident } of incidents) {
      const known = told.get(incident.name)
      const poll = { state: incident.state, timestampSeconds, expected: reason, merged }
      const alerting = nextAlerting(known?.alerting ?? NOTHING_RAISED, poll)
      const evidence = incident.evidence.length > 0 ? incident.evidence : (known?.evidence ?? [])
      after.set(incident.name, { ...incident, alerting, evidence })
    }
    for (const [name, known] of told) {
      if (after.has(name)) continue
      const poll = { state: { open: null, expired: false }, timestampSeconds, expected: reason }
      const alerting = nextAlerting(known.alerting, poll)
      if (alerting.ended.length > 0) after.set(name, { ...known, alerting })
    }
    return after
  }

  return {
    update: (poll) => {
      const { timestampSeconds, live } = poll
      if (timestampSeconds <= newestSeconds) return // nothing new was read: a blind replica sends nothing
      newestSeconds = timestampSeconds
      const reason = maintenanceAt(maintenance, timestampSeconds)
      told = next(poll, reason)
      if (!live) return
      if (reason !== expected) {
        if (reason === null) logger.info({ reason: expected }, 'maintenance window ended: incidents are sent again')
        else logger.info({ reason }, 'maintenance window began: incidents are expected and not sent')
        expected = reason
      }
      metrics.expected.set(reason === null ? 0 : 1)
      const incidents = [...told.values()].map(({ name, alerting, ...details }) => ({
        name,
        alerting,
        details: { ...details, timestampSeconds, lastsSeconds },
      }))
      for (const queue of queues) queue.offer({ incidents, madeMs: runtime.clock.monotonicMs() })
    },
    expectedAt: (timestampSeconds) => maintenanceAt(maintenance, timestampSeconds),
    idle: async () => {
      await Promise.all(queues.map((queue) => queue.idle()))
    },
  }
}

/** What a person would want to hear of, one text each. */
function newsOf({ name, alerting: { firing, ended } }: Said): readonly string[] {
  const of = name === '' ? '' : `${name}: `
  return [
    ...(firing === null ? [] : [`${of}sev${firing.severity} firing`]),
    ...ended.map(({ severity, how, endedSeconds }) => `${of}sev${severity} ${how} ${endedSeconds}`),
  ]
}

export function createNotifierMetrics(registry: Registry, pendingNow: () => number) {
  const { notifications, pending, expected } = NOTIFIER_METRICS
  const counter = new Counter({ ...named(notifications), labelNames: notifications.labels, registers: [registry] })
  // A counter born at 3 has an increase() of 0.
  for (const result of notifications.values) counter.inc({ result }, 0)
  new Gauge({
    ...named(pending),
    registers: [registry],
    collect() {
      this.set(pendingNow())
    },
  })
  const expectedGauge = new Gauge({ ...named(expected), registers: [registry] })
  expectedGauge.remove() // not known before the first poll
  return { notifications: counter, expected: expectedGauge }
}

function named({ name, help }: { readonly name: string; readonly help: string }): { name: string; help: string } {
  return { name, help }
}

/** What is to be said of one incident. */
interface Said {
  readonly name: string
  readonly alerting: Alerting
  readonly details: AlertDetails
}

/** What one poll decided. */
interface Batch {
  readonly incidents: readonly Said[]
  /** Monotonic milliseconds. */
  readonly madeMs: number
}

type Result = (typeof NOTIFIER_METRICS.notifications.values)[number]

/** The way to one Alertmanager. It holds at most one batch, the newest, so a slow one delays nobody and nothing piles up. */
interface Queue {
  readonly offer: (batch: Batch) => void
  readonly isPending: () => boolean
  readonly idle: () => Promise<void>
}

interface QueueConfig {
  readonly url: string
  readonly freshForMs: number
  readonly resendAfterMs: number
  readonly random: () => number
  readonly count: (result: Result) => void
}

function createQueue({ url, freshForMs, resendAfterMs, random, count }: QueueConfig, runtime: Runtime): Queue {
  const { clock, signal, logger } = runtime
  const trouble = createTroubleLog(runtime, { subject: 'notifications', fields: { alertmanager: url } })
  let pending: Batch | null = null
  let taken: { readonly news: ReadonlySet<string>; readonly atMs: number } | null = null
  /** By name: severities that may be firing there; null before the first poll. */
  let mayFire: Map<string, ReadonlySet<Severity>> | null = null
  let refused = false
  let working = false
  let work = Promise.resolve()
  const stopped = (): boolean => signal.aborted
  const waiting = (): Batch | null => pending
  const mayFireOf = (name: string): ReadonlySet<Severity> => mayFire?.get(name) ?? new Set()
  const needed = ({ incidents }: Batch): readonly Said[] =>
    incidents
      .map((incident) => ({ ...incident, alerting: neededBy(incident.alerting, mayFireOf(incident.name)) }))
      .filter(({ alerting: { firing, ended } }) => firing !== null || ended.length > 0)
  const unheard = (said: readonly Said[]): readonly string[] =>
    said.flatMap(newsOf).filter((item) => taken?.news.has(item) !== true)
  const isDue = (batch: Batch): boolean =>
    taken === null || batch.madeMs - taken.atMs >= resendAfterMs || unheard(needed(batch)).length > 0

  const post = async (said: readonly Said[]): Promise<PostOutcome> => {
    const alerts = said.map(({ alerting, details }) => ({ alerting, posted: alertsOf(alerting, details) }))
    // What fires stands before what has ended, of all incidents as of one.
    const firing = alerts.flatMap(({ alerting, posted }) => (alerting.firing === null ? [] : posted.slice(0, 1)))
    const ended = alerts.flatMap(({ alerting, posted }) => (alerting.firing === null ? posted : posted.slice(1)))
    const all = [...firing, ...ended]
    let worst: PostOutcome | null = null
    for (let from = 0; from < all.length; from += ALERTS_PER_POST) {
      const answer = await exchange(runtime, POST_DEADLINE_MS, {
        url: `${url}/api/v2/alerts`,
        method: 'post',
        headers: { 'Content-Type': 'application/json' },
        data: JSON.stringify(all.slice(from, from + ALERTS_PER_POST)),
      })
      const outcome = outcomeOf(answer)
      if (outcome.result === 'failed') return outcome
      if (worst === null || outcome.result === 'rejected') worst = outcome
    }
    return worst ?? SENT
  }

  const handle = (said: readonly Said[], outcome: PostOutcome): void => {
    count(outcome.result)
    const known = (mayFire ??= new Map())
    if (outcome.result === 'failed') {
      for (const { name, alerting } of said) {
        // It may be firing there, though we were not told.
        const { firing } = alerting
        if (outcome.reached && firing !== null) known.set(name, new Set([...mayFireOf(name), firing.severity]))
      }
      trouble.note(outcome)
      return
    }
    if (outcome.result === 'sent') {
      trouble.note({ outcome: 'ok', detail: '' })
      const news = unheard(said)
      const more = news.length - NEWS_LOGGED
      if (news.length > 0) {
        const alerts = news.slice(0, NEWS_LOGGED)
        logger.info({ alertmanager: url, alerts, ...(more > 0 ? { more } : {}) }, 'notified')
      }
    } else if (!refused) {
      logger.error({ alertmanager: url, detail: outcome.detail }, 'an alert was refused: a bug of meshfever')
      refused = true
    }
    taken = { news: new Set(said.flatMap(newsOf)), atMs: clock.monotonicMs() }
    for (const { name, alerting } of said) known.set(name, mayFireAfter(mayFireOf(name), alerting))
  }

  /** Posts the newest batch until it is taken. */
  const drain = async (): Promise<void> => {
    let failures = 0
    while (pending !== null && !stopped()) {
      const batch: Batch = pending
      if (clock.monotonicMs() - batch.madeMs > freshForMs) {
        pending = null
        taken = null
        break
      }
      const said = needed(batch)
      const outcome = await post(said)
      if (stopped()) break
      handle(said, outcome)
      if (outcome.result === 'failed') {
        failures++
        await clock.sleep(outcome.slowly ? SLOW_RETRY_MS : retryDelayMs(failures, random()), signal)
      } else {
        failures = 0
        const newest = waiting()
        if (newest !== null && !isDue(newest)) pending = null
      }
    }
    working = false
  }

  return {
    offer: (batch) => {
      const isFirst = mayFire === null
      mayFire = new Map(
        batch.incidents.map(({ name, alerting: { firing, ended } }) => {
          const known = new Set([firing, ...ended].map((alert) => alert?.severity))
          // What ended before this process began may have been raised by one before it.
          const before = isFirst ? ended.map(({ severity }) => severity) : [...mayFireOf(name)]
          return [name, new Set(before.filter((severity) => known.has(severity)))]
        }),
      )
      if (needed(batch).length === 0) {
        // Nothing is left to say, and what waited to be said is out of date.
        pending = null
        taken = null
        return
      }
      if (pending === null && !isDue(batch)) return
      pending = batch
      if (working) return
      working = true
      work = drain()
    },
    isPending: () => waiting() !== null,
    idle: () => work,
  }
}

interface PostOutcome {
  readonly result: Result
  readonly outcome: string
  readonly detail: string
  /** Whether a person has to do something before a retry can succeed. */
  readonly slowly: boolean
  /** Whether Alertmanager may have taken it all the same. */
  readonly reached: boolean
}

const SENT: PostOutcome = { result: 'sent', outcome: 'ok', detail: '', slowly: false, reached: true }

const NEVER_ARRIVED = /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/

function outcomeOf(answer: HttpResponse | HttpFailure): PostOutcome {
  if (answer.kind === 'failure') {
    const { outcome, detail } = answer
    const reached = outcome !== 'dns' && outcome !== 'tls' && !NEVER_ARRIVED.test(detail)
    return { result: 'failed', outcome, detail, slowly: false, reached }
  }
  const { status, text, location } = answer
  const failed = (outcome: string, detail: string, { slowly }: { readonly slowly: boolean }): PostOutcome => ({
    result: 'failed',
    outcome,
    detail: `HTTP ${status}${detail}`,
    slowly,
    reached: !slowly,
  })
  if (status >= 200 && status < 300) return SENT
  if (status >= 500) return failed('http_5xx', '', { slowly: false })
  if (status === 408 || status === 429) return failed('http_4xx', '', { slowly: false })
  if (status === 400 || status === 415 || status === 422) {
    const detail = `HTTP ${status}: ${oneLine(text.slice(0, 300))}`
    return { result: 'rejected', outcome: 'http_4xx', detail, slowly: true, reached: true }
  }
  if (status === 401 || status === 403) return failed('auth', '', { slowly: true })
  if (status >= 300 && status < 400) {
    const detail = `, to ${hostOf(location)}; redirects are not followed, give the final URL`
    return failed('redirect', detail, { slowly: true })
  }
  return failed('http_4xx', status === 404 ? '; is the path of --alertmanager-url right?' : '', { slowly: true })
}
